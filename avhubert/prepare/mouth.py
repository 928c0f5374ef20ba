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

from avhubert.constants import MOUTH_SIZE, SAMPLES_PER_FRAME
from avhubert.data.video import read_frames, rgb_to_gray
from avhubert.errors import MediaError
from avhubert.prepare.landmarks import BlazeFace, LandmarkModel, Track, stored_track, track
from avhubert.prepare.rejection import MAX_FACES, MIN_FOUND, Watch

MEAN_FACE_SIZE = 256
SMOOTHING = 12  # frames whose mean landmarks decide a frame's transform, from the frame itself on
# the mean face's stable points: nose base, eye corners (iBUG 33, 36, 39, 42, 45)
MEAN_FACE = np.array(
    [[128.870, 137.303], [92.522, 94.369], [112.772, 94.944], [145.525, 94.535], [166.677, 93.566]], np.float64
)

MIN_EYES = 24.0  # pixels between the eyes' outer corners below which the mouth is too small to read
SPEAKER_WINDOW = 9  # frames
LEAST_POWER = 100.0  # of samples: below it is silence
LEAST_SPREAD = 1.0  # dB by which the sound's level must vary to tell anything
LEAST_SHARED = 2e-4  # of face heights per frame, that a mouth's movement shares with the sound's level
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


# --------------------------------------------------------------------------- the speaker
def speaking(tracks: list[Track], sound: np.ndarray, frames: int) -> tuple[Track, bool]:
    """The track whose mouth moves with the sound, int16 [N] at 16 kHz, and True; the first and False if none does.

    Tracks seen in less than half as many frames as the first are not asked. A mouth's movement is the change of its
    opening relative to the face's height, the sound its level in dB, both as means over 0.36 s.
    """
    needed = frames * SAMPLES_PER_FRAME
    samples = np.pad(sound[:needed].astype(np.float64), (0, max(0, needed - len(sound))))
    level = 10 * np.log10(np.square(samples).reshape(frames, -1).mean(1) + LEAST_POWER)
    asked = [one for one in tracks if 2 * len(one.frames) >= len(tracks[0].frames)]
    scores = [_moves_with(one, level) for one in asked]
    best = int(np.argmax(scores))
    return (asked[best], True) if scores[best] >= LEAST_SHARED else (tracks[0], False)


def _moves_with(one: Track, level: np.ndarray) -> float:
    """Covariance of movement and sound over the sound's spread, in units that are the same for all faces.

    Not the correlation: the noise of a still mouth may correlate with anything, but hardly moves.
    """
    index = np.array(sorted(one.frames))
    if len(index) <= SPEAKER_WINDOW:
        return 0.0
    height = np.median([one.frames[i].box[3] - one.frames[i].box[1] for i in index])
    gap = interpolate(index, np.array([one.frames[i].lip_gap for i in index]), len(level)) / max(height, 1.0)
    moved, heard = _smoothed(np.abs(np.gradient(gap)))[index], _smoothed(level)[index]
    spread = float(heard.std())
    return float(np.mean((moved - moved.mean()) * (heard - heard.mean()))) / spread if spread >= LEAST_SPREAD else 0.0


