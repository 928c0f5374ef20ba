"""The corpora that `avhubert prepare` reads, by name. A new corpus needs a function `find` and an entry here.

Which data directories and splits a corpus gets is decided in `avhubert.prepare.splits`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from avhubert.config.command_defaults import STALL_SECONDS
from avhubert.corpora import folder, grid, lrs3, voxceleb2
from avhubert.corpora.sources import Listing
from avhubert.corpora.speakers import with_speakers
from avhubert.data.media import AUTOMATIC, StreamChoice
from avhubert.errors import ConfigError, DataError, one_of

CORPORA: dict[str, Callable[..., Listing]] = {
    "lrs3": lrs3.find,
    "vox2": voxceleb2.find,
    "grid": grid.find,
    "folder": folder.find,
}


def check_corpus(
    corpus: str, valid_list: Path | None, english_ids: Path | None, speakers: str | Path | None = None
) -> None:
    """Check that the corpus exists and that the lists belong to it.

    Raises:
        DataError: The corpus is unknown.
        ConfigError: A list or table is for another corpus.
    """
    if corpus not in CORPORA:
        raise DataError(one_of("corpus", corpus, CORPORA))
    options: tuple[tuple[str, str | Path | None, str], ...] = (
        ("--valid-list", valid_list, "lrs3"),
        ("--english-ids", english_ids, "vox2"),
        ("--speakers", speakers, "folder"),
    )
    for option, value, only in options:
        if value is not None and corpus != only:
            raise ConfigError(f"{option} is for the corpus {only}, not for {corpus}")


def find_clips(
    corpus: str,
    src: Path,
    english_ids: Path | None = None,
    modality: str = "av",
    streams: StreamChoice = AUTOMATIC,
    speakers: str | Path | None = None,
    stall_seconds: float = STALL_SECONDS,
) -> Listing:
    """The clips of the corpus at `src`, for clips with the streams of `modality`. DataError if there are none.

    `speakers` and `stall_seconds` are for the corpus folder, see `with_speakers` and `folder.find`.
    """
    if corpus == "folder":
        return with_speakers(folder.find(src, modality, streams, stall_seconds), src, speakers)
    if corpus == "grid":
        return grid.find(src, modality)
    find = CORPORA[corpus]
    return find(src) if english_ids is None else find(src, english_ids)
