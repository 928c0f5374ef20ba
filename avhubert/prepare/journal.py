"""The journal of a preparation, `DST/journal/I-of-N.jsonl`: one line per clip, so that a killed run can resume."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from avhubert.corpora.sources import Rejection, SourceClip
from avhubert.files import end_last_line, read_json_lines
from avhubert.prepare.records import ClipResult


@contextlib.contextmanager
def open_journal(dst: Path, shard: tuple[int, int]) -> Iterator[Callable[[ClipResult], None]]:
    """Yield a function that appends a result to the journal of a shard (index, count) and flushes it."""
    index, count = shard
    (dst / "journal").mkdir(exist_ok=True)
    path = dst / "journal" / f"{index}-of-{count}.jsonl"
    end_last_line(path)
    with open(path, "a", encoding="utf-8", newline="\n") as file:

        def append(result: ClipResult) -> None:
            file.write(json.dumps(_to_json(result), ensure_ascii=False) + "\n")
            file.flush()

        yield append


def read_journals(dst: Path, clips: Sequence[SourceClip]) -> dict[str, ClipResult]:
    """The latest result of every clip by id, from the journals of all shards.

    A rejection never replaces a success with the same inputs: another shard or an earlier run had the clip.
    A last line that is torn, because the run was killed while writing, is ignored.
    """
    wanted = {clip.id for clip in clips}
    results: dict[str, ClipResult] = {}
    for journal in sorted((dst / "journal").glob("*.jsonl")):
        for entry in read_json_lines(journal):
            if not isinstance(entry, dict):
                continue
            result = _from_json(entry)
            before = results.get(result.id)
            kept = before is not None and before.rejection is None and result.fingerprint in ("", before.fingerprint)
            if result.id in wanted and not (result.rejection is not None and kept):
                results[result.id] = result
    return results


# the keys are those of the first version, so that every journal stays readable
def _to_json(result: ClipResult) -> dict[str, Any]:
    return {
        "id": result.id,
        "reason": result.rejection.reason if result.rejection else "",
        "kind": result.rejection.kind if result.rejection else "",
        "frames": result.frames,
        "samples": result.samples,
        "found_share": result.face_share,
        "warnings": result.warnings,
        "source": result.fingerprint,
        "others": result.other_face_shares,
        "largest_step": result.largest_step,
        **({"cut": result.cut} if result.cut else {}),
    }


def _from_json(entry: dict[str, Any]) -> ClipResult:
    reason = entry["reason"]
    cut = entry.get("cut")
    # entries without a kind are of an earlier version: its reasons began with the kind
    kind = entry.get("kind") or reason.split(" (", 1)[0].split(": ", 1)[0]
    return ClipResult(
        id=entry["id"],
        rejection=Rejection(entry["id"], reason, kind) if reason else None,
        frames=entry["frames"],
        samples=entry["samples"],
        face_share=entry["found_share"],
        warnings=tuple(entry["warnings"]),
        fingerprint=entry["source"],
        other_face_shares=tuple(entry.get("others", ())),
        largest_step=entry.get("largest_step", 0.0),
        cut=(cut[0], cut[1]) if cut else None,
    )