def _smoothed(values: np.ndarray) -> np.ndarray:
    padded = np.pad(values, SPEAKER_WINDOW // 2, mode="edge")
    return np.convolve(padded, np.ones(SPEAKER_WINDOW) / SPEAKER_WINDOW, "valid")


# --------------------------------------------------------------------------- geometry
def interpolate(index: np.ndarray, values: np.ndarray, frames: int) -> np.ndarray:
    """values [n, …] known at frames `index` → [frames, …]: gaps filled linearly, ends copied."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    every = np.arange(frames)
    filled = np.stack([np.interp(every, index, column) for column in flat.T], axis=1)
    return filled.reshape(frames, *values.shape[1:])


def similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity [2, 3] (rotation, scale, shift) that brings points [n, 2] onto target [n, 2]: least squares."""
    z, w = points @ np.array([1, 1j]), target @ np.array([1, 1j])
    z_mean, w_mean = z.mean(), w.mean()
    a = np.vdot(z - z_mean, w - w_mean) / np.vdot(z - z_mean, z - z_mean)
    b = w_mean - a * z_mean
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def stabilise(stable: np.ndarray, smoothing: int = SMOOTHING) -> np.ndarray:
    """Transforms [T, 2, 3] onto the mean face from stable points [T, 5, 2].

    Frame i uses the mean of frames i … i + smoothing − 1; the last ones reuse the last transform.
    """
    frames = len(stable)
    window = min(smoothing, frames)
    full = frames - window + 1
    found = [similarity(stable[i : i + window].mean(0), MEAN_FACE) for i in range(full)]
    return np.stack(found + [found[-1]] * (frames - full))


def turned(stable: np.ndarray) -> np.ndarray:
    """How far the nose lies from the middle of the eyes, along their line, in their distance: [T], 0 from the front."""
    line = stable[:, 4] - stable[:, 1]
    nose = stable[:, 0] - (stable[:, 1] + stable[:, 4]) / 2
    return np.einsum("ti,ti->t", nose, line) / np.maximum(np.einsum("ti,ti->t", line, line), 1e-9)


def window_corners(transforms: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The crop's corners in the picture, [T, 4, 2]: top left, top right, bottom right, bottom left."""
    half = MOUTH_SIZE // 2
    middle = np.clip(np.rint(centres), half, MEAN_FACE_SIZE - half)
    corners = middle[:, None] + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    back = np.linalg.inv(np.concatenate([transforms, np.tile([[[0.0, 0, 1]]], (len(transforms), 1, 1))], 1))
    return np.einsum("tij,tnj->tni", back[:, :2, :2], corners) + back[:, None, :2, 2]


def crop(picture: np.ndarray, transform: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """uint8 [96, 96] gray: the picture, uint8 [H, W, 3] RGB or [H, W], after `transform`, around `centre`.

    The centre is rounded half to even and clamped so that the window stays inside the 256 × 256 mean-face picture;
    bilinear, zeros outside the picture, truncated. Only the window is computed.
    """
    half = MOUTH_SIZE // 2
    x, y = (int(np.clip(round(float(value)), half, MEAN_FACE_SIZE - half)) for value in centre)
    inverse = np.linalg.inv(np.vstack([transform, [0, 0, 1]]))[:2]
    column, row = np.meshgrid(np.arange(x - half, x + half), np.arange(y - half, y + half))
    source_x = inverse[0, 0] * column + inverse[0, 1] * row + inverse[0, 2]
    source_y = inverse[1, 0] * column + inverse[1, 1] * row + inverse[1, 2]
    left, top = int(np.floor(source_x.min())), int(np.floor(source_y.min()))
    right, bottom = int(np.floor(source_x.max())) + 2, int(np.floor(source_y.max())) + 2
    seen = picture[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    gray = rgb_to_gray(seen) if seen.ndim == 3 else seen
    # the part of the window that lies outside the picture is 0
    window = np.zeros((bottom - top, right - left), np.float32)
    at_y, at_x = max(top, 0) - top, max(left, 0) - left
    window[at_y : at_y + gray.shape[0], at_x : at_x + gray.shape[1]] = gray
    column0, row0 = np.floor(source_x).astype(np.intp), np.floor(source_y).astype(np.intp)
    fx, fy = (source_x - column0).astype(np.float32), (source_y - row0).astype(np.float32)
    flat = window.reshape(-1)
    at = (row0 - top) * window.shape[1] + (column0 - left)
    upper = flat[at] * (1 - fx) + flat[at + 1] * fx
    at += window.shape[1]
    lower = flat[at] * (1 - fx) + flat[at + 1] * fx
    return (upper * (1 - fy) + lower * fy).astype(np.uint8)
