"""Mouth clips: landmarks → stabilised on the mean face → 96 × 96 gray pictures around the mouth, as published.

Two passes over a video: the first keeps a few landmarks per frame, the second cuts; memory doesn't grow with pixels.
Coordinates are (x, y) in pixels. T frames at 25 fps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from avhubert.data.video import read_frames
from avhubert.errors import MediaError
from avhubert.prepare.detectors.blazeface import BlazeFace
from avhubert.prepare.detectors.interface import LandmarkModel
from avhubert.prepare.geometry import crop, interpolate, stabilise, turned
from avhubert.prepare.rejection import MAX_FACES, MIN_FOUND, Watch
from avhubert.prepare.speaker import speaking
from avhubert.prepare.tracking import Track, stored_track, track

MIN_EYES = 24.0  # pixels between the eyes' outer corners below which the mouth is too small to read

MOST_TURNED = 0.22  # of the eyes' distance: a nose further from their middle belongs to a face half in profile

STILL_GAP = 0.01  # lip movement (standard deviation) relative to the eyes' distance that counts as none


@dataclass(frozen=True)
class MouthTrack:
    """Where the mouth is: per frame a transform onto the mean face [T, 2, 3] and the mouth's centre after it [T, 2].

    found_share: share of frames in which the face was found; lip_gap float [T]; box float [T, 4] around the face;
    warnings: what a user should know about this video.
    """

    transforms: np.ndarray
    centres: np.ndarray
    found_share: float
    lip_gap: np.ndarray
    box: np.ndarray
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class MouthClip:
    """Mouth pictures uint8 [T, 96, 96] gray, and where they come from."""

    frames: np.ndarray
    track: MouthTrack

    @property
    def found_share(self) -> float:
        return self.track.found_share

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.track.warnings


@cache
def default_model() -> LandmarkModel:
    """One detector per process."""
    return BlazeFace()


def mouth_clip(
    path: str | Path, start: float = 0.0, end: float | None = None, model: LandmarkModel | None = None
) -> MouthClip:
    """The speaker's mouth in a video, between `start` and `end` seconds.

    Raises:
        MediaError: not a video, or no face in it.
    """
    found = find_mouth(path, start, end, model)
    return MouthClip(np.stack(list(crops(path, found, start, end))), found)


def find_mouth(
    path: str | Path,
    start: float = 0.0,
    end: float | None = None,
    model: LandmarkModel | None = None,
    watch: Watch | None = None,
    sound: np.ndarray | None = None,
) -> MouthTrack:
    """First pass: the speaker's landmarks in every frame, gaps filled, turned into transforms and centres.

    `watch` sees every picture; `sound`, int16 [N] of the same piece, tells which of several faces speaks.
    """
    return find_mouths(path, start, end, model, watch, sound)[0]


def find_mouths(
    path: str | Path,
    start: float = 0.0,
    end: float | None = None,
    model: LandmarkModel | None = None,
    watch: Watch | None = None,
    sound: np.ndarray | None = None,
    points: Sequence[np.ndarray | None] | None = None,
    every: bool = False,
) -> list[MouthTrack]:
    """The same of every face: the speaker's first, then those seen in `MIN_FOUND` of the frames, longest and largest
    first, at most `MAX_FACES` in all. `points`: known landmarks of each frame instead, as `read_landmarks` gives them.
    `every`: all of them are wanted, so there is no warning that others were seen, and each has to be seen so long.

    Raises MediaError too if `points` are of another number of frames.
    """
    pictures = read_frames(path, start, end)
    passing = pictures if watch is None else watch.over(pictures)
    if points is None:
        tracks, frames = track(passing, model or default_model())
    else:
        frames = sum(1 for _ in passing)
        if abs(frames - len(points)) > 1:
            raise MediaError(f"the landmarks are of {len(points)} frames, the video has {frames} (at 25 fps)")
        known = stored_track(points[:frames])
        tracks = [known] if known.frames else []
    if not tracks:
        raise MediaError(f"no face was found in any of the {frames} frames of {path}")
    speaker, heard = tracks[0], False
    if sound is not None and len(tracks) > 1:
        speaker, heard = speaking(tracks, sound, frames)
    long = [one for one in tracks if len(one.frames) >= MIN_FOUND * frames]
    if every:
        return [_mouth_track(one, frames, 1, False) for one in long[:MAX_FACES]]
    others = [one for one in long if one is not speaker]
    return [
        _mouth_track(speaker, frames, len(tracks), heard),
        *(_mouth_track(one, frames, 1, False) for one in others[: MAX_FACES - 1]),
    ]


def _mouth_track(one: Track, frames: int, faces: int, heard: bool) -> MouthTrack:
    index = np.array(sorted(one.frames))
    known = [one.frames[i] for i in index]
    stable = interpolate(index, np.stack([landmarks.stable for landmarks in known]), frames)
    mouth = interpolate(index, np.stack([landmarks.mouth for landmarks in known]), frames)
    gap = interpolate(index, np.array([landmarks.lip_gap for landmarks in known]), frames)
    box = interpolate(index, np.stack([landmarks.box for landmarks in known]), frames)
    transforms = stabilise(stable)
    centres = np.einsum("tij,tj->ti", transforms[:, :, :2], mouth) + transforms[:, :, 2]
    warnings = _warnings(one, frames, stable, gap, faces, heard)
    return MouthTrack(transforms, centres, len(index) / frames, gap, box, tuple(warnings))


def crops(path: str | Path, mouth: MouthTrack, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
    """Second pass: one uint8 [96, 96] gray picture a frame."""
    for picture, transform, centre in zip(read_frames(path, start, end), mouth.transforms, mouth.centres, strict=True):
        yield crop(picture, transform, centre)


def _warnings(speaker: Track, frames: int, stable: np.ndarray, gap: np.ndarray, faces: int, heard: bool) -> list[str]:
    eyes = float(np.median(np.linalg.norm(stable[:, 1] - stable[:, 4], axis=1)))
    found = []
    share = len(speaker.frames) / frames
    if share < MIN_FOUND:
        found.append(f"the face is seen in only {100 * share:.0f} % of the frames")
    if eyes < MIN_EYES:
        found.append(f"the face is small ({eyes:.0f} pixels between the eyes' corners); lips may be unreadable")
    if np.median(np.abs(turned(stable))) > MOST_TURNED:
        found.append("the face is turned to the side; lips are read best from the front")
    if frames > 1 and gap.std() < STILL_GAP * eyes:
        found.append("the mouth does not move: a still picture, or somebody who is silent")
    if faces > 1:
        which = "whose mouth moves with the sound" if heard else "seen longest and largest"
        found.append(f"{faces} faces were seen; the one {which} is taken as the speaker")
    return found
