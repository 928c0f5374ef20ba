"""Transcripts of a folder of videos: subtitles or a text beside a video, or one table transcripts.csv."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from avhubert.config.command_defaults import STALL_SECONDS
from avhubert.corpora.cuts import LONGEST_SECONDS
from avhubert.corpora.subtitles import BadCue, Cue, Subtitles, clock_seconds, parse, within
from avhubert.data.text import normalise_text
from avhubert.data.video import probe
from avhubert.encoding import read_text
from avhubert.errors import DataError, MediaError, list_names
from avhubert.processes import Caller, Failure

_log = logging.getLogger(__name__)

CUE_GAP_SECONDS = 0.4  # subtitles with a shorter gap between them are joined
SUBTITLE_SUFFIXES = (".srt", ".vtt", ".sbv", ".ass", ".ssa")
# files with one of these endings look like transcripts, such as talk.en.vtt or talk.eaf for talk.mp4
UNREAD_SUFFIXES = frozenset((*SUBTITLE_SUFFIXES, ".ttml", ".sub", ".smi", ".lrc", ".textgrid", ".eaf", ".docx", ".rtf"))
TABLES = ("transcripts.csv", "transcripts.tsv")
DELIMITERS = ",;\t|"
MARKED_UP = {"{\\rtf": "RTF", "<!doctype html": "HTML", "<html": "HTML"}  # by the beginning of a .txt that is not text


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


@dataclass(frozen=True)
class Transcript:
    """The transcript of a video.

    Attributes:
        pieces: The transcribed pieces.
        bad: Cues that cannot be used.
    """

    pieces: list[Piece]
    bad: list[BadCue] = field(default_factory=list)


def name_key(name: str) -> str:
    """A file name as it is compared: macOS decomposes accents, Windows writes backslashes and ignores case."""
    # where Python decodes names as ASCII, they contain bytes of UTF-8
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    name = unicodedata.normalize("NFC", name).strip().replace("\\", "/").lower()
    return name.removeprefix("./")


class TranscriptReader:
    """Reads the transcripts beside videos, and counts files that are not Unicode.

    It is a context manager, because the headers of videos are read in a process of its own.

    Args:
        stall_seconds: A header is given up if it is not read after so long.
    """

    def __init__(self, stall_seconds: float = STALL_SECONDS) -> None:
        self._caller = Caller(stall_seconds)
        self._names: dict[Path, dict[str, Path]] = {}  # of each folder, by `name_key`
        self._unread: dict[Path, dict[str, Path]] = {}  # of each folder: files of UNREAD_SUFFIXES by stem
        self._notes: list[str] = []
        self._guessed: dict[str, list[str]] = {}  # file names by encoding

    def __enter__(self) -> TranscriptReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._caller.close()

    def read(self, video: Path) -> Transcript | None:
        """The pieces of a video from the transcript beside it; None if there is no transcript.

        Raises:
            DataError: The transcript cannot be read or has no text.
        """
        path = self._beside(video, ".txt")
        for suffix in SUBTITLE_SUFFIXES:
            subtitle = self._beside(video, suffix)
            if subtitle is not None:
                subtitles = parse(self.content(subtitle))
                if subtitles.cues or subtitles.bad or path is None:
                    return self._transcript(subtitle, subtitles, video)
        if path is None:
            self._note_unread(video)
            return None
        content = self.content(path).strip()
        for beginning, form in MARKED_UP.items():
            if content.lower().startswith(beginning):
                kind = f"{form} instead of plain text"
                raise DataError(f"{path.name} is {form}, not plain text; save it as plain text", kind=kind, path=path)
        # a transcript in LRS3's format has its text in the first line
        first_line = content.splitlines()[0] if content else ""
        if first_line.startswith("Text:"):
            return Transcript([Piece(text=normalise_text(first_line.removeprefix("Text:")) or None)])
        subtitles = parse(content)
        if subtitles.cues or subtitles.bad:
            return self._transcript(path, subtitles, video)
        return Transcript([Piece(text=normalise_text(content) or None)])

    def _beside(self, video: Path, suffix: str) -> Path | None:
        """The file NAME.srt or NAME.mp4.srt of a video NAME.mp4, in any case of letters and any form of accents."""
        path = video.with_suffix(suffix)
        if os.path.isfile(path):  # Path.is_file() fails where a name becomes too long
            return path
        if video.parent not in self._names:
            self._names[video.parent] = {name_key(path.name): path for path in sorted(video.parent.iterdir())}
        names = self._names[video.parent]
        found = names.get(name_key(f"{video.stem}{suffix}")) or names.get(name_key(f"{video.name}{suffix}"))
        return found if found is not None and found.is_file() else None

    def _note_unread(self, video: Path) -> None:
        """Remember a file that looks like the transcript of a video and is none that is read."""
        if video.parent not in self._unread:
            stems: dict[str, Path] = {}
            for path in self._names[video.parent].values():
                if path.suffix.lower() in UNREAD_SUFFIXES:
                    stems |= {name_key(path.stem): path, name_key(Path(path.stem).stem): path}
            self._unread[video.parent] = stems
        if unread := self._unread[video.parent].get(name_key(video.stem)):
            self._notes.append(unread.name)

    def content(self, path: Path) -> str:
        """The text of a file; files whose encoding is guessed are counted."""
        decoded = read_text(path, path.name)
        if decoded.is_guess:
            self._guessed.setdefault(decoded.encoding, []).append(path.name)
        return decoded.text.replace("\ufeff", "")

    def report(self) -> None:
        """Log the files whose encoding was guessed, and those that look like transcripts and are not read."""
        if self._notes:
            _log.warning(
                "%d videos have no transcript, but a file beside them that is not read (%s); name subtitles as the "
                "video (talk.srt for talk.mp4), or save other files as .srt, .vtt or .txt",
                *(len(self._notes), list_names(self._notes)),
            )
        for encoding, names in sorted(self._guessed.items()):
            _log.warning(
                "%d transcripts are not UTF-8 and were read as %s (%s); convert them to UTF-8 if their text is wrong",
                *(len(names), encoding, list_names(names)),
            )

    def _transcript(self, path: Path, subtitles: Subtitles, video: Path) -> Transcript:
        seconds = self._caller.call(partial(seconds_of, video))
        subtitles = within(subtitles, None if isinstance(seconds, Failure) else seconds)
        pieces = joined(subtitles.cues)
        if not pieces:
            if subtitles.bad:
                bad = subtitles.bad[0]
                raise DataError(f"the subtitles {path.name}: {bad.reason}", kind=bad.kind, path=path)
            raise DataError(f"the subtitles {path.name} hold no text", kind="empty subtitles", path=path)
        return Transcript(pieces, subtitles.bad)


def seconds_of(video: Path) -> float | None:
    """The length of a video by its header; None if that does not say it."""
    try:
        return probe(video).duration_seconds or None
    except MediaError:
        return None  # preparation reports the reason


def joined(cues: Sequence[Cue]) -> list[Piece]:
    """Cues with text as pieces; those with a gap under 0.4 s between them are joined, up to 15 s."""
    pieces: list[Piece] = []
    for cue in cues:
        text = cue.text
        before = pieces[-1] if pieces else None
        if not text:
            continue
        if before is None or before.end is None or not _join(before.start, before.end, cue):
            pieces.append(Piece(cue.start, cue.end, text))
        else:
            end = None if cue.end is None else max(before.end, cue.end)
            pieces[-1] = Piece(before.start, end, f"{before.text} {text}")
    return pieces


def _join(start: float, end: float, cue: Cue) -> bool:
    return cue.start - end < CUE_GAP_SECONDS and (cue.end is not None and cue.end - start <= LONGEST_SECONDS)


# --------------------------------------------------------------------------- table
def find_table(folder: Path) -> Path | None:
    """The table of transcripts in a folder, in any case of letters; None if there is none."""
    paths = {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True) if path.is_file()}
    table = next((paths[name] for name in TABLES if name in paths), None)
    sheets = [
        path.name for name, path in paths.items() if name.startswith("transcripts.xls") or name == "transcripts.ods"
    ]
    if table is None and sheets:
        _log.warning("%s is not read; save it as transcripts.csv", sheets[0])
    return table


def read_table(path: Path, content: str) -> dict[str, list[Piece]]:
    """Pieces by file name, from a table with the columns file, text and optionally start, end.

    The columns are separated by commas, semicolons, tabs or bars; times are seconds or H:MM:SS.

    Raises:
        DataError: The columns or a line are wrong; the message names the line.
    """
    header, delimiter = "", ","
    for line in content.lstrip().splitlines()[:2]:
        if separator := re.fullmatch(r"\"?sep=(.)\"?", line.strip()):  # Excel's own first line
            content = content.lstrip()[len(line) :].lstrip("\r\n")
            delimiter = separator[1]
            continue
        header = line
        break
    content = content.replace('\\"', '""')  # a quote as programs write it, and as csv does
    delimiter = max(DELIMITERS, key=lambda character: (header.count(character), character == delimiter))
    rows = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)
    try:
        columns = [name.strip().lower() for name in next(rows, [])]
        if not {"file", "text"} <= set(columns):
            raise DataError(
                f"{path} must begin with a line that names its columns: file,text or file,text,start,end", path=path
            )
        pieces: dict[str, list[Piece]] = {}
        for cells in rows:
            if any(cell.strip() for cell in cells):
                row = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
                pieces.setdefault(row["file"], []).append(_table_piece(row, f"{path}, line {rows.line_num}", path))
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: {error}; write the table again as csv", path=path) from error
    return pieces


def _table_piece(row: dict[str, str], where: str, path: Path) -> Piece:
    try:
        start, end = (clock_seconds(row.get(name) or "") for name in ("start", "end"))
    except ValueError as error:
        raise DataError(f"{where}: start and end must be numbers of seconds or H:MM:SS", path=path) from error
    text = normalise_text(re.sub(r"\\[nrt]", " ", row.get("text", "")))
    if not row["file"] or not text or (end is not None and end <= (start or 0)):
        raise DataError(f"{where}: needs a file, a text, and an end after its start", path=path)
    return Piece(start or 0.0, end, text)
