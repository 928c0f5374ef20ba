"""Checks of configuration values: types, ranges, and values that must fit each other; dataclasses from and to dicts."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any

from avhubert.config.fields import REQUIRED, Rule, schema_keys
from avhubert.constants import MODALITIES
from avhubert.errors import ConfigError

_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


# --------------------------------------------------------------------------- keys
def leaf_types(schema: type, prefix: str = "") -> dict[str, Any]:
    """Type of every dotted key of a schema."""
    kinds: dict[str, Any] = {}
    for key in schema_keys(schema):
        if key.group:
            kinds |= leaf_types(key.group, f"{prefix}{key.name}.")
        else:
            kinds[prefix + key.name] = key.type
    return kinds


def keys(schema: type, prefix: str = "") -> list[str]:
    """All dotted keys of a schema."""
    return list(leaf_types(schema, prefix))


def flatten(config: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value) of every value of a configuration dataclass."""
    pairs: list[tuple[str, Any]] = []
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            pairs += flatten(value, f"{prefix}{item.name}.")
        else:
            pairs.append((prefix + item.name, value))
    return pairs


def unknown_key_message(schema: type, prefix: str, name: str, source: str) -> str:
    """The message for key `prefix`+`name`, which is not in the schema at `prefix`: the nearest key and all keys."""
    known = keys(schema, prefix)
    matches = difflib.get_close_matches(prefix + name, known, n=1)
    hint = f" (did you mean '{matches[0]}'?)" if matches else ""
    return f"{source}: unknown key '{prefix}{name}'{hint}; known keys: {', '.join(known)}"


# --------------------------------------------------------------------------- dicts
def from_dict(schema: type, values: Any, source: str, prefix: str = "") -> Any:
    """Build dataclass `schema` from nested dicts; ConfigError names `source` and the wrong key or value."""
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: '{prefix.rstrip('.')}' must hold keys, not '{values}'")
    known = {key.name: key for key in schema_keys(schema)}
    arguments = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(unknown_key_message(schema, prefix, name, source))
        key = known[name]
        if key.group:
            arguments[name] = from_dict(key.group, value, source, f"{prefix}{name}.")
        else:
            arguments[name] = checked_value(key.type, key.rule, value, f"{source}: {prefix}{name}")
    return schema(**arguments)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration dataclass as plain nested dicts and lists."""
    return dataclasses.asdict(config)


def write_yaml(config: Any, path: str | Path) -> None:
    """Write the fully resolved configuration as YAML."""
    from omegaconf import OmegaConf

    from avhubert.files import write_text

    write_text(path, OmegaConf.to_yaml(OmegaConf.create(to_dict(config))))


# --------------------------------------------------------------------------- values
def checked_value(kind: Any, rule: Rule | None, value: Any, name: str) -> Any:
    """`value` converted to the type `kind`; ConfigError if it cannot be, or if it breaks the rule of key `name`."""
    if isinstance(value, str) and value == REQUIRED:
        return value
    converted = _converted(kind, value, name)
    violation = None if rule is None or converted is None else rule.violation(converted)
    if violation is not None:
        raise ConfigError(f"{name}={value} {violation}")
    return converted


def _converted(kind: Any, value: Any, name: str) -> Any:
    """`value` as `kind`: a scalar type, a list of one, or a union with at most one of each, and None."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        options = typing.get_args(kind)
        if value is None and type(None) in options:
            return None
        options = tuple(option for option in options if option is not type(None))
        kind = options[-1] if isinstance(value, list) else options[0]
    if typing.get_origin(kind) is list:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{name}={value} must be a list, such as [1,2]")
        return [_scalar(typing.get_args(kind)[0], item, name) for item in value]
    return _scalar(kind, value, name)


def _scalar(kind: Any, value: Any, name: str) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float and (is_number or isinstance(value, str)):  # YAML reads 1e-3 as text
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    elif kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    elif kind is str and is_number:
        return str(value)
    elif isinstance(value, kind) and (kind is not int or is_number):
        return value
    raise ConfigError(f"{name}={value} must be {_TYPE_NAMES.get(kind, kind)}")


# --------------------------------------------------------------------------- values that must fit each other
def check_together(config: Any, source: str) -> None:
    """ConfigError if values do not fit each other; it names `source` and the values."""
    values = dict(flatten(config))
    for prefix in ("model.", "model.scratch."):
        if f"{prefix}encoder_embed_dim" in values:
            _check_sizes(values, prefix, source)
    if "clusters" in values:
        _check_recipe(values, source)
    if "data.min_frames" in values:
        _check_data(values, source)
    if "optimizer.betas" in values:
        betas = values["optimizer.betas"]
        if len(betas) != 2 or max(betas) >= 1:
            raise ConfigError(f"{source}: optimizer.betas={betas} must be two numbers in 0 ≤ β < 1")


def _check_sizes(values: dict[str, Any], prefix: str, source: str) -> None:
    width = values[f"{prefix}encoder_embed_dim"]
    for key in (f"{prefix}encoder_attention_heads", f"{prefix}conv_pos_groups"):
        if width % values[key] != 0:
            raise ConfigError(f"{source}: {prefix}encoder_embed_dim={width} must be a multiple of {key}={values[key]}")
    blocks = values[f"{prefix}visual_blocks"]
    if len(blocks) != 4:
        raise ConfigError(f"{source}: {prefix}visual_blocks={blocks} must be four numbers")


def _check_recipe(values: dict[str, Any], source: str) -> None:
    presets, clusters, layers = (len(values[key]) for key in ("presets", "clusters", "teacher_layers"))
    if presets < 1 or (clusters, layers) != (presets, presets - 1):
        raise ConfigError(
            f"{source}: {presets} presets, {clusters} clusters and {layers} teacher_layers do not fit: every "
            "iteration has a preset and a number of clusters, and all but the first have a layer of their teacher"
        )


def _check_data(values: dict[str, Any], source: str) -> None:
    shortest, longest = values["data.min_frames"], values["data.max_frames"]
    if shortest > longest:
        raise ConfigError(
            f"{source}: data.min_frames={shortest} is greater than data.max_frames={longest}: no clip would be left"
        )
    snr = values["data.noise_snr"]
    if len(snr) != 2 or snr[0] > snr[1]:
        raise ConfigError(f"{source}: data.noise_snr={snr} must be [lowest,highest], such as [0,0]")
    if sum(values.get(f"data.draw_{name}", 1) for name in MODALITIES) == 0:
        raise ConfigError(f"{source}: data.draw_av, data.draw_a and data.draw_v are all 0: give at least one a weight")


def require(config: Any, prefix: str = "") -> None:
    """ConfigError names every value that must be given and is missing or empty."""
    required = {key for key, value in flatten(type(config)()) if value == REQUIRED}
    missing = [key for key, value in flatten(config) if value == REQUIRED or (key in required and not value)]
    if missing:
        raise ConfigError(f"give a value for {', '.join(f'{prefix}{key}=…' for key in missing)}")
