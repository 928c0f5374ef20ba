"""The journal of pseudo-labelling: one transcript per line, so that an interrupted run resumes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from avhubert.files import read_json_lines

JOURNAL = "pseudo-labels.jsonl"


@dataclass(frozen=True)
class PseudoLabel:
    """The transcript of a clip by a recognizer.

    Attributes:
        id: of the clip.
        text: the transcript.
        confidence: see `Hypothesis.confidence`.
        problem: why the transcript cannot be used; empty if it can.
    """

    id: str
    text: str = ""
    confidence: float = -math.inf
    problem: str = ""


def journal_line(label: PseudoLabel) -> str:
    """A line of the journal."""
    return json.dumps(asdict(label), ensure_ascii=False) + "\n"


def read_journal(path: Path) -> Iterator[PseudoLabel]:
    """The transcripts in a journal; a line that is incomplete, because the run was interrupted, is skipped."""
    for entry in read_json_lines(path) if path.exists() else []:
        if isinstance(entry, dict):
            yield PseudoLabel(**entry)
