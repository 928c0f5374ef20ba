"""Any tree of videos, with or without transcripts: `.txt`, `.srt` or `.vtt` beside a video, or one transcripts.csv."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avhubert.corpora.sources import Rejected, SourceClip, phone_file, read_text, some, videos
from avhubert.data.audio import SAMPLE_RATE, read_audio
from avhubert.data.text import normalise_text
from avhubert.data.video import probe
from avhubert.errors import DataError, MediaError

SPLITS = ("train", "valid", "test")
TABLE = "transcripts.csv"  # in the root: columns file, text and, for pieces of a video, start and end in seconds
LONGEST_SECONDS = 15.0  # a video without transcript that lasts longer is cut …
SHORTEST_SECONDS = 5.0  # … into pieces of this length and more …
WINDOW_SECONDS = 0.2  # … where this long a stretch is quietest
CUE_GAP_SECONDS = 0.4  # subtitles with a shorter gap between them belong together
BLOCK_SECONDS = 600  # of sound that is looked at in one go
LEVELS_PER_SECOND = 25
TIME = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)")


@dataclass(frozen=True)
class Piece:
    """A piece of a video: seconds (None: to its end), and what is said there."""

    start: float = 0.0
    end: float | None = None
    text: str | None = None


def find(src: str | Path) -> tuple[list[SourceClip], list[Rejected]]:
    """All videos below `src`, long ones in pieces, and those whose name or transcript can't be used.

    Those below train/, valid/ or test/ keep that split; the rest is '' (to be drawn).

    Raises:
        DataError: `src` isn't a folder, or holds no videos; transcripts.csv is wrong.
    """
    src = Path(src)
    found = videos(src)
    table = read_table(src / TABLE) if (src / TABLE).is_file() else {}
    clips: list[SourceClip] = []
    rejected: list[Rejected] = []
    taken: set[str] = set()

    def unused(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    for video in found:
        name = video.relative_to(src).as_posix()
        shown = name.encode("utf-8", "backslashreplace").decode().translate({9: "\\t", 10: "\\n", 13: "\\r"})
        if shown != name:
            rejected.append(Rejected(shown, "its name holds a tab, a line break or what is not Unicode; rename it"))
            continue
        listed = table.pop(name, None)
        identifier = name.removesuffix(video.suffix)
        try:
            pieces = listed or _pieces(video)
        except DataError as error:
            rejected.append(Rejected(unused(identifier), str(error)))
            continue
        top = name.split("/")[0]
        for number, piece in enumerate(pieces):
            one = unused(identifier if len(pieces) == 1 else f"{identifier}_{number:03d}")
            split = top if top in SPLITS else ""
            clips.append(SourceClip(one, video, split, piece.start, piece.end, piece.text, phone_file(video)))
    rejected += [Rejected(name, f"{TABLE} names it, but there is no such video") for name in sorted(table)]
    if not clips and rejected:
        raise DataError(f"none of the {len(rejected)} videos of {src} can be used; the first: {rejected[0].reason}")
    return some(clips, src, "no videos"), rejected


def _pieces(video: Path) -> list[Piece]:
    for suffix in (".srt", ".vtt"):
        if video.with_suffix(suffix).is_file():
            return read_subtitles(video.with_suffix(suffix))
    beside = video.with_suffix(".txt")
    if beside.is_file():
        written = read_text(beside).strip()
        # a transcript in LRS3's form keeps its text in the first line
        first = written.splitlines()[0] if written else ""
        text = normalise_text(first.removeprefix("Text:") if first.startswith("Text:") else written)
        return [Piece(text=text or None)]
    try:
        return [Piece(start, end) for start, end in cut_at_silences(video)]
    except MediaError:  # preparation will say why
        return [Piece()]


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


# --------------------------------------------------------------------------- long videos
def cut_at_silences(video: Path) -> list[tuple[float, float | None]]:
    """(start, end) in seconds of the pieces of a video, 5 to 15 s each, cut where it is quietest; one if it is short.

    Raises:
        MediaError: the video or its sound can't be read.
    """
    media = probe(video)
    if media.duration_seconds <= LONGEST_SECONDS or not media.has_audio or not media.has_video:
        return [(0.0, None)]
    step = SAMPLE_RATE // LEVELS_PER_SECOND
    levels: list[np.ndarray] = []
    start = 0
    while start < media.duration_seconds:
        try:
            samples = read_audio(video, start, start + BLOCK_SECONDS).astype(np.float32)
        except MediaError:
            if not levels:
                raise
            break  # the sound ends before the picture
        samples = samples[: len(samples) // step * step]
        levels.append(np.square(samples).reshape(-1, step).mean(1))
        start += BLOCK_SECONDS
    level = np.concatenate(levels)
    width = round(WINDOW_SECONDS * LEVELS_PER_SECOND)
    quiet = np.convolve(level, np.ones(width) / width, "same")
    cuts = [0.0]
    while media.duration_seconds - cuts[-1] > LONGEST_SECONDS:
        # what is left over must not be too short either
        latest = min(cuts[-1] + LONGEST_SECONDS, media.duration_seconds - SHORTEST_SECONDS)
        first, last = (round(time * LEVELS_PER_SECOND) for time in (cuts[-1] + SHORTEST_SECONDS, latest))
        part = quiet[first : last + 1]
        at = first + int(part.argmin()) if len(part) else last
        cuts.append(at / LEVELS_PER_SECOND)
    return list(zip(cuts, [*cuts[1:], None], strict=True))
