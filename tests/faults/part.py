"""What a part of the campaign is."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.outcome import Outcome

Case = Callable[[int], Outcome]  # a case by its number; the same number and seed give the same case


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: For `make torture PART=name`.
        title: What is done, with what must hold, for the report.
        cases: How many the long form runs.
        make: Prepares the part's inputs in a folder and returns its cases for a seed.
    """

    name: str
    title: str
    cases: int
    make: Callable[[Path, int], Case]


def random_of(seed: int, name: str, number: int) -> random.Random:
    """The random generator of one case."""
    return random.Random(f"{seed} {name} {number}")
