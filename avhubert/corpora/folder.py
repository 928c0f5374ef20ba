"""Any tree of videos, with or without transcripts; long videos without a transcript are cut."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avhubert.config.command_defaults import STALL_SECONDS
from avhubert.constants import SPLITS
from avhubert.corpora.cuts import Cut, cut_long_videos
from avhubert.corpora.sources import (
    Listing,
    Rejection,
    SourceClip,
    clip_id,
    find_sources,
    phone_file,
    require_clips,
)
from avhubert.corpora.transcripts import Piece, TranscriptReader, find_table, name_key, read_table
from avhubert.data.media import AUTOMATIC, StreamChoice
from avhubert.errors import DataError
from avhubert.files import fitting_name
from avhubert.processes import Failure

FACE = re.compile(r"_face\d+$")  # the end of the id of another face's clip


@dataclass(frozen=True)
class _Video:
    """A usable video: its path below the root with '/', and its transcribed pieces (None: no transcript)."""

    path: Path
    name: str
    pieces: list[Piece] | None

    @property
    def stem(self) -> str:
        return self.name.removesuffix(self.path.suffix)


class _Ids:
    """Unique clip ids."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def unique(self, name: str) -> str:
        """`name` as a clip id, with underscores appended until it is unused and no id of another face's clip."""
        folders, slash, last = clip_id(name).rpartition("/")
        name = f"{folders}{slash}{fitting_name(last)}"
        while name in self._used or FACE.search(name):
            name += "_"
        self._used.add(name)
        return name


def find(
    src: str | Path,
    modality: str = "av",
    streams: StreamChoice = AUTOMATIC,
    stall_seconds: float = STALL_SECONDS,
) -> Listing:
    """All recordings below `src`, long ones in pieces, and those whose name or transcript cannot be used.

    Clips below train/, valid/ or test/ have that split, all others have '' (preparation draws their splits).

    Args:
        src: The folder.
        modality: The streams of the clips: audio files are recordings too for 'a' and 'any'.
        streams: Which of several audio or video streams decide where a long recording is cut.
        stall_seconds: A recording is rejected if nothing of it is decoded for so long.

    Raises:
        DataError: `src` is not a folder, or contains no videos; transcripts.csv is malformed.
    """
    src = Path(src)
    found = find_sources(src, modality)
    ids = _Ids()
    rejections: list[Rejection] = []
    with TranscriptReader(stall_seconds) as reader:
        table = _Table(src, reader)
        videos = _videos(src, found.files, reader, table, ids, rejections)
    reader.report()
    cuts = cut_long_videos([video.path for video in videos if video.pieces is None], modality, streams, stall_seconds)
    clips = _clips(videos, cuts, ids, rejections)
    rejections += table.rest()
    missing = "no videos" if modality in ("av", "v") else "no recordings"
    return require_clips(clips, rejections, src, missing, found.skipped)


def _videos(
    src: Path, paths: Sequence[Path], reader: TranscriptReader, table: _Table, ids: _Ids, rejections: list[Rejection]
) -> list[_Video]:
    """The usable videos with their transcripts; the others, and cues that cannot be used, are added to `rejections`."""
    videos: list[_Video] = []
    for path in paths:
        name = path.relative_to(src).as_posix()
        stem = clip_id(name.removesuffix(path.suffix))
        try:
            pieces = table.take(name)
            transcript = None if pieces else reader.read(path)
        except DataError as error:
            rejections.append(Rejection.from_error(ids.unique(stem), error))
            continue
        videos.append(_Video(path, name, pieces or (transcript and transcript.pieces) or None))
        for bad in transcript.bad if transcript else []:
            rejections.append(Rejection(f"{stem}, {bad.where}", bad.reason, bad.kind))
    return videos


class _Table:
    """The table of transcripts of a folder, if there is one; videos take their pieces out of it."""

    def __init__(self, folder: Path, reader: TranscriptReader) -> None:
        self._path = find_table(folder)
        self._pieces = read_table(self._path, reader.content(self._path)) if self._path else {}
        self._names: dict[str, list[str]] = {}  # names in the table by how they are compared
        root = name_key(str(folder.absolute())) + "/"
        for name in self._pieces:
            self._names.setdefault(name_key(name).removeprefix(root), []).append(name)

    def take(self, video: str) -> list[Piece]:
        """The pieces of a video; the table can name it with or without its extension. Empty: it does not name it."""
        if video in self._pieces:
            return self._pieces.pop(video)
        keys = (name_key(video), name_key(video.removesuffix(Path(video).suffix)))
        names = next((self._names[key] for key in keys if key in self._names), [])
        return [piece for name in names for piece in self._pieces.pop(name, [])]

    def rest(self) -> list[Rejection]:
        """The rejections of what no video has taken."""
        reason = f"{self._path.name if self._path else ''} names it, but there is no such video"
        return [Rejection(clip_id(name), reason, reason) for name in sorted(self._pieces)]


def _clips(
    videos: list[_Video], cuts: Mapping[Path, list[Cut] | Failure], ids: _Ids, rejections: list[Rejection]
) -> list[SourceClip]:
    """The clips of all videos; videos that cannot be cut are added to `rejections`."""
    clips = []
    for video in videos:
        whole: list[Cut] = [(0.0, None)]
        pieces_of_video = cuts.get(video.path, whole)
        if isinstance(pieces_of_video, Failure):
            rejections.append(Rejection(ids.unique(video.stem), pieces_of_video.reason, pieces_of_video.kind))
            continue
        pieces = video.pieces or [Piece(start, end) for start, end in pieces_of_video]
        top_folder = video.name.split("/")[0]
        split = top_folder if top_folder in SPLITS else ""
        for number, piece in enumerate(pieces):
            identifier = ids.unique(video.stem if len(pieces) == 1 else f"{video.stem}_{number:03d}")
            phones = phone_file(video.path)
            clips.append(
                SourceClip(identifier, video.path, split, piece.start, piece.end, piece.text, phones, every_face=True)
            )
    return clips
