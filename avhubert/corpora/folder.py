"""Any tree of videos, with or without transcripts: `.txt`, `.srt` or `.vtt` beside a video, or one transcripts.csv."""

from __future__ import annotations

import re
from pathlib import Path

from avhubert.constants import SPLITS
from avhubert.corpora.cuts import cuts
from avhubert.corpora.sources import Rejected, SourceClip, phone_file, read_text, some, videos
from avhubert.corpora.transcripts import Piece, read_subtitles, read_table
from avhubert.data.text import normalise_text
from avhubert.errors import DataError

TABLE = "transcripts.csv"  # in the root: columns file, text and, for pieces of a video, start and end in seconds

FACE = re.compile(r"_face\d+$")  # the end of the name of another face's clip


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
