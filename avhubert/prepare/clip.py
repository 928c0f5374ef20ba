"""Prepares one source clip: mouth video and audio, or the reason why it is rejected."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from avhubert.config.command_defaults import MAX_CLIP_SECONDS
from avhubert.config.input_preparation import CLIP_SIZES, MEAN_FACE
from avhubert.constants import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from avhubert.corpora.sources import Rejection, SourceClip
from avhubert.data.audio import read_audio_part, write_wav
from avhubert.data.discovery import AUDIO_EXTENSIONS
from avhubert.data.lengths import content_seconds
from avhubert.data.media import AUTOMATIC, DamageLog, MediaPart, StreamChoice
from avhubert.data.video import MediaInfo, probe, read_frames_part, rgb_to_gray, write_video
from avhubert.errors import MediaError
from avhubert.files import atomic_path
from avhubert.prepare.detectors.selection import LandmarkSource
from avhubert.prepare.detectors.stored import Points, landmark_file, read_landmarks
from avhubert.prepare.frame_passes import FramePasses
from avhubert.prepare.log import rejection_of
from avhubert.prepare.mouth import MouthTrack, crops, find_mouths
from avhubert.prepare.records import ClipResult
from avhubert.prepare.rejection import (
    MAX_LENGTH_DIFFERENCE,
    NO_AUDIO,
    NO_VIDEO,
    TOO_LONG,
    CutError,
    FrameMonitor,
    check_audio,
    check_lengths,
    check_video,
    check_words,
    too_long,
)
from avhubert.prepare.visible_mouth import MAX_TURN, NO_MOUTH, check_mouth
from avhubert.processes import failure_of


@dataclass(frozen=True)
class _Streams:
    """Which streams are read: which of several ones, and the modality of the clip."""

    choice: StreamChoice
    modality: str


@dataclass(frozen=True)
class _Face:
    """A face that becomes a clip.

    Attributes:
        frames: Mouth frames, gray uint8 [H, W].
        share: Share of frames in which the face was detected.
        warnings: Messages for the user.
        copy: The frames are exactly those of the input file, which is copied.
        track: Where the mouth is; None: the face fills the frame.
    """

    frames: Iterable[np.ndarray]
    share: float = 1.0
    warnings: tuple[str, ...] = ()
    copy: bool = False
    track: MouthTrack | None = None


def prepare_clip(
    clip: SourceClip,
    dst: Path,
    max_seconds: float = MAX_CLIP_SECONDS,
    landmarks: LandmarkSource | None = None,
    streams: StreamChoice = AUTOMATIC,
    modality: str = "av",
) -> ClipResult:
    """Write DST/video/ID.mp4 and DST/audio/ID.wav of a clip, or return why it is rejected. Runs in a worker.

    Any error rejects only the clip, except MemoryError and those that `failure_of` raises again.

    Args:
        clip: The source clip.
        dst: The output folder.
        max_seconds: Longer clips are rejected.
        landmarks: Where the landmarks come from; None: the default detector.
        streams: Which of several streams of the file are read.
        modality: The streams that the clip gets: 'av', 'a', 'v', or 'any', those that can be used.
    """
    landmarks = landmarks or LandmarkSource()
    fingerprint = ""
    try:
        fingerprint = input_fingerprint(clip, landmarks, streams)
        result = _prepare_or_audio(clip, dst, max_seconds, landmarks, _Streams(streams, modality))
        return replace(result, fingerprint=fingerprint + _one_stream(modality, result))
    except MediaError as error:
        return ClipResult(
            clip.id,
            Rejection.from_error(clip.id, error, clip.path),
            fingerprint=fingerprint + _one_stream(modality),
            cut=(error.frame, error.frames) if isinstance(error, CutError) else None,
        )
    except MemoryError:
        raise  # the executor replaces the process
    except Exception as error:
        failure = failure_of(error)
        rejection = rejection_of(clip.id, failure)
        return ClipResult(
            clip.id, rejection, fingerprint=fingerprint + _one_stream(modality), traceback=failure.traceback
        )


def _prepare_or_audio(
    clip: SourceClip, dst: Path, max_seconds: float, landmarks: LandmarkSource, wanted: _Streams
) -> ClipResult:
    """`_prepare`; a clip of modality 'any' whose crops show no mouth gets its audio alone."""
    try:
        return _prepare(clip, dst, max_seconds, landmarks, wanted)
    except MediaError as error:
        if error.kind != NO_MOUTH or wanted.modality != "any":
            raise
        try:
            result = _prepare(clip, dst, max_seconds, landmarks, _Streams(wanted.choice, "a"))
        except MediaError:  # no audio either
            raise error from None
        return replace(result, warnings=(f"without video: {error}", *result.warnings))


def _prepare(
    clip: SourceClip, dst: Path, max_seconds: float, landmarks: LandmarkSource, wanted: _Streams
) -> ClipResult:
    damage = DamageLog()
    part = MediaPart(clip.path, clip.start, clip.end, wanted.choice, damage)
    media = probe(clip.path, wanted.choice, damage)
    audio_path = _check_header(clip, media, max_seconds, wanted.modality)
    samples, without_audio = None, None
    if audio_path is not None:
        try:
            samples = _read_samples(part, audio_path, max_seconds)
        except MediaError as error:
            if wanted.modality != "any" or not media.has_video:
                raise
            without_audio = error
    monitor = FrameMonitor(round(max_seconds * FRAME_RATE))
    faces: list[_Face] = []
    without_video = None
    if media.has_video and wanted.modality != "a":
        try:
            faces = _faces(clip, part, media, monitor, samples, landmarks)
        except MediaError as error:
            if wanted.modality != "any" or samples is None or error.kind == TOO_LONG:
                raise
            without_video = error
    if not faces and samples is not None:
        check_audio(len(samples) / SAMPLE_RATE, max_seconds)
    elif samples is not None:
        check_lengths(monitor, len(samples) / SAMPLE_RATE)
        samples = samples[: monitor.frames * SAMPLES_PER_FRAME]
    check_words(_seconds(monitor if faces else None, samples), clip.spoken_until)
    faces, left_out = _write_faces(clip, faces, samples, dst)
    left_out += [
        f"without {stream}: {error.with_path_as('the file')}"
        for stream, error in (("audio", without_audio), ("video", without_video))
        if error is not None
    ]
    return ClipResult(
        clip.id,
        frames=monitor.frames if faces else 0,
        samples=0 if samples is None else len(samples),
        face_share=faces[0].share if faces else 0.0,
        warnings=(
            *damage.sentences(),
            *left_out,
            *_unexpected_length(clip, monitor),
            *(faces[0].warnings if faces else ()),
        ),
        largest_step=_largest_step(faces),
        other_face_shares=tuple(face.share for face in faces[1:]),
    )


def _seconds(monitor: FrameMonitor | None, samples: np.ndarray | None) -> float:
    """The length of a clip; `monitor`: None without video."""
    if monitor is not None:
        return monitor.frames / FRAME_RATE
    return 0.0 if samples is None else len(samples) / SAMPLE_RATE


def _largest_step(faces: list[_Face]) -> float:
    """How far the crop of a face moves between two frames at most, in its pixels."""
    steps = [float(face.track.steps.max()) for face in faces if face.track is not None and len(face.track.steps)]
    return round(max(steps, default=0.0), 2)


def _unexpected_length(clip: SourceClip, monitor: FrameMonitor) -> list[str]:
    if clip.expected_frames in (None, monitor.frames) or not monitor.frames:
        return []
    return [f"{monitor.frames} frames instead of {clip.expected_frames}"]


def _check_header(clip: SourceClip, media: MediaInfo, max_seconds: float, modality: str) -> Path | None:
    """Check what is known before anything is decoded.

    Returns:
        The path of the audio: the video itself or an audio file beside it; None if the clip gets no audio.
    """
    if not media.has_video and "v" in modality:
        raise MediaError("no video track", kind=NO_VIDEO)
    audio_path: Path | None = clip.path if media.has_audio else clip.audio or _audio_beside(clip.path)
    if modality == "v":
        audio_path = None
    elif audio_path is None and modality != "any":
        raise MediaError("no audio track", kind=NO_AUDIO)
    length = (media.duration_seconds if clip.end is None else clip.end) - clip.start
    if clip.end is None and length > max_seconds + MAX_LENGTH_DIFFERENCE:  # the header may be wrong
        length = content_seconds(clip.path) - clip.start
    if length > max_seconds + MAX_LENGTH_DIFFERENCE:
        raise too_long(max_seconds)
    return audio_path


def _audio_beside(video: Path) -> Path | None:
    """The audio file with the name of a video; a .wav comes first."""
    for suffix in (".wav", *sorted(AUDIO_EXTENSIONS)):
        for path in (video.with_suffix(suffix), video.with_suffix(suffix.upper())):
            if os.path.isfile(path):  # Path.is_file() fails where a name becomes too long
                return path
    return None


def _read_samples(part: MediaPart, path: Path, max_seconds: float) -> np.ndarray:
    """The audio of a part of a video; `path`: the file with the audio."""
    # the header can be wrong: never read more than can be used
    latest = part.start + max_seconds + 1 if part.end is None else part.end
    streams = part.streams if path == part.path else AUTOMATIC
    return read_audio_part(replace(part, path=path, end=latest, streams=streams))


def _faces(
    clip: SourceClip,
    part: MediaPart,
    media: MediaInfo,
    monitor: FrameMonitor,
    samples: np.ndarray | None,
    landmarks: LandmarkSource,
) -> list[_Face]:
    """The faces, the speaker's first, of a video that is usable."""
    size = CLIP_SIZES[landmarks.crop]
    if (media.width, media.height) == (size, size):
        faces = [_existing_mouth_clip(part, media, monitor)]
    else:
        faces = _find_faces(clip, part, monitor, samples, landmarks)
    tracks = [face.track for face in faces if face.track is not None]
    gap, cut = (tracks[0].longest_gap, tracks[0].cut) if tracks else (0, None)
    check_video(monitor, faces[0].share, [track.box for track in tracks], gap, cut)
    return faces


