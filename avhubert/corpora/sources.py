"""What every corpus gives to preparation: clips to cut, with their text, and what could not be used."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from avhubert.constants import FRAME_RATE
from avhubert.errors import DataError

VIDEO_SUFFIXES = frozenset((".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"))


@dataclass(frozen=True)
class SourceClip:
    """A piece of a video to prepare.

    id: unique, with '/' between folder names, no suffix; start, end: seconds in the video (None: to its end);
    text: what is said, None where the corpus has none; phones: a JSON of true phone times, synthetic corpus only;
    every_face: whether other faces than the speaker's become clips too.
    """

    id: str
    path: Path
    split: str
    start: float = 0.0
    end: float | None = None
    text: str | None = None
    phones: Path | None = None
    every_face: bool = False


@dataclass(frozen=True)
class Rejected:
    """An input that is left out, and why."""

    id: str
    reason: str


def videos(folder: Path) -> list[Path]:
    """All video files below `folder`, sorted. DataError if it isn't a folder."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name the folder that holds the videos")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())


def read_text(path: Path) -> str:
    """Text of a small file beside the videos; DataError if it can't be read or isn't UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text; convert it") from error


def read_ids(path: Path) -> set[str]:
    """Ids of videos, one a line: paths below the corpus without suffix (one that is there is dropped)."""
    lines = (line.strip() for line in read_text(path).splitlines())
    ids = {line[: -len(suffix)] if (suffix := Path(line).suffix) in VIDEO_SUFFIXES else line for line in lines if line}
    if not ids:
        raise DataError(f"{path} names no ids; it must hold one a line")
    return ids


def phone_file(video: Path) -> Path | None:
    """The phone times beside a video of the synthetic corpus."""
    path = video.with_suffix(".phones.json")
    return path if path.is_file() else None


def phones_per_frame(path: Path, frames: int, start: float = 0.0) -> list[str]:
    """The phone at the middle of each 25 Hz frame from `start` seconds on; 'sil' where there is none."""
    row = ["sil"] * frames
    for phone in json.loads(path.read_text(encoding="utf-8")):
        for frame in range(frames):
            if phone["start"] <= start + (frame + 0.5) / FRAME_RATE < phone["end"]:
                row[frame] = phone["phone"]
    return row


def some(clips: Iterable[SourceClip], src: Path, what: str) -> list[SourceClip]:
    """The clips as a list; DataError if there are none."""
    found = list(clips)
    if not found:
        raise DataError(f"{src} holds {what}")
    return found
