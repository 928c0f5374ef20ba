"""The frames of short videos are decoded once, those of long ones in each pass; both passes give the same frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avhubert.data.media import DamageLog, MediaPart
from avhubert.data.video import read_frames, write_video
from avhubert.prepare import frame_passes
from avhubert.prepare.frame_passes import FramePasses


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "noise.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), np.uint8))
    return path


@pytest.mark.parametrize("most", [6 * 32 * 48 * 3, 6 * 32 * 48 * 3 - 1])
def test_every_pass_gives_the_same_frames(video: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_passes, "MAX_KEPT_BYTES", most)
    read = []
    monkeypatch.setattr(
        frame_passes, "read_frames_part", lambda part: read.append(part.damage) or read_frames(part.path)
    )
    damage = DamageLog()
    frames = FramePasses(MediaPart(video, damage=damage))
    next(iter(frames))  # a pass that is not finished
    expected = np.stack(list(read_frames(video)))
    for _ in range(3):
        assert np.array_equal(np.stack(list(frames)), expected)
    assert read[0] is damage
    assert read[1:] == [None] * (1 if most % 2 == 0 else 3)  # damage is recorded in the first pass only
