"""What a face detector and landmark model must provide, and what it returns.

Coordinates are (x, y) in pixels, pixel centres at whole numbers. Frames are RGB uint8 [H, W, 3].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

MIN_OVERLAP = 0.3  # of two boxes (intersection over union) to be the same face

REGION = 1.5  # side of the square in which landmarks are looked for, in sides of the face's box


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - shared + 1e-9)


@dataclass(frozen=True)
class Layout:
    """Where a model's points lie on a face, as the numbers of those that are used.

    stable: those that the published crop is stabilised on: nose base, then the eyes' corners from left to right.
    """

    stable: tuple[int, ...]
    mouth: tuple[int, ...]
    inner_lips: tuple[int, int]


IBUG = Layout((33, 36, 39, 42, 45), tuple(range(48, 68)), (62, 66))

MESH = Layout(
    (2, 33, 133, 362, 263), (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178),
    (13, 14),
)  # fmt: skip


@dataclass(frozen=True)
class Face:
    """A detected face: box (left, top, right, bottom), eyes (2 × (x, y), the picture's left one first), score 0…1."""

    box: np.ndarray
    eyes: np.ndarray
    score: float


@dataclass(frozen=True)
class Landmarks:
    """A face's landmarks in one frame, small enough to keep for hours of video.

    stable float32 [5, 2]: nose base and eye corners; mouth float32 [2]: mean of the lips; lip_gap: pixels between the
    inner lips; box float32 [4]: around all landmarks.
    """

    stable: np.ndarray
    mouth: np.ndarray
    lip_gap: float
    box: np.ndarray


class LandmarkModel(Protocol):
    """What `track` needs: detect faces in a picture, and place landmarks inside a region.

    layout: of the landmarks; detect_every: frames between detections while a face is followed; 1: none is followed.
    """

    layout: Layout
    detect_every: int

    def detect(self, picture: np.ndarray) -> list[Face]: ...

    def landmarks(self, picture: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, float]: ...
