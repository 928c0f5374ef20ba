"""VoxCeleb2: `dev/` and `test/` trees of mp4 files, no text; a list of the English ones."""

from __future__ import annotations

from pathlib import Path

from avhubert.corpora.sources import Rejected, SourceClip, read_ids, some, videos
from avhubert.errors import DataError

ENGLISH_LIST = "english.txt"  # beside dev/ and test/, unless another list is named


def find(src: str | Path, english_ids: Path | None = None) -> tuple[list[SourceClip], list[Rejected]]:
    """All clips below `src`; split 'en' for those on the list `english_ids` or `english.txt`, 'other' for the rest.

    Raises:
        DataError: no videos, or an English list that is missing or none of whose ids exist.
    """
    src = Path(src)
    listed = english_ids or src / ENGLISH_LIST
    english = read_ids(listed) if english_ids or listed.is_file() else set()
    clips = []
    for video in videos(src):
        identifier = video.relative_to(src).with_suffix("").as_posix()
        clips.append(SourceClip(identifier, video, "en" if identifier in english else "other"))
    found = some(clips, src, "no videos")
    if english and not any(clip.split == "en" for clip in found):
        raise DataError(
            f"none of the {len(english)} ids of {listed} is a video below {src}; ids are paths without suffix"
        )
    return found, []
