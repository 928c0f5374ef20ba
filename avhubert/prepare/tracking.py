"""Tracks faces through a video: detection every few frames, landmarks in every frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from avhubert.data.shots import ShotDetector, thumbnail
from avhubert.prepare.detectors.interface import (
    MIN_OVERLAP,
    REGION_SCALE,
    Face,
    LandmarkModel,
    Landmarks,
    Layout,
    SearchingModel,
    overlap,
    region_of_face,
)

SEARCH_EVERY = 25  # frames between searches for faces that are hard to detect, while no face is found


@dataclass
class Track:
    """One face through a video.

    Attributes:
        frames: Landmarks by frame number.
        region: Where to locate the landmarks in the next frame; None while the face is not tracked.
        box: Where the face was last.
        shot: First frame of the shot that the face is in; a face is not followed beyond a cut.
    """

    frames: dict[int, Landmarks] = field(default_factory=dict)
    region: np.ndarray | None = None
    box: np.ndarray = field(default_factory=lambda: np.zeros(4, np.float32))
    shot: int = 0

    @property
    def size(self) -> float:
        """Sum of the face's width in pixels over its frames: greatest for long and large tracks."""
        return sum(float(landmarks.box[2] - landmarks.box[0]) for landmarks in self.frames.values())


def track_faces(
    frames: Iterable[np.ndarray], model: LandmarkModel, shots: ShotDetector | None = None
) -> tuple[list[Track], int]:
    """Track every face through a video.

    Faces are detected every few frames, and in every frame while none is tracked. Between detections, the landmarks
    of a frame give the region of the next one. At a cut, all tracks end; those of a shot that returns within a second
    go on.

    Args:
        frames: RGB uint8 [H, W, 3].
        model: The face detector.
        shots: Has seen the frames before these ones; the frame numbers of shots are its own.

    Returns:
        The tracks, longest and largest first, and the number of frames.
    """
    tracker = FaceTracker(model, shots)
    for frame in frames:
        tracker.update(frame)
    tracks = [track for track in tracker.ended + tracker.tracks if track.frames]
    return sorted(tracks, key=lambda track: -track.size), tracker.count


class FaceTracker:
    """Tracks the faces of a video frame by frame; see `track_faces`.

    Attributes:
        tracks: The tracks of this shot.
        ended: The tracks of earlier shots.
        count: Number of frames so far.
        shot: First frame of this shot, as the shot detector counts.
    """

    def __init__(self, model: LandmarkModel, shots: ShotDetector | None = None) -> None:
        self.tracks: list[Track] = []
        self.ended: list[Track] = []
        self.count = 0
        self._model = model
        self._shots = ShotDetector() if shots is None else shots
        self.shot = self._shots.frames
        self._next_search = 0

    def update(self, frame: np.ndarray) -> None:
        """Follow the faces into the next frame, RGB uint8 [H, W, 3]."""
        model, index = self._model, self.count
        self.count += 1
        if (current := self._shots.shot_of(thumbnail(frame))) != self.shot:
            self.ended, self.tracks = _tracks_of_shot(self.ended + self.tracks, current)
            self._next_search, self.shot = index, current
        active = [track for track in self.tracks if track.region is not None]
        if not active or index % model.detect_every == 0:
            active += _assign(model.detect(frame), self.tracks, self.shot)
        for track in active:
            _update(track, frame, index, model)
        if (
            index >= self._next_search
            and not any(index in track.frames for track in active)
            and not _search(frame, index, model, self.tracks, self.shot)
        ):
            self._next_search = index + SEARCH_EVERY

    def skip(self) -> None:
        """Pass over a frame that is missing or not read."""
        self.count += 1

    def forget(self, before: int) -> None:
        """Forget the landmarks of the frames before a frame, and the tracks that have none after it."""
        for track in self.ended + self.tracks:
            for index in [index for index in track.frames if index < before]:
                del track.frames[index]
        self.ended = [track for track in self.ended if track.frames]
        self.tracks = [track for track in self.tracks if track.frames or track.region is not None]


def _tracks_of_shot(tracks: list[Track], shot: int) -> tuple[list[Track], list[Track]]:
    """The tracks of other shots, and those of this shot, whose faces must be detected again."""
    same = [track for track in tracks if track.shot == shot]
    for track in same:
        track.region = None
    return [track for track in tracks if track.shot != shot], same


def _search(frame: np.ndarray, index: int, model: LandmarkModel, tracks: list[Track], shot: int) -> bool:
    """Track the faces of the first of the detector's further attempts that succeeds; whether one does."""
    if not isinstance(model, SearchingModel):
        return False
    near = [track.box for track in tracks if track.frames and index - max(track.frames) <= SEARCH_EVERY]
    for faces in model.search(frame, near):
        for track in _assign(faces, tracks, shot):
            _update(track, frame, index, model)
        if any(index in track.frames for track in tracks):
            return True
    return False


def _assign(faces: list[Face], tracks: list[Track], shot: int) -> list[Track]:
    """Start a track for each new face, restart lost tracks; the tracks that are started or restarted."""
    started = []
    for face in faces:
        track = max(tracks, key=lambda track: overlap(track.box, face.box), default=None)
        if track is None or overlap(track.box, face.box) < MIN_OVERLAP:
            track = Track(shot=shot)
            tracks.append(track)
        if track.region is None:
            track.region, track.box = region_of_face(face), face.box
            started.append(track)
    return started


def _update(track: Track, frame: np.ndarray, index: int, model: LandmarkModel) -> None:
    """Locate the landmarks of a tracked face in the frame `index`."""
    assert track.region is not None
    points, presence = model.landmarks(frame, track.region)
    if presence <= 0:
        track.region = None
        return
    track.frames[index] = Landmarks.from_points(points, model.layout)
    if model.detect_every > 1:
        track.region, track.box = _region_of_points(points, model.layout), track.frames[index].box
    else:
        track.region = None


def _region_of_points(points: np.ndarray, layout: Layout) -> np.ndarray:
    """The same from the landmarks of the previous frame."""
    line = points[layout.stable[4]] - points[layout.stable[1]]
    angle = float(np.arctan2(line[1], line[0]))
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    upright = points @ rotation.T
    low, high = upright.min(0), upright.max(0)
    centre = (low + high) / 2 @ rotation
    return np.array([*centre, REGION_SCALE * float((high - low).max()), angle])
