"""Presets and overrides to a checked configuration dataclass, with Hydra."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avhubert.config.schema import REQUIRED, SCHEMAS
from avhubert.config.validate import (
    check_together,
    checked_value,
    from_dict,
    keys,
    leaf_types,
    to_dict,
    unknown_key_message,
)
from avhubert.errors import ConfigError, one_of

PRESETS = Path(__file__).parent / "presets"


# --------------------------------------------------------------------------- presets → checked dataclasses
def presets(command: str) -> list[str]:
    """Names of the presets that the package has for a command."""
    return sorted(path.stem for path in (PRESETS / command).glob("*.yaml") if not path.stem.startswith("_"))


def preset_command(name: str, config_dir: str | Path | None) -> str:
    """The folder that a fine-tuning preset lives in: audio-visual recipes have their own."""
    return "av-finetune" if config_dir is None and name in presets("av-finetune") else "finetune"


def compose(command: str, name: str, overrides: typing.Sequence[str] = (), config_dir: str | Path | None = None) -> Any:
    """Read preset `name` of `command` with Hydra, apply `key=value` overrides, check everything.

    Hydra reads the presets and chooses config groups (folders beside a preset); `key=value`, `+key=value` and `~key`
    (back to the default) are in Hydra's grammar but set here, so that a wrong key or value gets a clear sentence.

    Returns the dataclass of SCHEMAS[command]. ConfigError names the preset, key or value that is wrong
    and lists the valid ones.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # OmegaConf's own parser

    directory = Path(config_dir) if config_dir else PRESETS / command
    if not directory.is_dir():
        raise ConfigError(f"--config-dir {directory} is not a folder")
    if not (directory / f"{name}.yaml").is_file():
        raise ConfigError(one_of(f"{command} preset", name, _names(command, config_dir)))
    where = f"{command} preset '{name}'"
    schema = SCHEMAS[command]
    # our own presets stay reachable as parents of a user's preset, and fine-tuning's as parents of audio-visual ones
    parents = [PRESETS / command, *([PRESETS / "finetune"] if command == "av-finetune" else [])]
    changes = [_parsed(text, schema) for text in overrides]
    groups = [c for c in changes if c.key and any((folder / c.key).is_dir() for folder in (directory, *parents))]
    search = ",".join(_quoted(f"file://{parent}") for parent in parents)
    try:
        with initialize_config_dir(config_dir=str(directory.resolve()), version_base="1.3"):
            for_hydra = [f"hydra.searchpath=[{search}]", *(change.text for change in groups)]
            preset = hydra_compose(config_name=name, overrides=for_hydra)
        OmegaConf.set_struct(preset, False)
        for change in changes:
            if change not in groups:
                _apply(change, preset, schema, where)
        # under the schema's defaults, so that ${seed} is known where the preset leaves it out
        merged = OmegaConf.merge(OmegaConf.create(to_dict(schema())), preset)
        for key in leaf_types(schema):
            group, _, leaf = key.rpartition(".")
            node = OmegaConf.select(preset, group) if group else preset
            if OmegaConf.is_dict(node) and OmegaConf.is_missing(node, leaf):  # merge leaves it at the default
                OmegaConf.update(merged, key, REQUIRED)
        values = OmegaConf.to_container(merged, resolve=True)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"{where} cannot be read: {' '.join(str(error).split())}") from error
    config = from_dict(schema, values, where)
    check_together(config, where)
    return config


@dataclass(frozen=True)
class _Change:
    """A parsed override: `text` as it was given."""

    text: str
    key: str
    value: Any
    delete: bool


def _names(command: str, config_dir: str | Path | None) -> list[str]:
    if config_dir is not None:
        return [path.stem for path in Path(config_dir).glob("*.yaml")]
    return [*presets("finetune"), *presets("av-finetune")] if command == "finetune" else presets(command)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _parsed(text: str, schema: type) -> _Change:
    """An override in Hydra's grammar; text values, such as paths, are taken as they stand."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, raw = text.lstrip("+").partition("=")
    kind = leaf_types(schema).get(key)
    written = "'\"[" if kind == str | list[str] | None else "'\""  # how text begins that Hydra's grammar reads
    text_kinds = (str, str | None, str | list[str] | None)
    if equals and kind in text_kinds and raw not in ("", "null") and raw[0] not in written:
        return _Change(text, key, raw, delete=False)
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(f"'{text}' is not of the form key=value, such as optimizer.betas=[0.9,0.98]") from error
    if override.is_sweep_override():
        raise ConfigError(f"'{text}' gives several values; give one (a list is written [1,2])")
    return _Change(text, override.key_or_group, override.value(), override.is_delete())


def _apply(change: _Change, preset: Any, schema: type, where: str) -> None:
    """Set or delete one key of the composed preset, checked against the schema first."""
    from omegaconf import OmegaConf

    kind: Any = schema
    parts = change.key.split(".")
    for position, part in enumerate(parts):
        hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
        if part not in hints:
            if not hints:  # something below a value: name it from the top
                kind, position = schema, 0
            prefix = ".".join([*parts[:position], ""])
            raise ConfigError(unknown_key_message(kind, prefix, ".".join(parts[position:]), where))
        kind = hints[part]
    if change.delete:
        parent = OmegaConf.select(preset, ".".join(parts[:-1])) if parts[:-1] else preset
        if parent is not None:
            parent.pop(parts[-1], None)
        return
    if dataclasses.is_dataclass(kind):
        if not isinstance(change.value, dict):
            known = ", ".join(keys(typing.cast(type, kind), f"{change.key}."))
            raise ConfigError(f"{where}: {change.text} cannot be set as a whole; set one of its keys: {known}")
        from_dict(typing.cast(type, kind), change.value, where, f"{change.key}.")
    elif not (isinstance(change.value, str) and "${" in change.value):
        checked_value(kind, parts[-1], change.value, f"{where}: {change.key}")
    OmegaConf.update(preset, change.key, change.value, force_add=True)
