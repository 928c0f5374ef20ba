"""Video corruption: the effect of each kind, repeatability, and invalid names."""

from __future__ import annotations

import numpy as np
import pytest

from avhubert.data.corruption import CORRUPTED_SHARE, corrupt, parse_corruption
from avhubert.errors import ConfigError

pytestmark = pytest.mark.quick

FRAMES = np.random.default_rng(0).integers(0, 256, (50, 96, 96)).astype(np.uint8)


@pytest.mark.parametrize("corruption", ["blur", "freeze", "occlusion", "drop", "offset:5", "offset:-5"])
def test_corruption_is_repeatable_and_does_not_change_its_input(corruption: str) -> None:
    before = FRAMES.copy()
    corrupted = corrupt(FRAMES, parse_corruption(corruption), "a/1")
    assert np.array_equal(corrupted, corrupt(FRAMES, corruption, "a/1"))
    assert np.array_equal(FRAMES, before)
    assert corrupted.shape == FRAMES.shape
    assert corrupted.dtype == np.uint8
    assert not np.array_equal(corrupted, FRAMES)
    assert corrupt(FRAMES[:1], corruption, "a/1").shape == (1, 96, 96)


def test_offset_shifts_the_video() -> None:
    assert np.array_equal(corrupt(FRAMES, "offset:5", "a")[5:], FRAMES[:-5])
    assert np.array_equal(corrupt(FRAMES, "offset:5", "a")[:5], np.repeat(FRAMES[:1], 5, 0))
    assert np.array_equal(corrupt(FRAMES, "offset:-5", "a")[:-5], FRAMES[5:])


def test_freeze_occlusion_and_drop_change_the_expected_share_of_frames() -> None:
    span = round(CORRUPTED_SHARE * 50)
    for corruption in ("freeze", "occlusion"):
        changed = (corrupt(FRAMES, corruption, "a") != FRAMES).any((1, 2))
        assert changed.sum() in (span, span - 1)  # the first frame of a frozen span is not changed
        assert np.diff(np.flatnonzero(changed)).max() == 1
    dropped = [(corrupt(FRAMES, "drop", str(n)) != FRAMES).any((1, 2)).mean() for n in range(20)]
    assert abs(np.mean(dropped) - CORRUPTED_SHARE) < 0.05


def test_blur_keeps_the_mean_and_reduces_the_contrast() -> None:
    blurred = corrupt(FRAMES, "blur", "a")
    assert blurred.std() < 0.2 * FRAMES.std()
    assert abs(blurred.mean() - FRAMES.mean()) < 1


@pytest.mark.parametrize("name", ["blurred", "offset", "offset:0", "offset:x", "offset:99", ""])
def test_invalid_names_are_rejected(name: str) -> None:
    with pytest.raises(ConfigError, match="video corruption"):
        parse_corruption(name)
