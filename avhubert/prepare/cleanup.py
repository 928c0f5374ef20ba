"""Removes temporary files that a killed run left."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

TEMPORARY = re.compile(r"\.(?P<stem>.+)\.\w{8}\.part(?P<suffix>\.\w+)")  # the name of a file that is being written


def remove_leftovers(files: Iterable[Path]) -> None:
    """Remove what a killed run left of these files under their temporary names; called before any worker starts."""
    wanted = set(files)
    for place in {path.parent for path in wanted}:
        for found in place.glob(".*.part.*"):
            match = TEMPORARY.fullmatch(found.name)
            if match and place / (match["stem"] + match["suffix"]) in wanted:
                found.unlink(missing_ok=True)
