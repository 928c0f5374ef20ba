"""Any tree of videos, with or without transcripts: `.txt`, `.srt` or `.vtt` beside a video, or one transcripts.csv."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avhubert.constants import SAMPLE_RATE, SPLITS
from avhubert.corpora.sources import Rejected, SourceClip, phone_file, read_text, some, videos
from avhubert.data.audio import read_audio
from avhubert.data.text import normalise_text
from avhubert.data.video import probe, thumbnails
from avhubert.errors import DataError, MediaError
from avhubert.files import cache_directory, write_text
from avhubert.report import progress

TABLE = "transcripts.csv"  # in the root: columns file, text and, for pieces of a video, start and end in seconds
LONGEST_SECONDS = 15.0  # a video without transcript that lasts longer is cut between scenes, and a longer scene …
SHORTEST_SECONDS = 5.0  # … into pieces of this length and more …
WINDOW_SECONDS = 0.2  # … where this long a stretch is quietest
THUMBNAIL = 32  # pixels of the side of the pictures in which scenes are told apart
SCENE_CHANGE = 12.0  # mean change in gray levels from frame to frame that may be a new scene …
SCENE_RATIO = 4.0  # … if it exceeds what is usual so many times as well
CUTTING = 1  # counts up when the above changes, so that cuts in the cache are made again
CUE_GAP_SECONDS = 0.4  # subtitles with a shorter gap between them belong together
BLOCK_SECONDS = 600  # of sound that is looked at in one go
LEVELS_PER_SECOND = 25
FACE = re.compile(r"_face\d+$")  # the end of the name of another face's clip
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
    named: list[tuple[Path, str, list[Piece] | None]] = []  # video, its name, what is said where

    def unused(name: str) -> str:
        while name in taken or FACE.search(name):
            name += "_"
        taken.add(name)
        return name

    for video in found:
        name = video.relative_to(src).as_posix()
        shown = name.encode("utf-8", "backslashreplace").decode().translate({9: "\\t", 10: "\\n", 13: "\\r"})
        if shown != name:
            rejected.append(Rejected(shown, "its name holds a tab, a line break or what is not Unicode; rename it"))
            continue
        identifier = name.removesuffix(video.suffix)
        try:
            named.append((video, name, table.pop(name, None) or _transcribed(video)))
        except DataError as error:
            rejected.append(Rejected(unused(identifier), str(error)))
    long = cuts([video for video, _, pieces in named if pieces is None])
    for video, name, said in named:
        identifier = name.removesuffix(video.suffix)
        pieces = said or [Piece(start, end) for start, end in long.get(video, [(0.0, None)])]
        top = name.split("/")[0]
        for number, piece in enumerate(pieces):
            one = unused(identifier if len(pieces) == 1 else f"{identifier}_{number:03d}")
            split = top if top in SPLITS else ""
            clips.append(
                SourceClip(one, video, split, piece.start, piece.end, piece.text, phone_file(video), every_face=True)
            )
    rejected += [Rejected(name, f"{TABLE} names it, but there is no such video") for name in sorted(table)]
    if not clips and rejected:
        raise DataError(f"none of the {len(rejected)} videos of {src} can be used; the first: {rejected[0].reason}")
    return some(clips, src, "no videos"), rejected


def _transcribed(video: Path) -> list[Piece] | None:
    """What the files beside a video say of it; None if there are none."""
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
    return None


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
def cuts(videos: Sequence[Path]) -> dict[Path, list[tuple[float, float | None]]]:
    """`cut` of each video that is long, several at a time; kept in the user's cache, since it reads the whole video.

    Videos that cannot be read are not in it: preparation will say why.
    """
    long = [video for video in videos if _is_long(video)]
    if not long:
        return {}
    found = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress() as bar:  # decoding needs no interpreter
        task = bar.add_task("cutting long videos", total=len(long), unit="videos")
        for video, pieces in zip(long, pool.map(_kept_cut, long), strict=True):
            bar.advance(task)
            if pieces is not None:
                found[video] = pieces
    return found


def _is_long(video: Path) -> bool:
    try:
        media = probe(video)
    except MediaError:
        return False
    return media.has_video and media.duration_seconds > LONGEST_SECONDS


def _kept_cut(video: Path) -> list[tuple[float, float | None]] | None:
    status = video.stat()
    name = hashlib.sha256(f"{CUTTING} {video.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    kept = cache_directory("cuts") / f"{name[:32]}.json"
    if kept.is_file():
        return [(start, end) for start, end in json.loads(kept.read_text(encoding="utf-8"))]
    try:
        pieces = cut(video)
    except MediaError:
        return None
    write_text(kept, json.dumps(pieces))
    return pieces


def cut(video: Path) -> list[tuple[float, float | None]]:
    """(start, end) in seconds of the pieces of a long video; the last one's end is None.

    Cut at every change of scene; a scene of more than 15 s also where its sound is quietest, into pieces of 5 to 15 s.
    Memory is that of a few frames and 25 figures a second.

    Raises:
        MediaError: the video or its sound can't be read.
    """
    media = probe(video)
    scenes, length = _scenes(video)
    quiet = _quietness(video, max(length, media.duration_seconds)) if media.has_audio else np.zeros(0)
    starts: list[float] = []
    for start, end in itertools.pairwise([*scenes, length]):
        starts.append(start)
        while end - starts[-1] > LONGEST_SECONDS:
            # what is left over must not be too short either
            latest = min(starts[-1] + LONGEST_SECONDS, end - SHORTEST_SECONDS)
            first, last = (round(time * LEVELS_PER_SECOND) for time in (starts[-1] + SHORTEST_SECONDS, latest))
            part = quiet[first : last + 1]
            at = first + int(part.argmin()) if len(part) else last
            starts.append(at / LEVELS_PER_SECOND)
    return list(zip(starts, [*starts[1:], None], strict=True))


def _scenes(video: Path) -> tuple[list[float], float]:
    """Seconds at which scenes begin, the first at 0, and the video's length.

    A new scene changes most of the picture at once: by far more than the frames just before it did.
    """
    begins, last, usual = [0.0], 0.0, 0.0
    before: np.ndarray | None = None
    for time, picture in thumbnails(video, THUMBNAIL):
        now = picture.astype(np.int16)
        if before is not None:
            change = float(np.abs(now - before).mean())
            if change > SCENE_CHANGE + SCENE_RATIO * usual and time > begins[-1]:
                begins.append(round(time, 3))
            else:
                usual += (change - usual) / LEVELS_PER_SECOND
        before, last = now, time
    return begins, last + 1 / LEVELS_PER_SECOND


def _quietness(video: Path, seconds: float) -> np.ndarray:
    """Power of the sound, mean over 0.2 s, 25 figures a second."""
    step = SAMPLE_RATE // LEVELS_PER_SECOND
    levels: list[np.ndarray] = []
    start = 0
    while start < seconds:
        try:
            samples = read_audio(video, start, start + BLOCK_SECONDS).astype(np.float32)
        except MediaError:
            if not levels:
                raise
            break  # the sound ends before the picture
        samples = samples[: len(samples) // step * step]
        levels.append(np.square(samples).reshape(-1, step).mean(1))
        start += BLOCK_SECONDS
    width = round(WINDOW_SECONDS * LEVELS_PER_SECOND)
    return np.convolve(np.concatenate(levels), np.ones(width) / width, "same")
