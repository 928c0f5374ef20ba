"""The damage log: entries of several passes once, neighbours together, plain sentences."""

from __future__ import annotations

import pytest

from avhubert.data.media import Damage, DamageLog

pytestmark = pytest.mark.quick


def test_neighbours_are_one_sentence() -> None:
    log = DamageLog()
    for start in (70.2, 70.22, 70.24, 90.0):
        log.add(Damage("audio", start, 0.02))
    log.add(Damage("video", 70.2, 0.04))
    log.add(Damage("video", 80.0, 2.0, packets=0))
    log.note("another message")
    assert log.sentences() == (
        "another message",
        "3 damaged packets of the audio were skipped at 70.2 s (0.06 s lost)",
        "1 damaged packet of the audio was skipped at 90.0 s (0.02 s lost)",
        "1 damaged packet of the video was skipped at 70.2 s (0.04 s lost)",
        "the video has nothing from 80.0 s to 82.0 s",
    )


def test_equal_entries_are_kept_once() -> None:
    log, other = DamageLog(), DamageLog()
    assert not log
    for each in (log, log, other):
        each.add(Damage("audio", 1.0, 0.02))
        each.note("a message")
    log.merge(other)
    assert len(log.sentences()) == 2
    assert log.damages() == [Damage("audio", 1.0, 0.02)]


def test_many_gaps_are_one_sentence() -> None:
    log = DamageLog()
    for second in range(20):
        log.add(Damage("audio", second + 0.5, 0.06 if second == 7 else 0.04, packets=0))
    log.add(Damage("video", 3.0, 0.04))
    assert log.sentences() == (
        "the audio has 20 gaps of 0.8 s in all, the first at 0.5 s, the longest of 0.06 s",
        "1 damaged packet of the video was skipped at 3.0 s (0.04 s lost)",
    )
