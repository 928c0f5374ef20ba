"""Head motion: where the head is in each frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.corpora.synthetic.look import CENTRE
from avhubert.corpora.synthetic.painting import SIZE

PIVOT_Y = 130.0  # the head rotates around the point (CENTRE, PIVOT_Y)
MARGIN = 10  # pixels by which the head can move


@dataclass(frozen=True)
class HeadMotion:
    """Slow head motion in each frame, arrays [T].

    Attributes:
        shift_x: Pixels.
        shift_y: Pixels.
        angle: Radians.
        scale: Size relative to the canonical plane.
        light: Flicker of the light, about 1.
    """

    shift_x: np.ndarray
    shift_y: np.ndarray
    angle: np.ndarray
    scale: np.ndarray
    light: np.ndarray


def head_motion(rng: np.random.Generator, total: int) -> HeadMotion:
    """Draw the head motion of `total` frames."""
    time = np.arange(total) / FRAME_RATE

    def sway(size: float, offset: float) -> np.ndarray:
        waves = np.zeros(total)
        for weight in (0.65, 0.35):
            waves += weight * np.sin(2 * np.pi * (time * rng.uniform(0.15, 0.7) + rng.random()))
        return offset + size * waves

    return HeadMotion(
        shift_x=sway(2.0, rng.uniform(-5, 5)),
        shift_y=sway(1.6, rng.uniform(-4, 4)),
        angle=sway(0.018, rng.normal(0, 0.025)),
        scale=sway(0.008, rng.uniform(0.94, 1.03)),
        light=1 + 0.006 * rng.standard_normal(total),
    )


@dataclass(frozen=True)
class Pose:
    """Where the head is in one frame.

    Attributes:
        x: Column of the pivot, pixels.
        y: Row of the pivot, pixels.
        angle: Radians.
        scale: Size relative to the canonical plane.
        left: First column of the part of the frame that windows are taken from.
    """

    x: float
    y: float
    angle: float
    scale: float
    left: int

    @classmethod
    def at(cls, motion: HeadMotion, frame: int, left: int) -> Pose:
        """The pose in one frame."""
        return cls(
            CENTRE + float(motion.shift_x[frame]),
            PIVOT_Y + float(motion.shift_y[frame]),
            float(motion.angle[frame]),
            float(motion.scale[frame]),
            left,
        )

    def canonical(self, column: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Canonical coordinates (x, y) of pixels."""
        cos, sin = np.float32(np.cos(self.angle) / self.scale), np.float32(np.sin(self.angle) / self.scale)
        dx, dy = column - np.float32(self.x), row - np.float32(self.y)
        return cos * dx + sin * dy + np.float32(CENTRE), cos * dy - sin * dx + np.float32(PIVOT_Y)

    def window(self, x: float, y: float, radius_x: int, radius_y: int) -> tuple[slice, slice]:
        """Rows and columns within about (radius_x, radius_y) pixels of a canonical point."""
        cos, sin = self.scale * np.cos(self.angle), self.scale * np.sin(self.angle)
        dx, dy = x - CENTRE, y - PIVOT_Y
        column = round(cos * dx - sin * dy + self.x) - self.left
        row = round(sin * dx + cos * dy + self.y)
        rows = slice(row - radius_y, min(row + radius_y, SIZE))
        return rows, slice(column - radius_x, column + radius_x)
