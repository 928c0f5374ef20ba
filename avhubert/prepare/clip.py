"""One source clip to a mouth clip: mouth video, audio, or the reason why the clip is rejected."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avhubert.config.defaults import MAX_CLIP_SECONDS
from avhubert.constants import FRAME_RATE, MOUTH_SIZE, SAMPLE_RATE, SAMPLES_PER_FRAME
from avhubert.corpora.sources import SourceClip
from avhubert.data.audio import read_audio, write_wav
from avhubert.data.video import probe, read_frames, rgb_to_gray, write_video
from avhubert.errors import MediaError
from avhubert.files import atomic_path
from avhubert.prepare.records import Done
from avhubert.prepare.rejection import MAX_LENGTH_DIFFERENCE, Watch, check, too_long

if TYPE_CHECKING:
    from avhubert.prepare.mouth import MouthTrack


# --------------------------------------------------------------------------- one clip
def prepare_clip(
    clip: SourceClip, dst: Path, max_seconds: float = MAX_CLIP_SECONDS, landmarks: str | Path | None = None
) -> Done:
    """Write DST/video/ID.mp4 and DST/audio/ID.wav, or say why not. Runs in a worker."""
    from avhubert.prepare.mouth import crops

    source = fingerprint(clip, landmarks)
    try:
        media = probe(clip.path)
        if not media.has_video:
            raise MediaError("no video track")
        sound = clip.path if media.has_audio else clip.path.with_suffix(".wav")
        if not sound.is_file():
            raise MediaError("no audio track")
        length = (media.duration_seconds if clip.end is None else clip.end) - clip.start
        if length > max_seconds + MAX_LENGTH_DIFFERENCE:  # known from the header, before anything is decoded
            raise MediaError(too_long(max_seconds))
        # a header may lie: no more is read than may be used
        latest = clip.start + max_seconds + 1 if clip.end is None else clip.end
        samples = read_audio(sound, clip.start, latest)
        watch = Watch(round(max_seconds * FRAME_RATE))
        is_crop = (media.width, media.height) == (MOUTH_SIZE, MOUTH_SIZE)  # a mouth clip already: taken as it is
        whole_crop = is_crop and clip.start == 0 and clip.end is None
        mouths: list[MouthTrack] = []
        shown: list[Iterable[np.ndarray]] = []
        if is_crop:
            shown = [[rgb_to_gray(picture) for picture in watch.over(read_frames(clip.path, clip.start, clip.end))]]
        else:
            mouths = _watched(clip, watch, samples, landmarks)
            shown = [crops(clip.path, mouth, clip.start, clip.end) for mouth in mouths]
        shares = [mouth.found_share for mouth in mouths] or [1.0]
        frames = watch.frames
        check(watch, shares[0], len(samples) / SAMPLE_RATE)
        samples = samples[: frames * SAMPLES_PER_FRAME]
        for name, pictures in zip(face_ids(clip.id, len(shown)), shown, strict=True):
            video, audio = media_paths(dst, name)
            for path in (video, audio):
                path.parent.mkdir(parents=True, exist_ok=True)
            if whole_crop and clip.path.suffix == ".mp4" and media.fps == FRAME_RATE:
                with atomic_path(video) as temporary:
                    shutil.copyfile(clip.path, temporary)
            else:
                write_video(video, pictures)
            write_wav(audio, samples)
    except MediaError as error:
        return Done(clip.id, _without_path(str(error), clip.path), source=source)
    warnings = mouths[0].warnings if mouths else ()
    return Done(clip.id, "", frames, len(samples), shares[0], warnings, source, tuple(shares[1:]))


def face_ids(identifier: str, faces: int) -> list[str]:
    """Ids of a source clip's faces: the speaker's has its own."""
    return [identifier, *(f"{identifier}_face{number}" for number in range(2, faces + 1))]


def _watched(clip: SourceClip, watch: Watch, samples: np.ndarray, landmarks: str | Path | None) -> list[MouthTrack]:
    """The mouths, or MediaError; where no face is found because the picture is black or frozen, it says that."""
    from avhubert.prepare.mouth import find_mouths

    points = model = None
    if landmarks is not None:
        if models := dlib_folder(landmarks):
            from avhubert.prepare.detectors.dlib import dlib68

            model = dlib68(models)
        else:
            points = _stored(clip, Path(landmarks))
    try:
        found = find_mouths(clip.path, clip.start, clip.end, model, watch, samples, points)
        return found if clip.every_face else found[:1]
    except MediaError as error:
        if watch.finished and watch.fault():
            raise MediaError(watch.fault()) from error
        raise


def dlib_folder(landmarks: str | Path) -> Path | None:
    """The folder of dlib's model files, if they are to find the landmarks."""
    kind, _, folder = str(landmarks).partition(":")
    return Path(folder) if kind == "dlib" else None


def _stored(clip: SourceClip, folder: Path) -> list[np.ndarray | None]:
    """The clip's landmarks: a file of its own, or its part of the whole video's."""
    from avhubert.prepare.detectors.stored import landmark_file, read_landmarks

    whole = _whole_video(clip)
    if clip.id == whole or landmark_file(folder, [clip.id]):
        return read_landmarks(folder, [clip.id])
    first = round(clip.start * FRAME_RATE)
    return read_landmarks(folder, [whole])[first : None if clip.end is None else round(clip.end * FRAME_RATE)]


def _whole_video(clip: SourceClip) -> str:
    """The name that the landmarks of the clip's whole video have."""
    return (Path(clip.id).parent / clip.path.stem).as_posix()


def media_paths(dst: Path, identifier: str) -> tuple[Path, Path]:
    """Where a clip's mouth video and sound are."""
    return dst / "video" / f"{identifier}.mp4", dst / "audio" / f"{identifier}.wav"


def _without_path(reason: str, path: Path) -> str:
    """A reason that begins with its kind, so that reasons can be counted."""
    return " ".join(reason.replace(str(path), "the file").split())


def fingerprint(clip: SourceClip, landmarks: str | Path | None) -> str:
    """What tells whether the inputs of a clip are those that it was made from."""
    files, kind = [clip.path], ""
    if landmarks is not None:
        from avhubert.prepare.detectors.stored import landmark_file

        kind = "-landmarks"
        if dlib_folder(landmarks):
            kind = "-dlib"
        elif file := landmark_file(Path(landmarks), [clip.id, _whole_video(clip)]):
            files.append(file)
    return "-".join(f"{found.st_size}-{found.st_mtime_ns}" for found in (file.stat() for file in files)) + kind
