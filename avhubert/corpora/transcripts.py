"""Transcripts beside videos: subtitles, and the table transcripts.csv."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from avhubert.corpora.cuts import LONGEST_SECONDS
from avhubert.corpora.sources import read_text
from avhubert.data.text import normalise_text
from avhubert.errors import DataError

CUE_GAP_SECONDS = 0.4  # subtitles with a shorter gap between them belong together

TIME = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)")


@dataclass(frozen=True)
class Piece:
    """A piece of a video: seconds (None: to its end), and what is said there."""

    start: float = 0.0
    end: float | None = None
    text: str | None = None


# --------------------------------------------------------------------------- transcripts
def read_subtitles(path: Path) -> list[Piece]:
    """Pieces of a `.srt` or `.vtt`: cues with hardly a gap between them joined, up to 15 s. DataError if wrong."""
    cues: list[tuple[float, float, str]] = []
    for block in re.split(r"\n\s*\n", read_text(path).replace("\r\n", "\n")):
        lines = block.strip().split("\n")
        at = next((i for i, line in enumerate(lines) if "-->" in line), None)
        if at is None:  # the header, a note or a style
            continue
        times = [TIME.match(side.strip()) for side in lines[at].split("-->", 1)]
        if times[0] is None or times[1] is None:
            raise DataError(f"the subtitles {path.name}: '{lines[at]}' is not START --> END")
        start, end = (_seconds(time) for time in times if time)
        text = normalise_text(re.sub(r"<[^>]*>|\{[^}]*\}", "", " ".join(lines[at + 1 :])))
        if end <= start:
            raise DataError(f"the subtitles {path.name}: '{lines[at]}' does not end after its start")
        if text:
            cues.append((start, end, text))
    if not cues:
        raise DataError(f"the subtitles {path.name} hold no text")
    joined: list[tuple[float, float, str]] = []
    for start, end, text in sorted(cues):
        if joined and start - joined[-1][1] < CUE_GAP_SECONDS and end - joined[-1][0] <= LONGEST_SECONDS:
            before = joined.pop()
            start, end, text = before[0], max(before[1], end), f"{before[2]} {text}"
        joined.append((start, end, text))
    return [Piece(*one) for one in joined]


def _seconds(time: re.Match[str]) -> float:
    hours, minutes, seconds = time.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))


def read_table(path: Path) -> dict[str, list[Piece]]:
    """Pieces by file of a table with the columns file, text and perhaps start, end. DataError names a wrong line."""
    rows = csv.DictReader(read_text(path).lstrip("\ufeff").splitlines())
    if not {"file", "text"} <= set(rows.fieldnames or ()):
        raise DataError(f"{path} must begin with a line that names its columns: file,text or file,text,start,end")
    pieces: dict[str, list[Piece]] = {}
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        try:
            start, end = float(row.get("start") or 0), float(row["end"]) if row.get("end") else None
        except ValueError as error:
            raise DataError(f"{where}: start and end must be numbers of seconds") from error
        if not row["file"] or not row["text"] or start < 0 or (end is not None and end <= start):
            raise DataError(f"{where}: needs a file, a text, and an end after its start")
        pieces.setdefault(row["file"], []).append(Piece(start, end, normalise_text(row["text"])))
    return pieces
