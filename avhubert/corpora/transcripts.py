"""Transcripts of a folder of videos: `.txt`, `.srt` or `.vtt` beside a video, or one table transcripts.csv."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from avhubert.corpora.cuts import LONGEST_SECONDS
from avhubert.corpora.sources import read_text
from avhubert.data.text import normalise_text
from avhubert.errors import DataError

CUE_GAP_SECONDS = 0.4  # subtitles with a shorter gap between them are joined
TIME = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)")


@dataclass(frozen=True)
class Piece:
    """A part of a video with its transcript.

    Attributes:
        start: Seconds from the start of the video.
        end: Seconds from the start of the video; None: until its end.
        text: The transcript; None if there is none.
    """

    start: float = 0.0
    end: float | None = None
    text: str | None = None


@dataclass(frozen=True, order=True)
class _Cue:
    """A subtitle: times in seconds."""

    start: float
    end: float
    text: str


def read_transcript(video: Path) -> list[Piece] | None:
    """The pieces of a video from the transcript beside it; None if there is no transcript."""
    for suffix in (".srt", ".vtt"):
        if video.with_suffix(suffix).is_file():
            return read_subtitles(video.with_suffix(suffix))
    path = video.with_suffix(".txt")
    if path.is_file():
        content = read_text(path).strip()
        # a transcript in LRS3's format has its text in the first line
        first_line = content.splitlines()[0] if content else ""
        text = normalise_text(first_line.removeprefix("Text:") if first_line.startswith("Text:") else content)
        return [Piece(text=text or None)]
    return None


def read_subtitles(path: Path) -> list[Piece]:
    """Pieces of a `.srt` or `.vtt`: cues with a gap under 0.4 s between them are joined, up to 15 s.

    Raises:
        DataError: The file is malformed or has no text.
    """
    blocks = re.split(r"\n\s*\n", read_text(path).replace("\r\n", "\n"))
    cues = [cue for block in blocks if (cue := _read_cue(path, block.strip().split("\n"))) is not None]
    if not cues:
        raise DataError(f"the subtitles {path.name} hold no text", kind="empty subtitles", path=path)
    joined: list[_Cue] = []
    for cue in sorted(cues):
        before = joined[-1] if joined else None
        if before and cue.start - before.end < CUE_GAP_SECONDS and cue.end - before.start <= LONGEST_SECONDS:
            joined[-1] = _Cue(before.start, max(before.end, cue.end), f"{before.text} {cue.text}")
        else:
            joined.append(cue)
    return [Piece(cue.start, cue.end, cue.text) for cue in joined]


def _read_cue(path: Path, lines: list[str]) -> _Cue | None:
    """The cue in a block of lines; None for a header, a note, a style or a cue without text."""
    index = next((i for i, line in enumerate(lines) if "-->" in line), None)
    if index is None:
        return None
    sides = [TIME.match(side.strip()) for side in lines[index].split("-->", 1)]
    if sides[0] is None or sides[1] is None:
        raise DataError(
            f"the subtitles {path.name}: '{lines[index]}' is not START --> END", kind="malformed subtitles", path=path
        )
    start, end = (_seconds(side) for side in sides if side)
    if end <= start:
        raise DataError(
            f"the subtitles {path.name}: '{lines[index]}' does not end after its start",
            kind="malformed subtitles",
            path=path,
        )
    text = normalise_text(re.sub(r"<[^>]*>|\{[^}]*\}", "", " ".join(lines[index + 1 :])))
    return _Cue(start, end, text) if text else None


def _seconds(time: re.Match[str]) -> float:
    hours, minutes, seconds = time.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))


def read_table(path: Path) -> dict[str, list[Piece]]:
    """Pieces by file, from a table with the columns file, text and optionally start, end.

    Raises:
        DataError: The columns or a line are wrong; the message names the line.
    """
    rows = csv.DictReader(read_text(path).lstrip("\ufeff").splitlines())
    if not {"file", "text"} <= set(rows.fieldnames or ()):
        raise DataError(
            f"{path} must begin with a line that names its columns: file,text or file,text,start,end", path=path
        )
    pieces: dict[str, list[Piece]] = {}
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        try:
            start, end = float(row.get("start") or 0), float(row["end"]) if row.get("end") else None
        except ValueError as error:
            raise DataError(f"{where}: start and end must be numbers of seconds", path=path) from error
        if not row["file"] or not row["text"] or start < 0 or (end is not None and end <= start):
            raise DataError(f"{where}: needs a file, a text, and an end after its start", path=path)
        pieces.setdefault(row["file"], []).append(Piece(start, end, normalise_text(row["text"])))
    return pieces
