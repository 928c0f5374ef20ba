"""Prepares one source clip: mouth video and audio, or the reason why it is rejected."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avhubert.config.command_defaults import MAX_CLIP_SECONDS
from avhubert.constants import FRAME_RATE, MOUTH_SIZE, SAMPLE_RATE, SAMPLES_PER_FRAME
from avhubert.corpora.sources import Rejection, SourceClip
from avhubert.data.audio import read_audio, write_wav
from avhubert.data.lengths import content_seconds
from avhubert.data.media import AUTOMATIC, DamageLog, StreamChoice
from avhubert.data.video import MediaInfo, probe, read_frames, rgb_to_gray, write_video
from avhubert.errors import MediaError
from avhubert.files import atomic_path
from avhubert.prepare.detectors.selection import LandmarkSource
from avhubert.prepare.detectors.stored import Points, landmark_file, read_landmarks
from avhubert.prepare.mouth import crops, find_mouths
from avhubert.prepare.records import ClipResult
from avhubert.prepare.rejection import MAX_LENGTH_DIFFERENCE, FrameMonitor, check_clip, too_long


@dataclass(frozen=True)
class _Face:
    """A face that becomes a clip.

    Attributes:
        frames: Mouth frames uint8 [96, 96].
        share: Share of frames in which the face was detected.
        warnings: Messages for the user.
        copy: The frames are exactly those of the input file, which is copied.
    """

    frames: Iterable[np.ndarray]
    share: float = 1.0
    warnings: tuple[str, ...] = ()
    copy: bool = False


def prepare_clip(
    clip: SourceClip,
    dst: Path,
    max_seconds: float = MAX_CLIP_SECONDS,
    landmarks: LandmarkSource | None = None,
    streams: StreamChoice = AUTOMATIC,
) -> ClipResult:
    """Write DST/video/ID.mp4 and DST/audio/ID.wav of a clip, or return why it is rejected. Runs in a worker."""
    landmarks = landmarks or LandmarkSource()
    fingerprint = input_fingerprint(clip, landmarks, streams)
    damage = DamageLog()
    try:
        media = probe(clip.path, streams, damage)
        audio_path = _check_header(clip, media, max_seconds)
        # the header can be wrong: never read more than can be used
        latest = clip.start + max_seconds + 1 if clip.end is None else clip.end
        audio_streams = streams if audio_path == clip.path else AUTOMATIC
        samples = read_audio(audio_path, clip.start, latest, audio_streams, damage)
        monitor = FrameMonitor(round(max_seconds * FRAME_RATE))
        if (media.width, media.height) == (MOUTH_SIZE, MOUTH_SIZE):
            faces = [_existing_mouth_clip(clip, media, monitor, streams, damage)]
        else:
            faces = _find_faces(clip, monitor, samples, landmarks, streams, damage)
        check_clip(monitor, faces[0].share, len(samples) / SAMPLE_RATE)
        samples = samples[: monitor.frames * SAMPLES_PER_FRAME]
        for name, face in zip(face_ids(clip.id, len(faces)), faces, strict=True):
            _write(face, samples, clip.path, *media_paths(dst, name))
    except MediaError as error:
        return ClipResult(clip.id, Rejection.from_error(clip.id, error, clip.path), fingerprint=fingerprint)
    return ClipResult(
        clip.id,
        frames=monitor.frames,
        samples=len(samples),
        face_share=faces[0].share,
        warnings=(*damage.sentences(), *faces[0].warnings),
        fingerprint=fingerprint,
        other_face_shares=tuple(face.share for face in faces[1:]),
    )


def _check_header(clip: SourceClip, media: MediaInfo, max_seconds: float) -> Path:
    """Check what is known before anything is decoded; the path of the audio: the video itself or a .wav beside it."""
    if not media.has_video:
        raise MediaError("no video track", kind="no video track")
    audio_path = clip.path if media.has_audio else clip.path.with_suffix(".wav")
    if not audio_path.is_file():
        raise MediaError("no audio track", kind="no audio track")
    length = (media.duration_seconds if clip.end is None else clip.end) - clip.start
    if clip.end is None and length > max_seconds + MAX_LENGTH_DIFFERENCE:  # the header may be wrong
        length = content_seconds(clip.path) - clip.start
    if length > max_seconds + MAX_LENGTH_DIFFERENCE:
        raise too_long(max_seconds)
    return audio_path


def _existing_mouth_clip(
    clip: SourceClip, media: MediaInfo, monitor: FrameMonitor, streams: StreamChoice, damage: DamageLog
) -> _Face:
    """An input of 96 × 96 pixels: it is a mouth clip already."""
    source = read_frames(clip.path, clip.start, clip.end, streams, damage)
    frames = [rgb_to_gray(frame) for frame in monitor.watch(source)]
    whole = clip.start == 0 and clip.end is None and not damage
    return _Face(frames, copy=whole and clip.path.suffix == ".mp4" and media.fps == FRAME_RATE)


def _find_faces(
    clip: SourceClip,
    monitor: FrameMonitor,
    samples: np.ndarray,
    landmarks: LandmarkSource,
    streams: StreamChoice,
    damage: DamageLog,
) -> list[_Face]:
    """The faces, the speaker's first. If there is none because the video is black or frozen, MediaError says so."""
    points = _stored_points(clip, landmarks.folder) if landmarks.kind == "stored" else None
    try:
        mouths = find_mouths(
            clip.path, clip.start, clip.end, landmarks.model(), monitor, samples, points, streams=streams, damage=damage
        )
    except MediaError as error:
        problem = monitor.problem() if monitor.finished else None
        if problem is not None:
            raise problem from error
        raise
    return [
        _Face(crops(clip.path, mouth, clip.start, clip.end, streams), mouth.face_share, mouth.warnings)
        for mouth in (mouths if clip.every_face else mouths[:1])
    ]


def _write(face: _Face, samples: np.ndarray, source: Path, video: Path, audio: Path) -> None:
    for path in (video, audio):
        path.parent.mkdir(parents=True, exist_ok=True)
    if face.copy:
        with atomic_path(video) as temporary:
            shutil.copyfile(source, temporary)
    else:
        write_video(video, face.frames)
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
    """Changes when the inputs of a clip change: the video, its streams, the landmark file, the kind of detector."""
    files = [clip.path]
    if landmarks.kind == "stored" and (file := landmark_file(landmarks.folder, [clip.id, _video_id(clip)])):
        files.append(file)
    suffix = {"default": "", "stored": "-landmarks", "dlib": "-dlib"}[landmarks.kind]
    for kind, position in (("a", streams.audio), ("v", streams.video)):
        suffix += "" if position is None else f"-{kind}{position}"
    return "-".join(f"{status.st_size}-{status.st_mtime_ns}" for status in (file.stat() for file in files)) + suffix