def _existing_mouth_clip(part: MediaPart, media: MediaInfo, monitor: FrameMonitor) -> _Face:
    """An input of the size of a mouth clip: it is one already; copied if readers of the copy see the same."""
    frames = [rgb_to_gray(frame) for frame in monitor.watch(read_frames_part(part))]
    whole = part.start == 0 and part.end is None and not part.damage
    same = media.shown_as_stored and media.fps == FRAME_RATE and not part.streams.video
    return _Face(frames, copy=whole and same and Path(part.path).suffix == ".mp4")


def _find_faces(
    clip: SourceClip,
    part: MediaPart,
    monitor: FrameMonitor,
    samples: np.ndarray | None,
    landmarks: LandmarkSource,
) -> list[_Face]:
    """The faces, the speaker's first. If there is none because the video is black or frozen, MediaError says so."""
    points = _stored_points(clip, landmarks.folder) if landmarks.kind == "stored" else None
    video = FramePasses(part)
    try:
        mouths = find_mouths(
            video, landmarks.model(), monitor, samples, points, every_face=clip.every_face, crop=landmarks.crop
        )
    except MediaError as error:
        problem = monitor.problem() if monitor.finished else None
        if problem is not None:
            raise problem from error
        raise
    return [
        _Face(crops(video, mouth), mouth.face_share, mouth.warnings, track=mouth)
        for mouth in (mouths if clip.every_face else mouths[:1])
    ]


