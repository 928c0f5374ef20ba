"""Tracks of faces through a video."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from avhubert.prepare.detectors.interface import (
    IBUG,
    MIN_OVERLAP,
    REGION,
    Face,
    LandmarkModel,
    Landmarks,
    Layout,
    overlap,
)


def _region_of_face(face: Face) -> np.ndarray:
    """A square around the face, turned by the line of the eyes."""
    centre = (face.box[:2] + face.box[2:]) / 2
    line = face.eyes[1] - face.eyes[0]
    return np.array([*centre, REGION * float((face.box[2:] - face.box[:2]).max()), np.arctan2(line[1], line[0])])


def _region_of_points(points: np.ndarray, layout: Layout) -> np.ndarray:
    """The same from the landmarks of the frame before."""
    line = points[layout.stable[4]] - points[layout.stable[1]]
    angle = float(np.arctan2(line[1], line[0]))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    upright = points @ turn.T
    low, high = upright.min(0), upright.max(0)
    centre = (low + high) / 2 @ turn
    return np.array([*centre, REGION * float((high - low).max()), angle])


# --------------------------------------------------------------------------- tracks
@dataclass
class Track:
    """One face through a video: its landmarks by frame number, and where to look for it next."""

    frames: dict[int, Landmarks] = field(default_factory=dict)
    region: np.ndarray | None = None
    box: np.ndarray = field(default_factory=lambda: np.zeros(4, np.float32))

    @property
    def size(self) -> float:
        """Sum over its frames of the face's width in pixels: long and large tracks win."""
        return sum(float(found.box[2] - found.box[0]) for found in self.frames.values())


def track(pictures: Iterable[np.ndarray], model: LandmarkModel) -> tuple[list[Track], int]:
    """Follow every face through a video; returns the tracks, the speaker's first, and the number of frames.

    Faces are detected every few frames, and in every frame while none is tracked; in between each is followed by its
    own landmarks. The speaker is, for now, the face that is seen longest and largest.
    """
    tracks: list[Track] = []
    followed = model.detect_every > 1
    count = 0
    for count, picture in enumerate(pictures, 1):
        index = count - 1
        active = [one for one in tracks if one.region is not None]
        if not active or index % model.detect_every == 0:
            for face in model.detect(picture):
                same = max(tracks, key=lambda one: overlap(one.box, face.box), default=None)
                if same is None or overlap(same.box, face.box) < MIN_OVERLAP:
                    same = Track()
                    tracks.append(same)
                if same.region is None:
                    same.region, same.box = _region_of_face(face), face.box
                    active.append(same)
        for one in active:
            assert one.region is not None
            points, presence = model.landmarks(picture, one.region)
            if presence <= 0:
                one.region = None
                continue
            one.frames[index] = _landmarks(points, model.layout)
            if followed:
                one.region, one.box = _region_of_points(points, model.layout), one.frames[index].box
            else:
                one.region = None
    tracks = [one for one in tracks if one.frames]
    return sorted(tracks, key=lambda one: -one.size), count


def _landmarks(points: np.ndarray, layout: Layout) -> Landmarks:
    return Landmarks(
        stable=points[list(layout.stable)],
        mouth=points[list(layout.mouth)].mean(0),
        lip_gap=float(np.linalg.norm(points[layout.inner_lips[0]] - points[layout.inner_lips[1]])),
        box=np.concatenate([points.min(0), points.max(0)]),
    )


def stored_track(points: Sequence[np.ndarray | None]) -> Track:
    """Points per frame, as `read_landmarks` gives them, as a track."""
    return Track({index: _landmarks(row, IBUG) for index, row in enumerate(points) if row is not None})
