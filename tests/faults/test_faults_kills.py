"""Short forms of the parts `kills` and `system`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import killed_commands, scarce_system
from tests.faults.killed_commands import COMMANDS
from tests.faults.preload import AVAILABLE

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="needs Linux and a C compiler")


def number_of(name: str) -> int:
    return next(number for number, command in enumerate(COMMANDS) if command.name == name)


@pytest.mark.parametrize(
    "name",
    ["lm", *(pytest.param(command.name, marks=pytest.mark.slow) for command in COMMANDS if command.name != "lm")],
)
def test_a_killed_command_gives_the_same_bytes(folder: Path, name: str) -> None:
    outcome = killed_commands.make(folder, seed=100)(number_of(name))
    assert not outcome.is_fault, outcome


@pytest.mark.slow
@pytest.mark.parametrize("fault", range(len(scarce_system.FAULTS)))
def test_a_scarce_system_gets_one_sentence_and_the_same_bytes(folder: Path, fault: int) -> None:
    number = fault * len(COMMANDS) + number_of("shards")
    outcome = scarce_system.make(folder, seed=100)(number)
    assert not outcome.is_fault, outcome
