"""Any tree of videos, with or without transcripts; long videos without a transcript are cut."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from avhubert.constants import SPLITS
from avhubert.corpora.cuts import cut_long_videos
from avhubert.corpora.sources import (
    Listing,
    Rejection,
    SourceClip,
    escaped,
    find_videos,
    phone_file,
    require_clips,
)
from avhubert.corpora.transcripts import Piece, read_table, read_transcript
from avhubert.errors import DataError

TABLE = "transcripts.csv"  # in the root: columns file, text and, for pieces of a video, start and end in seconds
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
        """`name`, with underscores appended until it is unused and no id of another face's clip."""
        while name in self._used or FACE.search(name):
            name += "_"
        self._used.add(name)
        return name


def find(src: str | Path) -> Listing:
    """All videos below `src`, long ones in pieces, and those whose name or transcript cannot be used.

    Clips below train/, valid/ or test/ have that split, all others have '' (preparation draws their splits).

    Raises:
        DataError: `src` is not a folder, or contains no videos; transcripts.csv is malformed.
    """
    src = Path(src)
    found = find_videos(src)
    table = read_table(src / TABLE) if (src / TABLE).is_file() else {}
    ids = _Ids()
    videos: list[_Video] = []
    rejections: list[Rejection] = []
    for path in found.files:
        name = path.relative_to(src).as_posix()
        if escaped(name) != name:
            reason = "its name holds a tab, a line break or what is not Unicode; rename it"
            rejections.append(Rejection(escaped(name), reason, reason))
            continue
        try:
            videos.append(_Video(path, name, table.pop(name, None) or read_transcript(path)))
        except DataError as error:
            rejections.append(Rejection.from_error(ids.unique(name.removesuffix(path.suffix)), error))
    clips = _clips(videos, ids)
    reason = f"{TABLE} names it, but there is no such video"
    rejections += [Rejection(name, reason, reason) for name in sorted(table)]
    return require_clips(clips, rejections, src, "no videos", found.skipped)


def _clips(videos: list[_Video], ids: _Ids) -> list[SourceClip]:
    cuts = cut_long_videos([video.path for video in videos if video.pieces is None])
    clips = []
    for video in videos:
        pieces = video.pieces or [Piece(start, end) for start, end in cuts.get(video.path, [(0.0, None)])]
        top_folder = video.name.split("/")[0]
        split = top_folder if top_folder in SPLITS else ""
        for number, piece in enumerate(pieces):
            identifier = ids.unique(video.stem if len(pieces) == 1 else f"{video.stem}_{number:03d}")
            phones = phone_file(video.path)
            clips.append(
                SourceClip(identifier, video.path, split, piece.start, piece.end, piece.text, phones, every_face=True)
            )
    return clips
