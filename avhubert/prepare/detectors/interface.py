"""What a face detector and landmark model must provide, and what it returns.

Coordinates are (x, y) in pixels, pixel centres at whole numbers. Frames are RGB uint8 [H, W, 3].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

MIN_OVERLAP = 0.3  # intersection over union of two boxes from which on they are the same face
REGION_SCALE = 1.5  # side of the square in which landmarks are located, in sides of the face's box


@dataclass(frozen=True)
class Layout:
    """Indices of the landmarks that are used, among all points of a landmark model.

    Attributes:
        stable: The points that the published crop is stabilised on: nose base, then the eye corners from left to right.
        mouth: The points of the lips.
        inner_lips: The middle of the upper and of the lower inner lip.
        lower_face: Nose, cheek, chin, cheek, as AVista's crop uses them; empty: the model does not have them.
    """

    stable: tuple[int, ...]
    mouth: tuple[int, ...]
    inner_lips: tuple[int, int]
    lower_face: tuple[int, ...] = ()


IBUG = Layout((33, 36, 39, 42, 45), tuple(range(48, 68)), (62, 66))  # the 68 points of dlib and others


@dataclass(frozen=True)
class Face:
    """A detected face.

    Attributes:
        box: (left, top, right, bottom).
        eyes: Two points (x, y), the left eye in the frame first.
        score: Confidence, 0…1.
    """

    box: np.ndarray
    eyes: np.ndarray
    score: float


@dataclass(frozen=True)
class Landmarks:
    """The landmarks of a face in one frame, small enough to be kept for hours of video.

    Attributes:
        stable: float32 [5, 2], nose base and eye corners.
        mouth: float32 [2], mean of the lip points.
        lip_gap: Pixels between the inner lips.
        box: float32 [4], around all points.
        lower_face: float32 [4], around the points of the crop from nose to chin; None: the model does not have them.
    """

    stable: np.ndarray
    mouth: np.ndarray
    lip_gap: float
    box: np.ndarray
    lower_face: np.ndarray | None = None

    @classmethod
    def from_points(cls, points: np.ndarray, layout: Layout) -> Landmarks:
        """Select from all points [N, 2] of a model."""
        return cls(
            stable=points[list(layout.stable)],
            mouth=points[list(layout.mouth)].mean(0),
            lip_gap=float(np.linalg.norm(points[layout.inner_lips[0]] - points[layout.inner_lips[1]])),
            box=_around(points),
            lower_face=_around(points[list(layout.lower_face)]) if layout.lower_face else None,
        )


def _around(points: np.ndarray) -> np.ndarray:
    """The box (left, top, right, bottom) of points [N, 2]."""
    box: np.ndarray = np.concatenate([points.min(0), points.max(0)])
    return box


class LandmarkModel(Protocol):
    """A face detector with a landmark model, as `avhubert.prepare.tracking` uses it.

    Attributes:
        layout: Layout of the landmarks.
        detect_every: Frames between detections while a face is tracked; 1: detect in every frame, track none.
    """

    layout: Layout
    detect_every: int

    def detect(self, frame: np.ndarray) -> list[Face]:
        """All faces in a frame, best first."""
        ...

    def landmarks(self, frame: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, float]:
        """Locate landmarks in a square region (centre x, centre y, side, angle).

        Returns:
            Points float32 [N, 2], and a score that is positive if there is a face.
        """
        ...


@runtime_checkable
class SearchingModel(Protocol):
    """What a detector can provide in addition: attempts at faces that `detect` misses."""

    def search(self, frame: np.ndarray, near: Sequence[np.ndarray]) -> Iterator[list[Face]]:
        """Faces by one attempt after the other; `near` are boxes where faces were last. The caller checks them."""
        ...


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - shared + 1e-9)


def region_of_face(face: Face) -> np.ndarray:
    """The square (centre x, centre y, side, angle) around a face, rotated by the line through the eyes."""
    centre = (face.box[:2] + face.box[2:]) / 2
    line = face.eyes[1] - face.eyes[0]
    return np.array([*centre, REGION_SCALE * float((face.box[2:] - face.box[:2]).max()), np.arctan2(line[1], line[0])])
