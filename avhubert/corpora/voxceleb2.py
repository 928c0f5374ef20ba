"""VoxCeleb2: `dev/` and `test/` trees of mp4 files without text, and a list of the English clips."""

from __future__ import annotations

import re
from pathlib import Path

from avhubert.corpora.sources import Listing, SourceClip, clip_id, find_videos, read_ids, require_clips
from avhubert.errors import DataError

_SPEAKER = re.compile(r"id\d+")  # a folder such as id00012
ENGLISH_LIST = "english.txt"  # beside dev/ and test/; used if no other list is given


def find(src: str | Path, english_ids: Path | None = None) -> Listing:
    """All clips below `src`: split 'en' for those on the list `english_ids` or `english.txt`, 'other' for the rest.

    Raises:
        DataError: There are no videos, or the list of English ids is missing or none of its ids exists.
    """
    src = Path(src)
    path = english_ids or src / ENGLISH_LIST
    english = read_ids(path) if english_ids or path.is_file() else set()
    clips = []
    found = find_videos(src)
    for video in found.files:
        identifier = clip_id(video.relative_to(src).with_suffix("").as_posix())
        speaker = next((name for name in identifier.split("/")[:-1] if _SPEAKER.fullmatch(name)), "")
        clips.append(SourceClip(identifier, video, "en" if identifier in english else "other", speaker=speaker))
    listing = require_clips(clips, [], src, "no videos", found.skipped)
    if english and not any(clip.split == "en" for clip in clips):
        raise DataError(
            f"none of the {len(english)} ids of {path} is a video below {src}; ids are paths without suffix", path=path
        )
    return listing
