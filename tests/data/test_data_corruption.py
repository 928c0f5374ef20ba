"""Faults of the picture: what each does, that it repeats, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from avhubert.data.corruption import SHARE, parse_fault, with_fault
from avhubert.errors import ConfigError

pytestmark = pytest.mark.quick

FRAMES = np.random.default_rng(0).integers(0, 256, (50, 96, 96)).astype(np.uint8)


@pytest.mark.parametrize("fault", ["blur", "freeze", "occlusion", "drop", "offset:5", "offset:-5"])
def test_a_fault_repeats_and_leaves_its_input(fault: str) -> None:
    before = FRAMES.copy()
    once = with_fault(FRAMES, parse_fault(fault), "a/1")
    assert np.array_equal(once, with_fault(FRAMES, fault, "a/1"))
    assert np.array_equal(FRAMES, before)
    assert once.shape == FRAMES.shape
    assert once.dtype == np.uint8
    assert not np.array_equal(once, FRAMES)
    assert with_fault(FRAMES[:1], fault, "a/1").shape == (1, 96, 96)


def test_offsets_move_the_picture() -> None:
    assert np.array_equal(with_fault(FRAMES, "offset:5", "a")[5:], FRAMES[:-5])
    assert np.array_equal(with_fault(FRAMES, "offset:5", "a")[:5], np.repeat(FRAMES[:1], 5, 0))
    assert np.array_equal(with_fault(FRAMES, "offset:-5", "a")[:-5], FRAMES[5:])


def test_stretches_and_drops_are_as_long_as_they_say() -> None:
    for fault in ("freeze", "occlusion"):
        changed = (with_fault(FRAMES, fault, "a") != FRAMES).any((1, 2))
        assert changed.sum() in (round(SHARE * 50), round(SHARE * 50) - 1)  # a frozen stretch keeps its first frame
        assert np.diff(np.flatnonzero(changed)).max() == 1
    dropped = [(with_fault(FRAMES, "drop", str(n)) != FRAMES).any((1, 2)).mean() for n in range(20)]
    assert abs(np.mean(dropped) - SHARE) < 0.05
    blurred = with_fault(FRAMES, "blur", "a")
    assert blurred.std() < 0.2 * FRAMES.std()
    assert abs(blurred.mean() - FRAMES.mean()) < 1


@pytest.mark.parametrize("wrong", ["blurred", "offset", "offset:0", "offset:x", "offset:99", ""])
def test_what_is_no_fault(wrong: str) -> None:
    with pytest.raises(ConfigError, match="fault"):
        parse_fault(wrong)
