"""A description of every configuration key, for the documentation."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from avhubert.config.fields import REQUIRED, schema_keys
from avhubert.config.schema import SCHEMAS
from avhubert.errors import ConfigError, one_of


@dataclass(frozen=True)
class KeyDescription:
    """A configuration key as the documentation shows it; all texts are plain, without markup."""

    key: str  # dotted, such as "optimizer.lr"
    type: str  # such as "int" or "str or list of str or null"
    default: str  # as YAML writes it; "required" if a value must be given
    allowed: str  # such as "between 0 and 1"; "" if every value of the type is allowed
    unit: str
    help: str


@dataclass(frozen=True)
class GroupDescription:
    """A group of keys: its dotted prefix without the last dot ("" for the top) and the keys directly in it."""

    prefix: str
    help: str
    keys: tuple[KeyDescription, ...]


def describe(command: str) -> list[GroupDescription]:
    """Every key of a command's schema, by group, in the order of the schema.

    Args:
        command: A command of `avhubert.config.schema.SCHEMAS`: pretrain, finetune, iterate or decode.

    Raises:
        ConfigError: There is no such command.
    """
    if command not in SCHEMAS:
        raise ConfigError(one_of("command", command, SCHEMAS))
    schema = SCHEMAS[command]
    return list(_groups(schema, schema(), ""))


def _groups(schema: type, defaults: Any, prefix: str) -> Iterator[GroupDescription]:
    """The group at `prefix`, then those below it."""
    descriptions, below = [], []
    for key in schema_keys(schema):
        name = f"{prefix}.{key.name}" if prefix else key.name
        value = getattr(defaults, key.name)
        if key.group:
            below.append((key.group, value, name))
            continue
        assert key.rule is not None, f"{schema.__name__}.{key.name} has no rule"
        rule = key.rule
        descriptions.append(
            KeyDescription(name, _type_text(key.type), _value_text(value), rule.allowed(), rule.unit, rule.help)
        )
    yield GroupDescription(prefix, (schema.__doc__ or "").strip(), tuple(descriptions))
    for group, value, name in below:
        yield from _groups(group, value, name)


def _type_text(kind: Any) -> str:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join("null" if option is type(None) else _type_text(option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        return f"list of {_type_text(typing.get_args(kind)[0])}"
    name: str = kind.__name__
    return name


def _value_text(value: Any) -> str:
    if value == REQUIRED:
        return "required"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_value_text, value))}]"
    return str(value)
