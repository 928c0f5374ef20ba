"""Mouth clips: landmarks → stabilised on the mean face → 96 × 96 gray frames around the mouth, as published.

Two passes over a video: the first keeps a few landmarks per frame, the second cuts; memory does not grow with the
length of the video. Coordinates are (x, y) in pixels. T frames at 25 fps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avhubert.config.input_preparation import MEAN_FACE, NOSE_TO_CHIN
from avhubert.constants import FRAME_RATE, MOUTH_SIZE
from avhubert.data.media import AUTOMATIC, DamageLog, MediaPart, StreamChoice
from avhubert.data.shots import Shot, ShotDetector
from avhubert.data.video import read_frames_part
from avhubert.errors import ConfigError, MediaError
from avhubert.prepare.detectors.interface import LandmarkModel
from avhubert.prepare.detectors.selection import default_model, thorough_model
from avhubert.prepare.detectors.stored import stored_track
from avhubert.prepare.frame_passes import FramePasses
from avhubert.prepare.geometry import (
    crop,
    crop_steps,
    head_turn,
    interpolate,
    lower_face_square,
    square_corners,
    square_crop,
    stabilise,
    window_corners,
)
from avhubert.prepare.rejection import MAX_FACES, MIN_FACE_SHARE, MIN_FRAMES, NO_FACE, FrameMonitor
from avhubert.prepare.speaker import ActiveSpeaker, active_speaker
from avhubert.prepare.tracking import Track, track_faces
from avhubert.processes import report_progress

MIN_REPLACEMENT = 25  # frames of another face that replaces the speaker's where that is not seen
MIN_EYE_DISTANCE = 24.0  # pixels between the eyes' outer corners; below it the mouth is too small to read
MAX_HEAD_TURN = 0.22  # `head_turn` beyond which the face is in half profile
MIN_MISSED_SHARE = 0.3  # share of frames from which on a face is looked for in the others too
MAX_STEP = 12.0  # pixels of the crop in one frame; on GRID the largest is 4
STILL_GAP = 0.01  # standard deviation of the lip gap, in eye distances, below which the mouth does not move


@dataclass(frozen=True)
class MouthTrack:
    """Where a mouth is in each frame.

    Attributes:
        transforms: [T, 2, 3], from the frame onto the mean face.
        centres: [T, 2], the mouth's centre after the transform.
        face_share: Share of frames in which the face was detected.
        lip_gap: float [T].
        box: float [T, 4], around the face.
        warnings: Messages for the user about this video.
        detected: bool [T], frames in which the face was detected; in the others, the values are interpolated.
        cut: First frame of another shot with a face; None if all faces are in one shot.
        turn: Median of the size of `head_turn`; 0 in frontal view.
        squares: int [T, 3], of the crop from nose to chin (see `geometry.lower_face_square`), 0 where the face was not
            detected; None: the crop is the one on the mean face.
    """

    transforms: np.ndarray
    centres: np.ndarray
    face_share: float
    lip_gap: np.ndarray
    box: np.ndarray
    warnings: tuple[str, ...]
    detected: np.ndarray
    cut: int | None = None
    turn: float = 0.0
    squares: np.ndarray | None = None

    @property
    def steps(self) -> np.ndarray:
        """How far the crop moves between frames, in its pixels: float [T − 1]."""
        return crop_steps(self.transforms, self.centres)

    @property
    def longest_gap(self) -> int:
        """Number of frames in a row in which the face was not detected, at most."""
        seen = np.flatnonzero(np.concatenate([[True], self.detected, [True]]))
        return int(np.diff(seen).max()) - 1

    def crop(self, frame: np.ndarray, index: int) -> np.ndarray:
        """The mouth in the frame `index`, gray uint8 [96, 96], or [88, 88] from nose to chin."""
        if self.squares is not None:
            return square_crop(frame, self.squares[index])
        return crop(frame, self.transforms[index], self.centres[index])

    def corners(self) -> np.ndarray:
        """The crop's corners in the frames, [T, 4, 2]: top left, top right, bottom right, bottom left."""
        if self.squares is not None:
            return square_corners(self.squares)
        return window_corners(self.transforms, self.centres)

    def select(self, frames: slice | np.ndarray) -> MouthTrack:
        """The track of some of the frames."""
        return replace(
            self,
            transforms=self.transforms[frames],
            centres=self.centres[frames],
            lip_gap=self.lip_gap[frames],
            box=self.box[frames],
            detected=self.detected[frames],
            squares=None if self.squares is None else self.squares[frames],
        )


