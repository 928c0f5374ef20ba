"""Reads the published project's training configurations (YAML with `task.data`, `model.w2v_path`, …) as ours.

A key that the file lacks has the original's default if it differs from ours. Keys without effect are named in one
warning; unknown keys are an error.
"""

from __future__ import annotations

import ast
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from avhubert.checkpoints.fairseq.preset_keys import (
    COMBINED_KEYS,
    COMMANDS,
    DEFAULT_MAX_TOKENS,
    DEFAULTS,
    FINETUNE_KEYS,
    GROUPS,
    IGNORED_KEYS,
    KEYS,
    PRETRAIN_KEYS,
    REQUIRED_VALUES,
    SHARED_KEYS,
)
from avhubert.config import compose
from avhubert.errors import ConfigError
from avhubert.files import sha256, write_json

KNOWN_KEYS = SHARED_KEYS | PRETRAIN_KEYS | FINETUNE_KEYS | REQUIRED_VALUES | dict.fromkeys(IGNORED_KEYS | COMBINED_KEYS)
MISSING = (None, "???")  # a key that the user must give


def compose_any(
    command: str, name: str, overrides: Sequence[str], config_dir: Path | None, warn: Callable[[str], None]
) -> Any:
    """`config.compose`, also for a file in `config_dir` that is a configuration of the published project.

    Args:
        command: `pretrain` or `finetune`.
        name: The name of a preset, or of a file in `config_dir`.
        overrides: Values of keys; for a published configuration its keys (`task.data=…`, `hydra.run.dir=…`) or ours.
        config_dir: A folder of configurations.
        warn: Gets the warning about keys without effect.

    Raises:
        ConfigError: An unknown key, a value that is not supported, or a configuration of the other command.
    """
    path = None if config_dir is None else Path(config_dir) / f"{name.removesuffix('.yaml')}.yaml"
    if path is None or not path.is_file() or not GROUPS & (content := _read(path)).keys():
        return compose(command, name, overrides, config_dir)
    if _command(content, path) != command:
        raise ConfigError(
            f"{path} is a configuration for `avhubert {_command(content, path)}`, not for `avhubert {command}`"
        )
    ours = _apply_overrides(content, overrides)
    given = _flattened(content, path)
    unknown = [key for key in given if not _is_known(key)]
    if unknown:
        raise ConfigError(
            f"{path}: unknown key {', '.join(unknown)}: not one of the published project's training; remove it, or "
            f"use the keys of `avhubert {command}`"
        )
    values = _translated(given, command, path)
    ignored = [key for key in given if (key in IGNORED_KEYS or key.startswith("hydra.")) and key not in COMBINED_KEYS]
    if ignored:
        warn(f"warning: {path}: these keys have no effect: {', '.join(ignored)}")
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / path.name, _nested(values))  # JSON is YAML
        return compose(command, path.stem, ours, folder)


def _is_known(key: str) -> bool:
    return key in KNOWN_KEYS or key.startswith("hydra.")


