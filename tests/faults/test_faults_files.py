"""Short form of the part `files`: damaged and hostile files of every kind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults import flipped_bits, fuzzed_files

CASES = int(os.environ.get("AVHUBERT_FAULTS", "20"))  # at another seed than the long form


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the campaign forks")
def test_damaged_files_are_refused_in_one_sentence(folder: Path) -> None:
    case = fuzzed_files.make(folder, seed=100)
    outcomes = [case(number) for number in range(CASES)]
    assert [outcome for outcome in outcomes if outcome.is_fault] == []
    assert any(outcome.verdict == "refused" for outcome in outcomes)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the campaign forks")
def test_damage_of_stored_numbers_is_detected(folder: Path) -> None:
    case = flipped_bits.make(folder, seed=100)
    outcomes = [case(number) for number in range(len(flipped_bits.TARGETS))]
    assert [outcome for outcome in outcomes if outcome.is_fault] == []
    assert any(outcome.verdict == "refused" for outcome in outcomes)
