"""Who speaks in the recordings of a folder: a table `speakers.tsv`, or the names of folders."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from avhubert.constants import SPLITS
from avhubert.corpora.sources import Listing, Rejection, SourceClip, clip_id
from avhubert.corpora.transcripts import name_key
from avhubert.encoding import read_text
from avhubert.errors import DataError

_log = logging.getLogger(__name__)

SPEAKERS_TABLE = "speakers.tsv"  # in the folder of the recordings; used if no other table is given
BY_FOLDER = "folders"  # `--speakers folders`
UNUSED = "the table of speakers names it, but there is no such video or folder"


def with_speakers(listing: Listing, src: Path, speakers: str | Path | None) -> Listing:
    """The listing of the folder `src` with the speaker of every clip that is known.

    Args:
        listing: The clips.
        src: The folder.
        speakers: 'folders': each folder directly in `src`, or in its train/, valid/ or test/, is one speaker. Else a
            table with lines PATH, tab, SPEAKER, where PATH is a recording or a folder below `src`; the longest path
            that fits a recording counts. None: `src`/speakers.tsv, if it exists.

    Raises:
        DataError: The table cannot be read or is malformed.
    """
    if speakers == BY_FOLDER:
        return Listing([replace(clip, speaker=_folder_name(clip, src)) for clip in listing.clips], listing.rejections)
    path = src / SPEAKERS_TABLE if speakers is None else Path(speakers)
    if speakers is None and not path.is_file():
        return listing
    table = _read_table(path, src)
    used: set[str] = set()
    clips = [replace(clip, speaker=_look_up(table, clip, src, used)) for clip in listing.clips]
    unused = [Rejection(clip_id(name), UNUSED, UNUSED, is_input=False) for name in sorted(set(table) - used)]
    unknown = sum(not clip.speaker for clip in clips)
    if unknown:
        _log.warning("%s names no speaker of %d of %d clips", path, unknown, len(clips))
    return Listing(clips, [*listing.rejections, *unused])


def _folder_name(clip: SourceClip, src: Path) -> str:
    folders = clip.path.relative_to(src).parts[:-1]
    if folders and folders[0] in SPLITS:
        folders = folders[1:]
    return clip_id(folders[0]).replace("\t", " ") if folders else ""


def _read_table(path: Path, src: Path) -> dict[str, str]:
    """Speakers by path below `src`, as paths are compared."""
    table: dict[str, str] = {}
    root = name_key(str(src.absolute())) + "/"
    for number, line in enumerate(read_text(path, path.name).text.splitlines(), 1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 2 or not all(fields):
            raise DataError(
                f"{path}, line {number}: '{line}' is not a recording or folder, a tab, and its speaker", path=path
            )
        name, speaker = fields
        key = name_key(name).removeprefix(root).rstrip("/")
        if table.setdefault(key, speaker) != speaker:
            raise DataError(f"{path}, line {number}: '{name}' has two speakers; remove one line", path=path)
    table.pop("file", None)  # the names of the columns
    return table


def _look_up(table: Mapping[str, str], clip: SourceClip, src: Path, used: set[str]) -> str:
    """The speaker of the recording, else of its nearest folder; '' if the table names neither."""
    path = clip.path.relative_to(src)
    for name in (path, path.with_suffix(""), *path.parents):
        key = name_key(name.as_posix())
        if key in table:
            used.add(key)
            return table[key]
    return ""
