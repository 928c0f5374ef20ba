"""Mouths that are followed live have the crops of offline reading, within a pixel, after their look-ahead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avhubert.data.video import read_frames, write_video
from avhubert.live import mouths
from avhubert.live.mouths import MouthTracker
from avhubert.prepare.detectors.selection import default_model
from avhubert.prepare.geometry import window_corners
from avhubert.prepare.mouth import mouth_clip


@pytest.fixture(scope="module")
def moving(images: np.ndarray) -> np.ndarray:
    """The clip with a camera that moves by two pixels per frame and stops."""
    count, height, width, _ = images.shape
    canvas = np.full((count, height, width + 80, 3), 128, np.uint8)
    for k, image in enumerate(images):
        left = min(2 * k, 80)
        canvas[k, :, left : left + width] = image
    return canvas


def tracked(frames: np.ndarray) -> tuple[MouthTracker, int]:
    """A tracker that has seen all frames, and how many crops were made again."""
    tracker = MouthTracker(default_model())
    revised = 0
    for frame in frames:
        tracker.push(frame)
        for person in tracker.people:
            revised += person.revised is not None
            person.revised = None
    tracker.flush()
    return tracker, revised


def test_crops_are_those_of_offline_reading(images: np.ndarray, sample: Path) -> None:
    tracker, revised = tracked(images)
    (person,) = tracker.people
    offline = mouth_clip(sample).frames
    live = person.mouths[0 : len(offline)]
    assert live.shape == offline.shape
    difference = np.abs(live.astype(int) - offline).mean((1, 2))
    assert np.median(difference) < 3
    assert person.detected[0 : len(offline)].all()
    assert revised < len(offline)


@pytest.mark.slow
def test_a_face_that_moves_is_cut_out_again_within_a_pixel(moving: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "moving.mp4"
    write_video(path, list(moving), crf=1)
    frames = np.stack(list(read_frames(path)))
    offline = mouth_clip(path)
    worst = []
    kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    tracker = MouthTracker(default_model())
    for k, frame in enumerate(frames):
        tracker.push(frame)
        kept |= tracker.people[0].placed if tracker.people else {}
        exact = k - mouths.SMOOTHING + 1
        if exact >= 0 and exact in kept:
            transform, centre = offline.track.transforms[exact], offline.track.centres[exact]
            shown = tracker.people[0].mouths[exact : exact + 1][0].astype(int)
            same = np.abs(shown - offline.frames[exact]).mean()
            beside = mouths._distance(kept[exact], (transform, centre))
            worst.append((beside, same))
    assert max(beside for beside, _ in worst) > 1  # with little look-ahead the crop is beside …
    again = [same for beside, same in worst if beside > mouths.TOLERANCE + 0.5]
    assert again
    assert max(again) < 1  # … and is made again as offline
    assert np.isfinite(window_corners(offline.track.transforms, offline.track.centres)).all()


def test_two_people_keep_their_numbers(images: np.ndarray) -> None:
    pair = np.concatenate([images, images[:, :, ::-1]], 2)
    tracker, _ = tracked(pair[:40])
    assert [person.number for person in tracker.people] == [1, 2]
    assert all(person.detected[10:38].all() for person in tracker.people)


def test_missing_frames_are_not_detected(images: np.ndarray) -> None:
    tracker = MouthTracker(default_model())
    for k in range(60):
        tracker.push(images[k % len(images)] if not 20 <= k < 45 else None)
    (person,) = tracker.people[:1]
    assert person.detected[5:18].all()
    assert not person.detected[34:44].any()
