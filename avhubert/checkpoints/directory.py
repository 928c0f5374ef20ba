"""Model directories: `model.safetensors`, `config.json`, `README.md` and perhaps `tokenizer.model`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avhubert import files
from avhubert.checkpoints.card import card
from avhubert.config.schema import DecodeConfig, DecoderConfig, ModelConfig
from avhubert.config.validate import from_dict, to_dict
from avhubert.constants import NAMES_SHOWN
from avhubert.errors import CheckpointError, ConfigError, DataError
from avhubert.model.encoder import AVHubert

if TYPE_CHECKING:
    from avhubert.model.recognizer import Recognizer

FORMAT = 1


WEIGHTS, CONFIG, TOKENIZER, CARD = "model.safetensors", "config.json", "tokenizer.model", "README.md"


def save_model(
    directory: str | Path,
    model: AVHubert | Recognizer,
    tokenizer: bytes | None = None,
    metadata: dict[str, Any] | None = None,
    weights: dict[str, Tensor] | None = None,
    name: str | None = None,
) -> None:
    """Write `model` into `directory` (made if needed; other files in it stay), each file whole or not at all.

    `tokenizer`: a serialized SentencePiece model. `metadata`: what can be said of the model in JSON, such as its data
    and steps; it goes into `config.json` and the card. `weights`: the model's whole state where `model` itself has only
    a part of it (several devices). `name`: what the card says to load it by, where that is not a directory. Raises
    ConfigError where the directory cannot be written.
    """
    directory = files.output_directory(directory)
    config = _config(model, metadata or {})
    if tokenizer is not None:
        with files.atomic_path(directory / TOKENIZER) as temporary:
            temporary.write_bytes(tokenizer)
    whole = model.state_dict() if weights is None else weights
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in whole.items()}
    with files.atomic_path(directory / WEIGHTS) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    files.write_text(directory / CARD, card(config, sum(p.numel() for p in model.parameters()), name))
    files.write_json(directory / CONFIG, config)  # last: what has it is a model directory


def save(model: AVHubert | Recognizer, directory: str | Path) -> None:
    """Write a model with its own metadata, and a recognizer with its tokenizer, as a directory that `load` reads.

    Raises:
        ConfigError: the recognizer has no tokenizer; the directory cannot be written.
    """
    if isinstance(model, AVHubert):
        save_model(directory, model, metadata=model.metadata)
        return
    if model.tokenizer is None:
        raise ConfigError("this recognizer has no tokenizer: set model.tokenizer before it is saved")
    save_model(directory, model, model.tokenizer.serialized, model.metadata)


def load_model(directory: str | Path) -> AVHubert | Recognizer:
    """The model of a model directory, on the CPU and in evaluation mode (a recognizer's `tokenizer` is set by its
    callers).

    Raises CheckpointError: not a model directory, keys that are missing or unknown, tensors that do not fit.
    """
    directory = Path(directory)
    config = read_config(directory)
    path = directory / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{directory} has a {CONFIG} but no {WEIGHTS}: copy the whole model directory again")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): copy it again") from error
    with torch.random.fork_rng(devices=[]):  # loading draws nothing from the caller's random numbers
        model = _build(config)
    _fill(model, state, path)
    return model.eval()


def read_config(directory: str | Path) -> dict[str, Any]:
    """`config.json` of a model directory with `model`, `decoder` and `decode` (recognizers only) as config dataclasses.

    Raises CheckpointError in one sentence if it is not there, is of another format, or has missing or unknown keys.
    """
    path = Path(directory) / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{directory} is not a model directory: it has no {CONFIG}")
    try:
        content = files.read_json(path)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(content, dict) or "format" not in content:
        raise CheckpointError(f"{path} is not of a model directory: it has no 'format'")
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {content['format']}, this version reads format {FORMAT}: use the version that wrote it"
        )
    schemas: dict[str, type] = {"model": ModelConfig}
    if "decoder" in content:
        schemas |= {"decoder": DecoderConfig, "decode": DecodeConfig}
    unknown = sorted(set(content) - {"format", "metadata", *schemas})
    if unknown:
        raise CheckpointError(f"{path}: unknown key {_listed(unknown)}")
    metadata = content.get("metadata", {})
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{path}: the key 'metadata' does not hold names and values")
    if isinstance(metadata.get("labels"), dict):  # as it was written before a model could have several label sets
        metadata = metadata | {"labels": [metadata["labels"]]}
    sections = {name: _section(content, name, schema, path) for name, schema in schemas.items()}
    return content | {"metadata": metadata} | sections


def _section(content: dict[str, Any], name: str, schema: type, path: Path) -> Any:
    given = content.get(name)
    if not isinstance(given, dict):
        raise CheckpointError(f"{path}: the key '{name}' is missing")
    missing = [field.name for field in dataclasses.fields(schema) if field.name not in given]
    if missing and schema is not DecodeConfig:  # settings that came later stand at their defaults
        raise CheckpointError(f"{path}: under '{name}' the key {_listed(missing)} is missing")
    try:
        return from_dict(schema, given, source=str(path), prefix=f"{name}.")
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def _config(model: AVHubert | Recognizer, metadata: dict[str, Any]) -> dict[str, Any]:
    if isinstance(model, AVHubert):
        return {"format": FORMAT, "model": to_dict(_plain(model.config)), "metadata": metadata}
    return {
        "format": FORMAT,
        "model": to_dict(_plain(model.encoder.config)),
        "decoder": to_dict(model.decoder_config),
        "decode": to_dict(model.decode_settings),
        "metadata": metadata,
    }


def _plain(config: ModelConfig) -> ModelConfig:
    """`config` without what a subclass adds (pre-training's `pretrained`)."""
    return ModelConfig(**{field.name: getattr(config, field.name) for field in dataclasses.fields(ModelConfig)})


def _build(config: dict[str, Any]) -> AVHubert | Recognizer:
    try:
        if "decoder" not in config:
            return AVHubert(config["model"])
        from avhubert.model.recognizer import Recognizer

        recognizer = Recognizer.from_config(config["model"], config["decoder"])
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    recognizer.decode_settings = config["decode"]
    return recognizer


def _fill(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    for what, names in (("lacks", expected.keys() - state.keys()), ("has the unknown", state.keys() - expected.keys())):
        if names:
            raise CheckpointError(f"{path} {what} tensor {_listed(sorted(names))}: it is not of this {CONFIG}")
    for name, tensor in expected.items():
        if tensor.shape != state[name].shape:
            raise CheckpointError(
                f"{path}: {name} is {list(state[name].shape)}, {CONFIG} asks for {list(tensor.shape)}:"
                " they do not belong together"
            )
    model.load_state_dict(state)


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"