def _write_faces(
    clip: SourceClip, faces: list[_Face], samples: np.ndarray | None, dst: Path
) -> tuple[list[_Face], list[str]]:
    """Write the clips of all faces, or the audio alone; the faces that became clips, and warnings about the others.

    Raises:
        MediaError: The crops of the speaker's face show no mouth.
    """
    if not faces:
        _write(None, samples, clip.path, *media_paths(dst, clip.id))
    written: list[_Face] = []
    warnings = []
    for face in faces:
        name = face_ids(clip.id, len(written) + 1)[-1]
        try:
            _write(face, samples, clip.path, *media_paths(dst, name))
        except MediaError as error:
            if error.kind != NO_MOUTH or not written:
                raise
            warnings.append(f"another face is left out: {error}")
        else:
            written.append(face)
    return written, warnings


def _write(face: _Face | None, samples: np.ndarray | None, source: Path, video: Path, audio: Path) -> None:
    """Write the streams that the clip has."""
    if face is not None:
        video.parent.mkdir(parents=True, exist_ok=True)
        if face.copy:
            with atomic_path(video) as temporary:
                shutil.copyfile(source, temporary)
        else:
            # the classifier knows crops on the mean face
            judged = face.track is not None and face.track.squares is None and face.track.turn <= MAX_TURN
            write_video(video, check_mouth(face.frames) if judged else face.frames)
    if samples is not None:
        audio.parent.mkdir(parents=True, exist_ok=True)
        write_wav(audio, samples)


