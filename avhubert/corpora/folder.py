"""Any tree of videos; a `.txt` beside a video is its transcript."""

from __future__ import annotations

from pathlib import Path

from avhubert.corpora.sources import Rejected, SourceClip, phone_file, some, videos
from avhubert.data.text import normalise_text

SPLITS = ("train", "valid", "test")


def find(src: str | Path) -> tuple[list[SourceClip], list[Rejected]]:
    """All videos below `src`. Those below train/, valid/ or test/ keep that split; the rest is '' (to be drawn).

    Raises:
        DataError: `src` isn't a folder, or holds no videos.
    """
    src = Path(src)
    clips = []
    for video in videos(src):
        identifier = video.relative_to(src).with_suffix("").as_posix()
        beside = video.with_suffix(".txt")
        text = None
        if beside.is_file():
            written = beside.read_text(encoding="utf-8", errors="replace").strip()
            # a transcript in LRS3's form keeps its text in the first line
            first = written.splitlines()[0] if written else ""
            text = normalise_text(first.removeprefix("Text:") if first.startswith("Text:") else written) or None
        top = identifier.split("/")[0]
        clips.append(SourceClip(identifier, video, top if top in SPLITS else "", 0.0, None, text, phone_file(video)))
    return some(clips, src, "no videos"), []
