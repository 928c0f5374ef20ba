"""The journal of a preparation: one line per finished clip, so that a killed run can resume."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from avhubert.corpora.sources import SourceClip
from avhubert.prepare.records import Done


def read_journals(dst: Path, clips: Sequence[SourceClip]) -> dict[str, Done]:
    """The last record of every clip; a torn last line (killed while writing) doesn't count."""
    wanted = {clip.id for clip in clips}
    found: dict[str, Done] = {}
    for journal in sorted((dst / "journal").glob("*.jsonl")):
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                kept = json.loads(line)
            except ValueError:
                continue
            if kept["id"] in wanted and not (kept["reason"] and kept["id"] in found and not found[kept["id"]].reason):
                found[kept["id"]] = Done(
                    **{**kept, "warnings": tuple(kept["warnings"]), "others": tuple(kept.get("others", ()))}
                )
    return found
