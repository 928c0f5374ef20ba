"""Detects cuts between shots: most of a frame changes at once, by much more than between the frames just before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avhubert.constants import FRAME_RATE

THUMBNAIL = 32  # pixels; width and height of the frames in which cuts are detected
SHOT_CHANGE = 12.0  # mean change in gray levels between two frames that can be a cut …
SHOT_RATIO = 4.0  # … if it also exceeds the usual change by this factor …
SHOT_CORRELATION = 0.92  # … and the frames are less alike than this: in a flash or a fade only the brightness changes
SMALLEST_BOX = 5 / THUMBNAIL  # share of the frame's width and height; part of a frame that is compared


@dataclass
class Shot:
    """A shot of a video.

    Attributes:
        first: Its first frame.
        last: Its last frame so far.
        opening: The first frame in small.
        closing: The last frame so far in small.
    """

    first: int
    last: int
    opening: np.ndarray
    closing: np.ndarray

    def is_continued(self, later: Shot, box: np.ndarray) -> bool:
        """Whether a later shot begins with what the end of this one shows in a box.

        Measured on GRID, around faces: 28 of 28 within a clip, 0 of 632 of two speakers.

        Args:
            later: The other shot.
            box: Left, top, right and bottom as shares of the frame's width and height.
        """
        middle, half = (box[:2] + box[2:]) / 2, np.maximum((box[2:] - box[:2]) / 2, SMALLEST_BOX / 2)
        left, top = np.floor(THUMBNAIL * np.clip(middle - half, 0, 1 - SMALLEST_BOX)).astype(int)
        right, bottom = np.ceil(THUMBNAIL * np.clip(middle + half, SMALLEST_BOX, 1)).astype(int)
        return not _are_different(self.closing[top:bottom, left:right], later.opening[top:bottom, left:right])


class ShotDetector:
    """Compares each frame of a video with the one before.

    Measured on GRID: 1 − correlation is at most 0.002 within a clip, and at least 0.14 between two speakers before the
    same background; the mean change is at most 1.1, and at least 18.

    Attributes:
        frames: Number of frames that `shot_of` has got.
        shots: The shots of these frames by their first frame.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.shots: dict[int, Shot] = {}
        self._previous: np.ndarray | None = None
        self._usual_change = 0.0
        self._shot = 0

    def shot_of(self, thumbnail: np.ndarray) -> int:
        """First frame of the shot that this frame, gray [THUMBNAIL, THUMBNAIL], belongs to.

        A shot that returns within a second, after damaged frames or a flash, goes on.
        """
        index = self.frames
        self.frames += 1
        if self.is_cut(thumbnail):
            returned = [
                shot
                for shot in self.shots.values()
                if shot.first != self._shot
                and index - shot.last <= FRAME_RATE
                and not _are_different(thumbnail, shot.closing)
            ]
            self._shot = max(returned, key=lambda shot: shot.last).first if returned else index
        shot = self.shots.setdefault(self._shot, Shot(self._shot, index, thumbnail, thumbnail))
        shot.last, shot.closing = index, thumbnail
        return self._shot

    def is_cut(self, thumbnail: np.ndarray) -> bool:
        """Whether a new shot begins with this frame, gray [THUMBNAIL, THUMBNAIL]; never with the first one."""
        current = thumbnail.astype(np.float32)
        previous, self._previous = self._previous, current
        if previous is None:
            return False
        change = _change(current, previous)
        if _are_different(current, previous, SHOT_RATIO * self._usual_change):
            return True
        self._usual_change += (change - self._usual_change) / FRAME_RATE
        return False


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """A frame, uint8 [H, W] or RGB [H, W, 3], in small: float32 [THUMBNAIL, THUMBNAIL], of every n-th pixel only."""
    pixels = frame if frame.ndim == 2 else frame[..., 1]
    for axis in (0, 1):
        step = max(1, pixels.shape[axis] // (4 * THUMBNAIL))
        pixels = pixels[::step] if axis == 0 else pixels[:, ::step]
    small = pixels.astype(np.float32)
    for axis in (0, 1):
        starts = np.arange(THUMBNAIL) * small.shape[axis] // THUMBNAIL
        sizes = np.maximum(np.diff(starts, append=small.shape[axis]), 1)
        small = np.add.reduceat(small, starts, axis) / sizes.reshape((-1, 1) if axis == 0 else (1, -1))
    return small


def _are_different(a: np.ndarray, b: np.ndarray, more: float = 0.0) -> bool:
    """Whether two frames are of two shots, if the change between frames of one shot is `more` than little."""
    return _change(a, b) > SHOT_CHANGE + more and _correlation(a, b) < SHOT_CORRELATION


def _change(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / spread if spread else 0.0