# --------------------------------------------------------------------------- reading
def _read(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def _command(content: dict[str, Any], path: Path) -> str:
    """The command whose configuration it is."""
    model = content.get("model")
    name = model.get("_name") if isinstance(model, dict) else None
    if name not in COMMANDS:
        raise ConfigError(f"{path}: model._name={name} is not supported; supported: {' and '.join(COMMANDS)}")
    return COMMANDS[name]


def _apply_overrides(content: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Set the overrides with published keys in `content`; returns the others."""
    others = []
    for text in overrides:
        key, equals, value = text.lstrip("+").partition("=")
        if equals and _is_known(key):
            _set(content, key, value)
        else:
            others.append(text)
    return others


def _set(content: dict[str, Any], key: str, value: str) -> None:
    """Set a dotted key to a value from the command line."""
    *groups, leaf = key.split(".")
    for group in groups:
        content = content.setdefault(group, {})
    try:
        content[leaf] = {"true": True, "false": False, "null": None}[value.lower()]
    except KeyError:
        try:
            content[leaf] = ast.literal_eval(value)
        except (ValueError, SyntaxError):  # text, such as a path
            content[leaf] = value


def _flattened(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Dotted keys and values, with `${…}` resolved except under `hydra`, which is only known at run time."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    def flatten(values: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in values.items():
            if isinstance(value, dict) and value:
                flat |= flatten(value, f"{prefix}{key}.")
            else:
                flat[f"{prefix}{key}"] = value
        return flat

    hydra = {"hydra": content["hydra"]} if isinstance(content.get("hydra"), dict) else {}
    others = {key: value for key, value in content.items() if key not in ("hydra", "_name")}
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(others), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    assert isinstance(resolved, dict)
    return flatten(resolved) | flatten(hydra)


# --------------------------------------------------------------------------- translation
def _translated(given: dict[str, Any], command: str, path: Path) -> dict[str, Any]:
    """Our dotted keys and values.

    Args:
        given: The published keys and values of the file.
        command: `pretrain` or `finetune`.
        path: The file, for messages.
    """
    _check_supported(given, command, path)
    values = {
        KEYS[command][key]: _converted(key, value, path)
        for key, value in (DEFAULTS[command] | given).items()
        if key in KEYS[command] and value not in MISSING
    }
    _resolve_special_values(given, command, values)
    values["train.frames_per_step"] = _frames_per_step(given, values, path)
    run_dir = given.get("hydra.run.dir")
    if run_dir is not None and "${" not in str(run_dir):
        values["run_dir"] = str(run_dir)
    if command == "finetune":
        _check_texts(given, values, path)
        modality = values.setdefault("data.modalities", "av")
        values |= {"data.draw_av": 0.0, f"data.draw_{modality}": 1.0}
    return values


def _check_supported(given: dict[str, Any], command: str, path: Path) -> None:
    """ConfigError for a value that is not supported, or a key of the other command."""
    for key, supported in REQUIRED_VALUES.items():
        if key in given and given[key] not in supported:
            raise ConfigError(
                f"{path}: {key}={given[key]} is not supported; supported: {' or '.join(map(str, supported))}"
            )
    if command == "finetune" and not given.get("optimization.sentence_avg", True):
        raise ConfigError(
            f"{path}: optimization.sentence_avg={given['optimization.sentence_avg']} is not supported: the loss is "
            "divided by sentences"
        )
    other = "finetune" if command == "pretrain" else "pretrain"
    for key, value in given.items():
        if key in KEYS[other] and key not in KEYS[command] and key not in COMBINED_KEYS:
            raise ConfigError(f"{path}: {key}={value} belongs to `avhubert {other}`; remove it")


def _resolve_special_values(given: dict[str, Any], command: str, values: dict[str, Any]) -> None:
    """Remove numbers below 1 that stand for "never", "all" or "as in the data"; 0 of final_dim: the encoder's width."""
    for key in (
        "checkpoint.save_interval_updates",
        "checkpoint.keep_interval_updates",
        "dataset.validate_interval_updates",
    ):
        value = given.get(key)
        if isinstance(value, (int, float)) and value < 1:
            del values[KEYS[command][key]]
    if given.get("model.final_dim", 1) == 0:
        values["model.final_dim"] = values.get("model.encoder_embed_dim", 768)
    if given.get("model.audio_feat_dim", 1) == -1:
        del values["model.audio_feat_dim"]


def _frames_per_step(given: dict[str, Any], values: dict[str, Any], path: Path) -> int:
    """Frames of an optimizer step: of one device, times devices and accumulated batches."""
    frames = values.setdefault("train.frames_per_batch", DEFAULT_MAX_TOKENS)
    factors = {"dataset.max_tokens": frames}
    for key in ("distributed_training.distributed_world_size", "optimization.update_freq"):
        value = given.get(key, 1)
        factors[key] = value[0] if isinstance(value, list) and value else value
    for key, factor in factors.items():
        if not isinstance(factor, (int, float)) or not float(factor).is_integer():
            raise ConfigError(f"{path}: {key}={given.get(key)} must be a whole number")
    return math.prod(map(int, factors.values()))


def _check_texts(given: dict[str, Any], values: dict[str, Any], path: Path) -> None:
    """ConfigError unless transcripts and tokenizer are those of the data directory, the only ones that are read."""
    data, labels = values.get("data.dir"), given.get("task.label_dir")
    if data is None:
        return
    if labels not in MISSING and Path(str(labels)).resolve() != Path(data).resolve():
        raise ConfigError(
            f"{path}: task.label_dir={labels}: transcripts are read from task.data={data}; put them there"
        )
    model, own = given.get("task.tokenizer_bpe_model"), Path(data) / "tokenizer.model"
    if model in MISSING:
        return
    if not Path(str(model)).is_file():
        raise ConfigError(f"{path}: task.tokenizer_bpe_model={model} does not exist")
    if not own.is_file() or sha256(own) != sha256(str(model)):
        raise ConfigError(f"{path}: task.tokenizer_bpe_model={model} is not {own}, which is read here; copy it there")


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for key, value in values.items():
        *groups, leaf = key.split(".")
        parent = root
        for group in groups:
            parent = parent.setdefault(group, {})
        parent[leaf] = value
    return root


# --------------------------------------------------------------------------- values
def _converted(key: str, value: Any, path: Path) -> Any:
    """A published value as ours."""
    if isinstance(value, str) and value[:1] in "([":  # "(0.9,0.98)"
        try:
            value = list(ast.literal_eval(value))
        except (ValueError, SyntaxError, TypeError) as error:
            raise ConfigError(f"{path}: {key}={value} is not a list of numbers") from error
    try:
        return _CONVERTERS[key](value) if key in _CONVERTERS else value
    except _WrongValueError as error:
        raise ConfigError(f"{path}: {key}={value} {error}") from error


class _WrongValueError(Exception):
    """A value that is not supported; the message says why."""


def _single(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    if len(values) != 1:
        raise _WrongValueError("is not supported: only one value is used")
    return values[0]


def _schedule(value: Any) -> str:
    schedules = {"polynomial_decay": "polynomial", "tri_stage": "tri_stage"}
    if value not in schedules:
        raise _WrongValueError(f"is not supported; supported: {' and '.join(schedules)}")
    return schedules[value]


def _modality(value: Any) -> str:
    streams = value if isinstance(value, list) else []
    modality = "".join(letter for letter, stream in (("a", "audio"), ("v", "video")) if stream in streams)
    if not modality or len(modality) != len(streams):
        raise _WrongValueError("must be a list of audio and video")
    return modality


def _snr(value: Any) -> list[int]:
    try:
        return [int(item) for item in value] if isinstance(value, list) else [int(value)] * 2
    except (ValueError, TypeError) as error:
        raise _WrongValueError("must be one or two whole numbers of dB") from error


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "optimization.lr": _single,
    "criterion.loss_weights": _single,
    "lr_scheduler._name": _schedule,
    "task.modalities": _modality,
    "task.noise_snr": _snr,
}
