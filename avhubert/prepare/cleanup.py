"""Removes temporary files that a killed run left."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from avhubert.files import TEMPORARY, temporary_stem


def remove_leftovers(files: Iterable[Path]) -> None:
    """Remove the temporary files of these files; to be called before any worker starts."""
    targets = {path.with_name(temporary_stem(path) + path.suffix) for path in files}
    for folder in {path.parent for path in targets}:
        for temporary in folder.glob(".*.part.*"):
            match = TEMPORARY.fullmatch(temporary.name)
            if match and folder / (f"{match['stem']}{match['suffix'] or ''}") in targets:
                temporary.unlink(missing_ok=True)


def remove_directory_leftovers(dst: Path) -> None:
    """Remove the temporary files of the output folder and its data directories; only if no other shard is running."""
    for temporary in (*dst.glob(".*.part.*"), *dst.glob("*/.*.part.*")):
        temporary.unlink(missing_ok=True)