@dataclass(frozen=True)
class MouthClip:
    """Frames of a mouth.

    Attributes:
        frames: uint8 [T, 96, 96] gray, or [T, 88, 88] from nose to chin.
        track: Where the mouth is in the frames of the video.
    """

    frames: np.ndarray
    track: MouthTrack

    @property
    def face_share(self) -> float:
        """Share of frames in which the face was detected."""
        return self.track.face_share

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages for the user about this video."""
        return self.track.warnings


class ShotMouth(NamedTuple):
    """A mouth in one shot.

    Attributes:
        start: First frame, counted from that of the part of the video.
        shot: The shot.
        track: Where the mouth is.
    """

    start: int
    shot: Shot
    track: MouthTrack


def mouth_clip(
    path: str | Path,
    start: float = 0.0,
    end: float | None = None,
    model: LandmarkModel | None = None,
    streams: StreamChoice = AUTOMATIC,
    damage: DamageLog | None = None,
    crop: str = MEAN_FACE,
) -> MouthClip:
    """The speaker's mouth in a video, between `start` and `end` seconds.

    Args:
        path: A video file.
        start: Seconds from the start of the video.
        end: Seconds from the start of the video; None: until its end.
        model: A face detector instead of the default one.
        streams: Which of several streams are read.
        damage: Records what is damaged.
        crop: The kind of crop.

    Raises:
        MediaError: The file is not a video, or there is no face in it.
    """
    video = FramePasses(MediaPart(path, start, end, streams, damage))
    track = find_mouths(video, model, crop=crop)[0]
    return MouthClip(np.stack(list(crops(video, track))), track)


def find_mouth(
    part: MediaPart,
    model: LandmarkModel | None = None,
    monitor: FrameMonitor | None = None,
    audio: np.ndarray | None = None,
) -> MouthTrack:
    """First pass: the speaker's landmarks in every frame, gaps filled, as transforms and centres.

    Args:
        part: The video, or a part of it.
        model: A face detector instead of the default one.
        monitor: Gets every frame.
        audio: int16 [N] of the same part; selects the speaker among several faces.
    """
    return find_mouths(part, model, monitor, audio)[0]


def find_mouths(
    part: MediaPart | FramePasses,
    model: LandmarkModel | None = None,
    monitor: FrameMonitor | None = None,
    audio: np.ndarray | None = None,
    points: Sequence[np.ndarray | None] | None = None,
    every_face: bool = False,
    crop: str = MEAN_FACE,
) -> list[MouthTrack]:
    """First pass for every face: the speaker's first, then the others, longest and largest first, at most `MAX_FACES`.

    Faces other than the speaker's are included if they are detected in at least `MIN_FACE_SHARE` of the frames.

    Args:
        part: The video, or a part of it; its frames, if the caller needs them once more.
        model: A face detector instead of the default one.
        monitor: Gets every frame.
        audio: int16 [N] of the same part; selects the speaker among several faces.
        points: Known landmarks of each frame instead of a detector, as `read_landmarks` returns them.
        every_face: Every face that is visible throughout becomes a clip: look for the faces of a split screen again
            where they are detected in too few frames, and select as speaker only a face that is in enough frames.
        crop: The kind of crop.

    Raises:
        MediaError: The file is not a video, there is no face in it, or `points` have another number of frames.
        ConfigError: The detector has no points for the crop.
    """
    video = part if isinstance(part, FramePasses) else FramePasses(part)
    monitored = video if monitor is None else monitor.watch(video)
    if points is None:
        model = model or default_model()
        tracks, count = track_faces(monitored, model)
        thorough = thorough_model(model) if every_face and _missed_one_of_several(tracks, count) else None
        if thorough is not None:
            tracks, _ = track_faces(video, thorough)
    else:
        tracks, count = _stored_tracks(points, sum(1 for _ in monitored))
    _check_found(tracks, count, video.part.path)
    long_tracks = [track for track in tracks if len(track.frames) >= MIN_FACE_SHARE * count]
    speaker = _speaker(long_tracks if every_face and long_tracks else tracks, audio, count)
    others = [track for track in long_tracks if track is not speaker.track]
    same_shot = sum(track.shot == speaker.track.shot for track in tracks)
    mouth = _mouth_track(speaker.track, count, crop, _several_faces(same_shot, speaker))
    return [
        replace(mouth, cut=_cut(tracks)),
        *(_mouth_track(track, count, crop) for track in others[: MAX_FACES - 1]),
    ]


def find_mouths_by_shot(part: MediaPart, shots: ShotDetector, crop: str = MEAN_FACE) -> list[ShotMouth]:
    """First pass for everybody, with no selection of a speaker: the faces of each shot, in order of time.

    A face is included if it is detected in at least `MIN_FACE_SHARE` of the frames that its shot has in the part; at
    most `MAX_FACES` in each shot.

    Args:
        part: The video, or a part of it.
        shots: Has seen the frames before this part, and gets those of this part.
        crop: The kind of crop.

    Raises:
        MediaError: The file is not a video, or there is no face in it.
    """
    begin = shots.frames
    tracks, count = track_faces(read_frames_part(part), default_model(), shots)
    _check_found(tracks, count, part.path)
    with_faces = {track.shot for track in tracks if len(track.frames) >= MIN_FRAMES}
    mouths: list[ShotMouth] = []
    for shot in sorted({track.shot for track in tracks}):
        for first, end in _stretches(shots.shots[shot], [shots.shots[other] for other in with_faces], begin):
            cut = [_part_of_track(track, first, end) for track in tracks if track.shot == shot]
            visible = [track for track in cut if len(track.frames) >= MIN_FACE_SHARE * (end - first)]
            mouths += [
                ShotMouth(first, shots.shots[shot], _mouth_track(track, end - first, crop))
                for track in visible[:MAX_FACES]
            ]
    return sorted(mouths, key=lambda mouth: mouth.start)


def _stretches(shot: Shot, with_faces: list[Shot], begin: int) -> list[tuple[int, int]]:
    """Frames (first, end) of a shot after `begin`, counted from there, without shots with faces that interrupt it."""
    starts, ends = [max(shot.first, begin)], []
    for other in sorted(with_faces, key=lambda other: other.first):
        if starts[-1] < other.first and other.last < shot.last:
            ends.append(other.first)
            starts.append(other.last + 1)
    ends.append(shot.last + 1)
    return [(first - begin, end - begin) for first, end in zip(starts, ends, strict=True) if end - first >= MIN_FRAMES]


def _part_of_track(track: Track, first: int, end: int) -> Track:
    """The track in the frames from `first` to `end`, counted from there."""
    return Track({index - first: found for index, found in track.frames.items() if first <= index < end})


def follow_mouth(video: FramePasses, audio: np.ndarray | None = None, crop: str = MEAN_FACE) -> MouthTrack:
    """Like `find_mouth`, but where the speaker's face is not seen for a second, another face replaces it.

    So a face that leaves and returns at another place is one track, and so is the next person after a cut.

    Args:
        video: The video, or a part of it.
        audio: int16 [N] of the same part; selects the speaker among several faces.
        crop: The kind of crop.
    """
    tracks, count = track_faces(video, default_model())
    _check_found(tracks, count, video.part.path)
    speaker = _speaker(tracks, audio, count)
    detected = _detected(speaker.track, count)
    replacements: list[Track] = []
    for track in tracks:
        free = {index: landmarks for index, landmarks in track.frames.items() if not detected[index]}
        if track is not speaker.track and len(free) >= max(MIN_REPLACEMENT, len(track.frames) // 2):
            replacements.append(Track(free))
            detected |= _detected(replacements[-1], count)
    faces = len(tracks) - len(replacements)
    mouth = _mouth_track(speaker.track, count, crop, _several_faces(faces, speaker), float(detected.mean()))
    for replacement in replacements:
        mouth = _replaced(mouth, _mouth_track(replacement, count, crop), _detected(replacement, count))
    return replace(mouth, detected=detected)


def _replaced(mouth: MouthTrack, other: MouthTrack, where: np.ndarray) -> MouthTrack:
    """The track with the values of another one in the frames `where`, bool [T]."""
    squares = mouth.squares
    if squares is not None and other.squares is not None:
        squares = np.where(where[:, None], other.squares, squares)
    return replace(
        mouth,
        transforms=np.where(where[:, None, None], other.transforms, mouth.transforms),
        centres=np.where(where[:, None], other.centres, mouth.centres),
        lip_gap=np.where(where, other.lip_gap, mouth.lip_gap),
        box=np.where(where[:, None], other.box, mouth.box),
        squares=squares,
    )


def _detected(track: Track, frames: int) -> np.ndarray:
    """Frames in which the face was detected, bool [T]."""
    detected = np.zeros(frames, bool)
    detected[list(track.frames)] = True
    return detected


def _check_found(tracks: Sequence[Track], frames: int, path: str | Path) -> None:
    if not tracks:
        raise MediaError(f"no face was found in any of the {frames} frames of {path}", kind=NO_FACE, path=path)


def _cut(tracks: Sequence[Track]) -> int | None:
    """The first frame of the second shot in which faces are seen, or None."""
    shots = sorted({track.shot for track in tracks if len(track.frames) >= MIN_FRAMES})
    return shots[1] if len(shots) > 1 else None


def _speaker(tracks: list[Track], audio: np.ndarray | None, frames: int) -> ActiveSpeaker:
    if audio is not None and len(tracks) > 1:
        return active_speaker(tracks, audio, frames)
    return ActiveSpeaker(tracks[0], False)


def _stored_tracks(points: Sequence[np.ndarray | None], frames: int) -> tuple[list[Track], int]:
    """The track of known landmarks, if there are any, and the number of frames."""
    if abs(frames - len(points)) > 1:
        raise MediaError(
            f"the landmarks are of {len(points)} frames, the video has {frames} (at 25 fps)",
            kind="landmarks of another number of frames",
        )
    stored = stored_track(points[:frames])
    return [stored] if stored.frames else [], frames


def _missed_one_of_several(tracks: list[Track], frames: int) -> bool:
    """Whether one of several faces is detected in many frames, but in too few for a clip."""
    share = [len(track.frames) / frames for track in tracks]
    return len(tracks) > 1 and any(MIN_MISSED_SHARE <= value < MIN_FACE_SHARE for value in share)


def crops(video: FramePasses, mouth: MouthTrack) -> Iterator[np.ndarray]:
    """Second pass: one gray uint8 image per frame, [96, 96], or [88, 88] from nose to chin."""
    for frame, index in zip(video, range(len(mouth.detected)), strict=True):
        report_progress()
        yield mouth.crop(frame, index)


def _mouth_track(
    track: Track, frames: int, crop: str, more_warnings: Sequence[str] = (), face_share: float | None = None
) -> MouthTrack:
    index = np.array(sorted(track.frames))
    known = [track.frames[i] for i in index]
    stable = interpolate(index, np.stack([landmarks.stable for landmarks in known]), frames)
    mouth = interpolate(index, np.stack([landmarks.mouth for landmarks in known]), frames)
    gap = interpolate(index, np.array([landmarks.lip_gap for landmarks in known]), frames)
    box = interpolate(index, np.stack([landmarks.box for landmarks in known]), frames)
    transforms = stabilise(stable)
    centres = np.einsum("tij,tj->ti", transforms[:, :, :2], mouth) + transforms[:, :, 2]
    share = len(index) / frames if face_share is None else face_share
    warnings = (*_warnings(share, stable, gap), *_jump(crop_steps(transforms, centres)), *more_warnings)
    turn = float(np.median(np.abs(head_turn(stable))))
    squares = _squares(track, frames) if crop == NOSE_TO_CHIN else None
    return MouthTrack(
        transforms, centres, share, gap, box, warnings, _detected(track, frames), turn=turn, squares=squares
    )


def _squares(track: Track, frames: int) -> np.ndarray:
    """The squares from nose to chin, int [T, 3], in each frame by itself; 0 where the face was not detected."""
    squares = np.zeros((frames, 3), np.int64)
    for index, landmarks in track.frames.items():
        if landmarks.lower_face is None:
            raise ConfigError(
                f"the crop '{NOSE_TO_CHIN}' needs the points of the built-in face detector: leave --landmarks out"
            )
        squares[index] = lower_face_square(landmarks.lower_face)
    return squares


def _warnings(share: float, stable: np.ndarray, gap: np.ndarray) -> list[str]:
    """Messages about a face that is hard to read."""
    eye_distance = float(np.median(np.linalg.norm(stable[:, 1] - stable[:, 4], axis=1)))
    warnings = []
    if share < MIN_FACE_SHARE:
        warnings.append(f"the face is detected in only {100 * share:.0f} % of the frames")
    if eye_distance < MIN_EYE_DISTANCE:
        warnings.append(
            f"the face is small ({eye_distance:.0f} pixels between the eyes' corners); the lips may be unreadable"
        )
    if np.median(np.abs(head_turn(stable))) > MAX_HEAD_TURN:
        warnings.append("the face is turned to the side; lips are read best in frontal view")
    if len(gap) > 1 and gap.std() < STILL_GAP * eye_distance:
        warnings.append("the mouth does not move: a still image, or a silent person")
    return warnings


def _jump(steps: np.ndarray) -> list[str]:
    """The message about a crop that moves fast."""
    if not len(steps) or steps.max() <= MAX_STEP:
        return []
    seconds = (int(steps.argmax()) + 1) / FRAME_RATE
    return [f"the crop moves by {steps.max():.0f} of its {MOUTH_SIZE} pixels in one frame, at {seconds:.2f} s"]


def _several_faces(faces: int, speaker: ActiveSpeaker) -> list[str]:
    """The message about which of several faces is used."""
    if faces < 2:
        return []
    which = "whose mouth motion matches the audio" if speaker.by_audio else "that is visible longest and largest"
    return [f"{faces} faces were seen; the active speaker is the one {which}"]
