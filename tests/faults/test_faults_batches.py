"""Short form of the part `batches`."""

from __future__ import annotations

from pathlib import Path

from tests.faults import random_batches


def test_results_do_not_depend_on_the_batch(folder: Path) -> None:
    case = random_batches.make(folder, seed=100)
    outcomes = [case(number) for number in (*range(8), random_batches.LOADER_EVERY - 1)]
    assert [outcome for outcome in outcomes if outcome.is_fault] == []


def test_a_difference_is_found(folder: Path) -> None:
    """The comparison itself can fail."""
    models = random_batches.Models(folder / "world")
    key = (0, 13, "av")
    features, encoded, text = models.alone(key)
    assert random_batches._difference(features * 1.001, features) > random_batches.TOLERANCE
    assert random_batches._difference(encoded, encoded) == 0
    assert isinstance(text, str)
