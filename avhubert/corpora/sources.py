"""What a corpus passes to preparation: source clips with their text, and rejected inputs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unicodedata import category

from avhubert.constants import FRAME_RATE
from avhubert.corpora.alignments import SILENCE, SILENCES, read_alignment
from avhubert.corpora.alignments import SUFFIX as ALIGNMENT_SUFFIX
from avhubert.data.discovery import (
    AUDIO_EXTENSIONS,
    VIDEO_EXTENSIONS,
    Recordings,
    Skipped,
    describe_skipped,
    find_recordings,
)
from avhubert.encoding import read_text
from avhubert.errors import AvhubertError, DataError

_NOT_IN_IDS = frozenset(("Cc", "Cs", "Zl", "Zp"))  # categories of characters


@dataclass(frozen=True)
class SourceClip:
    """A video, or a part of one, that becomes a clip.

    Attributes:
        id: Unique name: a path with '/' and without suffix.
        path: The video file.
        split: The split that the corpus assigns; '' if preparation draws it.
        start: Seconds from the start of the video.
        end: Seconds from the start of the video; None: until its end.
        text: The transcript; None if the corpus has none.
        phones: File of true labels with times: phones of the synthetic corpus (JSON), words of GRID (`.align`).
        every_face: Whether faces other than the active speaker's become clips too.
        speaker: Who speaks; '' if unknown.
        audio: Audio file for a video without an audio track; None: a .wav beside the video, if there is one.
        expected_frames: Number of frames of every video of the corpus; a clip of another length gets a warning.
        spoken_until: Seconds from the start of the clip until which words of the transcript are spoken; a clip that
            ends before is rejected.
    """

    id: str
    path: Path
    split: str
    start: float = 0.0
    end: float | None = None
    text: str | None = None
    phones: Path | None = None
    every_face: bool = False
    speaker: str = ""
    audio: Path | None = None
    expected_frames: int | None = None
    spoken_until: float = 0.0


@dataclass(frozen=True)
class Rejection:
    """An input that cannot be used.

    Attributes:
        id: Id of the clip, or the name of the file if it does not become a clip.
        reason: The reason in one line, for the user.
        kind: The reason without names and numbers; rejections are counted by it.
        is_input: False for a file or folder that is named but does not count as an input, such as a file with an
            unknown extension.
    """

    id: str
    reason: str
    kind: str
    is_input: bool = True

    @classmethod
    def from_error(cls, identifier: str, error: AvhubertError, path: Path | None = None) -> Rejection:
        """The rejection that an error means; in its reason, 'the file' replaces the path of the clip's own video."""
        reason = error.with_path_as("the file") if path is not None and error.path == path else str(error)
        reason = clip_id(" ".join(reason.split()))
        return cls(identifier, reason, error.kind or reason)


class Listing(NamedTuple):
    """The contents of a corpus: clips to prepare, and inputs that are rejected before they are read."""

    clips: list[SourceClip]
    rejections: list[Rejection]


def list_videos(folder: Path) -> list[Path]:
    """All video files below `folder`, sorted. DataError if it is not a folder."""
    return find_videos(folder).files


def find_videos(folder: Path) -> Recordings:
    """All video files below `folder`, and what was skipped there. DataError if it is not a folder."""
    require_folder(folder)
    return _without_companions(find_recordings(folder, VIDEO_EXTENSIONS))


def find_sources(folder: Path, modality: str) -> Recordings:
    """The files below `folder` that can become clips of a modality: videos and, for 'a' and 'any', audio files.

    DataError if it is not a folder.
    """
    if modality not in ("a", "any"):
        return find_videos(folder)
    require_folder(folder)
    return _without_companions(find_recordings(folder))


def require_folder(folder: Path) -> None:
    """DataError if it is not a folder."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name the folder that holds the videos", path=folder)


def _without_companions(found: Recordings) -> Recordings:
    """The same without audio files that are the audio of a video beside them."""
    videos = {path.with_suffix("") for path in found.files if path.suffix.lower() in VIDEO_EXTENSIONS}
    found.files = [path for path in found.files if not _is_audio_of(path, videos)]
    found.skipped = [item for item in found.skipped if not _is_audio_of(item.path, videos)]
    return found


def _is_audio_of(path: Path, videos: set[Path]) -> bool:
    """Whether a file is the audio of a video beside it: a video without an audio track has its audio there."""
    return path.suffix.lower() in AUDIO_EXTENSIONS and path.with_suffix("") in videos


def _skipped(skipped: Sequence[Skipped], src: Path) -> list[Rejection]:
    """Skipped files as rejections; their names start below `src`."""
    return [
        Rejection(clip_id(item.path.relative_to(src).as_posix()), item.reason, item.reason, is_input=False)
        for item in skipped
    ]


def clip_id(name: str) -> str:
    """An id from a path: bytes that are not text, control characters and line separators become %XX."""
    return "".join(character if category(character) not in _NOT_IN_IDS else _percent(character) for character in name)


def _percent(character: str) -> str:
    """The bytes of a character; a byte that is not text is a lone surrogate in Python."""
    errors = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", errors))


def read_ids(path: Path) -> set[str]:
    """Ids of videos from a list, one per line: paths below the corpus; a video suffix is removed."""
    lines = (line.strip() for line in read_text(path).text.splitlines())
    ids = {
        line[: -len(suffix)] if (suffix := Path(line).suffix).lower() in VIDEO_EXTENSIONS else line
        for line in lines
        if line
    }
    if not ids:
        raise DataError(f"{path} contains no ids; write one per line", path=path)
    return ids


def phone_file(video: Path) -> Path | None:
    """The file of phone times beside a video of the synthetic corpus; None for other videos."""
    path = video.with_suffix(".phones.json")
    return path if os.path.isfile(path) else None  # Path.is_file() fails where a name becomes too long


def phones_per_frame(path: Path, frames: int, start: float = 0.0) -> list[str]:
    """The phone or word at the middle of each 25 Hz frame from `start` seconds on; 'sil' where there is none."""
    row = [SILENCE] * frames
    for name, first, last in _timed_labels(path):
        for frame in range(frames):
            if first <= start + (frame + 0.5) / FRAME_RATE < last:
                row[frame] = name
    return row


def _timed_labels(path: Path) -> list[tuple[str, float, float]]:
    """The true labels of a file with their start and end in seconds."""
    if path.suffix.lower() == ALIGNMENT_SUFFIX:
        return [(word.text, word.start, word.end) for word in read_alignment(path) if word.text not in SILENCES]
    phones = json.loads(path.read_text(encoding="utf-8"))
    return [(phone["phone"], phone["start"], phone["end"]) for phone in phones]


def require_clips(
    clips: Iterable[SourceClip], rejections: list[Rejection], src: Path, missing: str, skipped: Sequence[Skipped] = ()
) -> Listing:
    """The listing of the corpus `src`. DataError if it has no clips; `missing` names what it lacks."""
    listing = Listing(list(clips), [*rejections, *_skipped(skipped, src)])
    if listing.clips:
        return listing
    if rejections:
        first = rejections[0].reason
        raise DataError(f"none of the {len(rejections)} videos of {src} can be used; the first: {first}", path=src)
    raise DataError("; ".join([f"{src} contains {missing}", *describe_skipped(skipped, src)]), path=src)
