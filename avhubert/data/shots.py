"""Detects cuts between shots: most of a frame changes at once, by much more than between the frames just before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avhubert.constants import FRAME_RATE

THUMBNAIL = 32  # pixels; width and height of the frames in which cuts are detected
SHOT_CHANGE = 12.0  # mean change in gray levels between two frames that can be a cut …
SHOT_RATIO = 4.0  # … if it also exceeds the usual change by this factor …
SHOT_CORRELATION = 0.92  # … and the frames are less alike than this: in a flash or a fade only the brightness changes


@dataclass(frozen=True)
class _Shot:
    """A shot that has ended: its first and last frame, and the last frame in small."""

    first: int
    last: int
    thumbnail: np.ndarray


class ShotDetector:
    """Compares each frame of a video with the one before.

    Measured on GRID: 1 − correlation is at most 0.002 within a clip, and at least 0.14 between two speakers before the
    same background; the mean change is at most 1.1, and at least 18.
    """

    def __init__(self) -> None:
        self._previous: np.ndarray | None = None
        self._usual_change = 0.0
        self._frames = 0
        self._shot = 0
        self._left: list[_Shot] = []  # in the last second

    def shot_of(self, thumbnail: np.ndarray) -> int:
        """First frame of the shot that this frame, gray [THUMBNAIL, THUMBNAIL], belongs to.

        A shot that returns within a second, after damaged frames or a flash, goes on.
        """
        index, previous = self._frames, self._previous
        self._frames += 1
        if self.is_cut(thumbnail) and previous is not None:
            self._left = [shot for shot in self._left if index - shot.last <= FRAME_RATE]
            returned = [shot for shot in self._left if not _are_different(thumbnail, shot.thumbnail)]
            self._left.append(_Shot(self._shot, index - 1, previous))
            self._shot = returned[-1].first if returned else index
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
