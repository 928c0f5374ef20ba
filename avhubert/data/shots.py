"""Detects cuts between shots: most of a frame changes at once, by much more than between the frames just before."""

from __future__ import annotations

import numpy as np

from avhubert.constants import FRAME_RATE

THUMBNAIL = 32  # pixels; width and height of the frames in which cuts are detected
SHOT_CHANGE = 12.0  # mean change in gray levels between two frames that can be a cut …
SHOT_RATIO = 4.0  # … if it also exceeds the usual change by this factor …
SHOT_CORRELATION = 0.92  # … and the frames are less alike than this: in a flash or a fade only the brightness changes


class ShotDetector:
    """Compares each frame of a video with the one before.

    Measured on GRID: 1 − correlation is at most 0.002 within a clip, and at least 0.14 between two speakers before the
    same background; the mean change is at most 1.1, and at least 18.
    """

    def __init__(self) -> None:
        self._previous: np.ndarray | None = None
        self._usual_change = 0.0

    def is_cut(self, thumbnail: np.ndarray) -> bool:
        """Whether a new shot begins with this frame, gray [THUMBNAIL, THUMBNAIL]; never with the first one."""
        current = thumbnail.astype(np.float32)
        previous, self._previous = self._previous, current
        if previous is None:
            return False
        change = float(np.abs(current - previous).mean())
        if (
            change > SHOT_CHANGE + SHOT_RATIO * self._usual_change
            and _correlation(current, previous) < SHOT_CORRELATION
        ):
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


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / spread if spread else 0.0