def face_ids(identifier: str, faces: int) -> list[str]:
    """Ids of the clips of a source clip's faces; the speaker's clip has the id of the source clip."""
    return [identifier, *(f"{identifier}_face{number}" for number in range(2, faces + 1))]


def media_paths(dst: Path, identifier: str) -> tuple[Path, Path]:
    """Paths of a clip's mouth video and audio."""
    return dst / "video" / f"{identifier}.mp4", dst / "audio" / f"{identifier}.wav"


def _stored_points(clip: SourceClip, folder: Path) -> list[Points | None]:
    """The clip's landmarks, from a file of its own or from the file of its whole video."""
    video = _video_id(clip)
    if clip.id == video or landmark_file(folder, [clip.id]):
        return read_landmarks(folder, [clip.id])
    first = round(clip.start * FRAME_RATE)
    last = None if clip.end is None else round(clip.end * FRAME_RATE)
    return read_landmarks(folder, [video])[first:last]


def _video_id(clip: SourceClip) -> str:
    """The id that the clip would have if it were its whole video; landmark files of whole videos have this name."""
    return (Path(clip.id).parent / clip.path.stem).as_posix()


def input_fingerprint(clip: SourceClip, landmarks: LandmarkSource, streams: StreamChoice = AUTOMATIC) -> str:
    """Changes when the inputs of a clip change: video, streams, landmark file, kind of detector, kind of crop."""
    files = [clip.path]
    if landmarks.kind == "stored" and (file := landmark_file(landmarks.folder, [clip.id, _video_id(clip)])):
        files.append(file)
    suffix = {"default": "", "stored": "-landmarks", "dlib": "-dlib"}[landmarks.kind]
    suffix += "" if landmarks.crop == MEAN_FACE else f"-{landmarks.crop}"
    for kind, position in (("a", streams.audio), ("v", streams.video)):
        suffix += "" if position is None else f"-{kind}{position}"
    return "-".join(f"{status.st_size}-{status.st_mtime_ns}" for status in (file.stat() for file in files)) + suffix


def is_current(
    result: ClipResult, clip: SourceClip, landmarks: LandmarkSource, streams: StreamChoice, modality: str
) -> bool:
    """Whether a usable clip was made from the inputs as they are, with the streams that the modality asks for."""
    fingerprint = input_fingerprint(clip, landmarks, streams)
    possible = {fingerprint + _one_stream(modality)}
    if modality == "any":
        possible.add(fingerprint)  # both streams
    return result.rejection is None and result.fingerprint in possible


def _one_stream(modality: str, result: ClipResult | None = None) -> str:
    """The end of a fingerprint: '' if the clip is the same as of modality 'av'."""
    if modality == "av" or (modality == "any" and result is not None and result.frames and result.samples):
        return ""
    return f"-{modality}"
