"""Presets and `key=value` overrides to a checked configuration dataclass, with Hydra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avhubert.config.fields import REQUIRED, Key, schema_keys
from avhubert.config.schema import SCHEMAS
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
FOLDERS = {"iterate": "recipe"}  # command → folder of its presets, where the names differ
MAX_VALUES = 100_000  # of one preset of a user, aliases replaced by what they name
ALIASES = {"av-finetune": "finetune"}  # former folder of the audio-visual presets


def presets(command: str) -> list[str]:
    """Names of the package's presets for a command."""
    return sorted(path.stem for path in _folder(command).glob("*.yaml") if not path.stem.startswith("_"))


def compose(command: str, name: str, overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Any:
    """Read preset `name` of `command`, apply `key=value` overrides, and check every key and value.

    Hydra reads the preset with its parents and config groups (folders beside it). Overrides are written in Hydra's
    grammar: `key=value`, `+key=value`, and `~key` for the default.

    Args:
        command: `pretrain`, `finetune`, `iterate`, or `decode` for beam search settings.
        name: A preset of the package, or of `config_dir` if it is given.
        overrides: Applied in this order.
        config_dir: A folder of presets; they can name the package's presets as parents.

    Returns:
        The dataclass of `avhubert.config.schema.SCHEMAS[command]`.

    Raises:
        ConfigError: The preset, a key or a value is wrong; the message names it and the valid ones.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # OmegaConf's parser

    command = ALIASES.get(command, command)
    if command not in SCHEMAS:
        raise ConfigError(one_of("command", command, SCHEMAS))
    directory = Path(config_dir) if config_dir else _folder(command)
    if not directory.is_dir():
        raise ConfigError(f"--config-dir {directory} is not a folder")
    if not (directory / f"{name}.yaml").is_file():
        names = presets(command) if config_dir is None else [path.stem for path in directory.glob("*.yaml")]
        raise ConfigError(one_of(f"{command} preset", name, names))
    schema, source = SCHEMAS[command], f"{command} preset '{name}'"
    changes = [_parsed(text, schema) for text in overrides]
    try:
        if config_dir:
            _check_size(directory)
        values = _values(directory, name, _folder(command), changes, schema, source)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source} cannot be read: {' '.join(str(error).split())}") from error
    config = from_dict(schema, values, source)
    check_together(config, source)
    return config


def _folder(command: str) -> Path:
    command = ALIASES.get(command, command)
    return PRESETS / FOLDERS.get(command, command)


# --------------------------------------------------------------------------- reading with Hydra
def _check_size(directory: Path) -> None:
    """ValueError if a YAML file of the folder has too many values once its aliases are replaced by what they name.

    OmegaConf copies the values of every alias: aliases of aliases would take all memory and hours.
    """
    import yaml

    for path in sorted(directory.rglob("*.yaml")):
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if node is not None and _expanded_size(node, {}) > MAX_VALUES:
            raise ValueError(f"the aliases in {path} expand to more than {MAX_VALUES} values; write fewer aliases")


def _expanded_size(node: Any, known: dict[int, float]) -> float:
    """Number of values of a YAML node with its aliases replaced; infinite if it contains itself."""
    if id(node) not in known:
        known[id(node)] = math.inf  # as long as it is being counted
        children = node.value if isinstance(node.value, list) else []
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_expanded_size(part, known) for part in parts)
    return known[id(node)]


@dataclass(frozen=True)
class _Change:
    """A parsed override; `text` is the override as it was given."""

    text: str
    key: str
    value: Any
    delete: bool


def _values(
    directory: Path, name: str, package: Path, changes: Sequence[_Change], schema: type, source: str
) -> dict[Any, Any]:
    """The preset's values with the changes, over the schema's defaults, interpolations resolved.

    Hydra itself applies only the choices of config groups. The other changes are applied here, so that a wrong key or
    value gets a clear message.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    groups = [c for c in changes if c.key and any((folder / c.key).is_dir() for folder in (directory, package))]
    # the package's presets can be the parents of a user's preset
    search_path = f"hydra.searchpath=[{_quoted(f'file://{package}')}]"
    with initialize_config_dir(config_dir=str(directory.resolve()), version_base="1.3"):
        preset = hydra_compose(config_name=name, overrides=[search_path, *(change.text for change in groups)])
    OmegaConf.set_struct(preset, False)
    for change in changes:
        if change not in groups:
            _apply(change, preset, schema, source)
    # merged into the schema's defaults, so that ${seed} has a value where the preset does not set it
    merged = OmegaConf.merge(OmegaConf.create(to_dict(schema())), preset)
    for key in leaf_types(schema):
        group, _, leaf = key.rpartition(".")
        node = OmegaConf.select(preset, group) if group else preset
        if OmegaConf.is_dict(node) and OmegaConf.is_missing(node, leaf):  # merge keeps the default for ???
            OmegaConf.update(merged, key, REQUIRED)
    values = OmegaConf.to_container(merged, resolve=True)
    assert isinstance(values, dict)
    return values


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


# --------------------------------------------------------------------------- overrides
def _parsed(text: str, schema: type) -> _Change:
    """An override in Hydra's grammar; text values such as paths are taken literally unless they are quoted."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, raw = text.lstrip("+").partition("=")
    kind = leaf_types(schema).get(key)
    grammar = "'\"[" if kind == str | list[str] | None else "'\""  # first characters of text in Hydra's grammar
    text_kinds = (str, str | None, str | list[str] | None)
    if equals and kind in text_kinds and raw not in ("", "null") and raw[0] not in grammar:
        return _Change(text, key, raw, delete=False)
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(f"'{text}' is not of the form key=value, such as optimizer.betas=[0.9,0.98]") from error
    if override.is_sweep_override():
        raise ConfigError(f"'{text}' gives several values; give one (a list is written [1,2])")
    return _Change(text, override.key_or_group, override.value(), override.is_delete())


def _apply(change: _Change, preset: Any, schema: type, source: str) -> None:
    """Set or delete one key of the composed preset, after checking it against the schema."""
    from omegaconf import OmegaConf

    key = _find(change.key, schema, source)
    if change.delete:
        parent_key, _, leaf = change.key.rpartition(".")
        parent = OmegaConf.select(preset, parent_key) if parent_key else preset
        if parent is not None:
            parent.pop(leaf, None)
        return
    if key.group:
        if not isinstance(change.value, dict):
            known = ", ".join(keys(key.group, f"{change.key}."))
            raise ConfigError(f"{source}: {change.text} cannot be set as a whole; set one of its keys: {known}")
        from_dict(key.group, change.value, source, f"{change.key}.")
    elif not (isinstance(change.value, str) and "${" in change.value):
        checked_value(key.type, key.rule, change.value, f"{source}: {change.key}")
    OmegaConf.update(preset, change.key, change.value, force_add=True)


def _find(dotted: str, schema: type, source: str) -> Key:
    """The key of a dotted name; ConfigError lists the keys of the group in which a part of it is unknown."""
    group: type | None = schema
    parts = dotted.split(".")
    key: Key | None = None
    for position, part in enumerate(parts):
        if group is None:  # below a value: report the whole name
            raise ConfigError(unknown_key_message(schema, "", dotted, source))
        key = next((key for key in schema_keys(group) if key.name == part), None)
        if key is None:
            prefix = ".".join([*parts[:position], ""])
            raise ConfigError(unknown_key_message(group, prefix, ".".join(parts[position:]), source))
        group = key.group
    assert key is not None
    return key
