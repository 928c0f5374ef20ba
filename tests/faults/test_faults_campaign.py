"""The campaign itself: its page is that of its figures, it resumes, and a fault is counted."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from avhubert.errors import DataError
from tests.faults import campaign
from tests.faults.isolate import Limits, isolated
from tests.faults.outcome import ACCEPTED, REFUSED, Outcome
from tests.faults.part import Part
from tests.faults.report import page

pytestmark = [pytest.mark.quick, pytest.mark.skipif(not hasattr(os, "fork"), reason="the campaign forks")]

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_that_of_the_figures() -> None:
    assert (DOCS / "reliability.md").read_text(encoding="utf-8") == page(DOCS / "reliability.json")


def test_a_part_resumes_and_counts_its_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = []

    def make(folder: Path, seed: int) -> Callable[[int], Outcome]:
        def case(number: int) -> Outcome:
            if number == 3 and 3 not in ran:
                ran.append(number)
                raise KeyboardInterrupt
            ran.append(number)
            return Outcome(f"case {number}", "crash" if number == 1 else ACCEPTED, seconds=0.1)

        return case

    part = Part("example", "an example", 5, make)
    options = argparse.Namespace(folder=tmp_path, seed=1, only=None, no_report=True)
    with pytest.raises(KeyboardInterrupt):
        campaign.run_part(part, 5, options)
    assert campaign.run_part(part, 5, options) == 1
    assert ran == [0, 1, 2, 3, 3, 4]
    assert "5 cases in 0.0 min: 4 accepted, 1 crash" in capsys.readouterr().out


def refuse(message: str) -> Callable[[], int]:
    def work() -> int:
        raise DataError(message)

    return work


def say(code: int, text: str) -> Callable[[], int]:
    def work() -> int:
        os.write(2, text.encode())
        return code

    return work


CASES: dict[str, tuple[Callable[[], int | None], str]] = {
    "nothing": (lambda: None, ACCEPTED),
    "an error": (refuse("a.tsv is empty; make it again"), REFUSED),
    "a sentence": (say(1, "avhubert: a.tsv is empty\n"), REFUSED),
    "no message": (refuse(""), "message"),
    "no sentence": (say(1, ""), "silent"),
    "a traceback": (lambda: [][1], "traceback"),
    "a traceback that is shown": (say(1, "Traceback (most recent call last)\n"), "traceback"),
    "another exit code": (say(3, "x\n"), "exit code"),
    "a crash": (lambda: os.abort(), "crash"),
    "a silent end": (lambda: os._exit(7), "crash"),
    "a hang": (lambda: time.sleep(60), "hang"),
    "memory": (lambda: time.sleep(bytearray(b"x" * (300 << 20))[0]), "memory"),
    "a program": (lambda: os.system("true") and None, "executed"),
    "a file elsewhere": (lambda: Path("/var/tmp/.faults").write_text("x", encoding="utf-8") and None, "wrote outside"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_judged(name: str, tmp_path: Path) -> None:
    work, verdict = CASES[name]
    outcome = isolated(name, work, tmp_path, Limits(seconds=1.5, memory_mb=200))
    assert outcome.verdict == verdict, outcome.message
    Path("/var/tmp/.faults").unlink(missing_ok=True)


def test_the_repaired_faults_have_their_repair() -> None:
    stored = json.loads((DOCS / "reliability.json").read_text(encoding="utf-8"))
    assert all(row["part"] and row["fault"] and row["repair"] for row in stored["repaired"])
