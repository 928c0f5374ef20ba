"""Where the head is in a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avhubert.corpora.synthetic.look import CENTRE
from avhubert.corpora.synthetic.painting import SIZE

PIVOT_Y = 130.0  # the head turns about the point (CENTRE, PIVOT_Y)

MARGIN = 10  # how far the head may move, in pixels


@dataclass(frozen=True)
class Pose:
    """Where the head is in one frame: the pivot's pixel, angle, scale; windows start at column `left`."""

    x: float
    y: float
    angle: float
    scale: float
    left: int

    def canonical(self, px: np.ndarray, py: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Canonical coordinates of pixels."""
        cos, sin = np.float32(np.cos(self.angle) / self.scale), np.float32(np.sin(self.angle) / self.scale)
        dx, dy = px - np.float32(self.x), py - np.float32(self.y)
        return cos * dx + sin * dy + np.float32(CENTRE), cos * dy - sin * dx + np.float32(PIVOT_Y)

    def window(self, x: float, y: float, rx: int, ry: int) -> tuple[slice, slice]:
        """Rows and columns within about (rx, ry) pixels of a canonical point."""
        cos, sin = self.scale * np.cos(self.angle), self.scale * np.sin(self.angle)
        dx, dy = x - CENTRE, y - PIVOT_Y
        column = round(cos * dx - sin * dy + self.x) - self.left
        row = round(sin * dx + cos * dy + self.y)
        return slice(row - ry, min(row + ry, SIZE)), slice(column - rx, column + rx)
