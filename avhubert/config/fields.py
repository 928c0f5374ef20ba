"""Fields of the configuration dataclasses: a default, the values that are allowed, and the meaning, in one place."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LARGEST = float(1 << 62)  # of every number: larger ones fit into no integer of PyTorch
REQUIRED = "???"  # OmegaConf's mark of a value that must be given
_METADATA = "rule"  # the entry of a dataclass field's metadata that holds its Rule


@dataclass(frozen=True)
class Rule:
    """What a key means and which values it takes; the bounds hold for every number of a list.

    Args:
        help: The meaning, as sentences.
        unit: The unit of the value, such as "frames".
        choices: The only values allowed (for a list: of its items).
        above: The value must be greater than this number.
        lowest: The value must be at least this number.
        highest: The value must be at most this number.
    """

    help: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    above: float | None = None
    lowest: float | None = None
    highest: float | None = None

    def violation(self, value: Any) -> str | None:
        """How `value`, which has the key's type, breaks the rule, as in "must be at least 0"; None if it does not."""
        items = value if isinstance(value, list) else [value]
        if self.choices and any(item not in self.choices for item in items):
            return f"is not one of: {', '.join(self.choices)}"
        numbers = [item for item in items if isinstance(item, (int, float))]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            return "must be finite"
        if any(abs(number) > LARGEST for number in numbers):
            return f"must not be beyond {LARGEST:g}"
        if any(self._outside(number) for number in numbers):
            return f"must {'each ' * isinstance(value, list)}be {self._bounds()}"
        return None

    def _outside(self, number: float) -> bool:
        return (
            (self.above is not None and number <= self.above)
            or (self.lowest is not None and number < self.lowest)
            or (self.highest is not None and number > self.highest)
        )

    def _bounds(self) -> str:
        if self.lowest is not None and self.highest is not None:
            return f"between {self.lowest:g} and {self.highest:g}"
        parts = [
            f"{words} {bound:g}"
            for words, bound in (
                ("greater than", self.above),
                ("at least", self.lowest),
                ("at most", self.highest),
            )
            if bound is not None
        ]
        return " and ".join(parts)

    def allowed(self) -> str:
        """The allowed values for the reference, such as "one of: concat, add" or "at least 0"; "" if all are."""
        return f"one of: {', '.join(self.choices)}" if self.choices else self._bounds()


@dataclass(frozen=True)
class Key:
    """A key of a schema: its type annotation (resolved), its default and its rule; a group of keys has no rule."""

    name: str
    type: Any
    rule: Rule | None

    @property
    def group(self) -> type | None:
        """The schema of the keys below this one; None if it holds a value."""
        return typing.cast(type, self.type) if dataclasses.is_dataclass(self.type) else None


def schema_keys(schema: type) -> Iterator[Key]:
    """The keys at the top of a schema, in order."""
    hints = typing.get_type_hints(schema)
    for item in dataclasses.fields(schema):
        yield Key(item.name, hints[item.name], item.metadata.get(_METADATA))


# --------------------------------------------------------------------------- definitions
def key(
    default: Any,
    help: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    above: float | None = None,
    lowest: float | None = None,
    highest: float | None = None,
) -> Any:
    """A key with any of the rules of `Rule`."""
    metadata = {_METADATA: Rule(help, unit, choices, above, lowest, highest)}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def required(help: str) -> Any:
    """A text that has no default."""
    return key(REQUIRED, help)


def choice(default: str, choices: tuple[str, ...], help: str) -> Any:
    """One of these texts."""
    return key(default, help, choices=choices)


def share(default: float, help: str) -> Any:
    """A number from 0 to 1: a probability, a weight, a part of a whole."""
    return key(default, help, lowest=0, highest=1)


def variation(what: str) -> Any:
    """The largest relative change, drawn for each clip; 0: none. Above 0.9, nothing would be left of the original."""
    return key(0.0, f"Largest relative change of {what}; 0: none.", lowest=0, highest=0.9)


def positive(default: Any, help: str, unit: str = "") -> Any:
    """A number above 0, or a list of them."""
    return key(default, help, unit=unit, above=0)


def not_negative(default: Any, help: str, unit: str = "") -> Any:
    """A number of at least 0, or a list of them."""
    return key(default, help, unit=unit, lowest=0)


def group(schema: type) -> Any:
    """Keys below a common name, with the defaults of `schema`."""
    return field(default_factory=schema)
