"""How players show the frames of a video: rotated, mirrored, with square pixels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

SQUARE = Fraction(1)
SMALLEST_RATIO, LARGEST_RATIO = Fraction(1, 8), Fraction(8)  # sample aspect ratios beyond these are errors of the file
MIN_STRETCH = Fraction(1, 100)  # a smaller deviation from square pixels is not corrected


@dataclass(frozen=True)
class Orientation:
    """The symmetry that takes a frame as stored to a frame as shown: first `transpose`, then the mirrors.

    Attributes:
        transpose: Exchange rows and columns.
        mirror_x: Mirror left and right.
        mirror_y: Mirror top and bottom.
    """

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Orientation:
        """The orientation by the frame's display matrix, to the nearest quarter turn."""
        data: Any = frame.side_data.get("DISPLAYMATRIX")
        content = b"" if data is None else bytes(data)
        if len(content) != 36:
            return cls()
        # x' = a·x + c·y and y' = b·x + d·y, with y downwards
        a, b, _, c, d = (int(value) for value in np.frombuffer(content, "=i4")[:5])
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, c < 0, b < 0)
        return cls(False, a < 0, d < 0)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The image [H, W, ...] as shown; a contiguous copy unless nothing changes."""
        if self == Orientation():
            return image
        if self.transpose:
            image = image.swapaxes(0, 1)
        image = image[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]
        return np.ascontiguousarray(image)


def stretched_width(width: int, ratio: Fraction | None) -> int:
    """Width in pixels at which a frame of `width` pixels with this sample aspect ratio has square pixels."""
    if not ratio or abs(ratio - SQUARE) < MIN_STRETCH or not SMALLEST_RATIO <= ratio <= LARGEST_RATIO:
        return width
    return max(1, round(width * ratio))


def display_size(frame: av.VideoFrame, ratio: Fraction | None) -> tuple[int, int]:
    """Width and height at which players show a frame with this sample aspect ratio."""
    width, height = stretched_width(frame.width, ratio), frame.height
    return (height, width) if Orientation.of(frame).transpose else (width, height)
