"""The journal of pseudo-labelling: one transcript per line, so that an interrupted run resumes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

JOURNAL = "pseudo-labels.jsonl"


@dataclass(frozen=True)
class Heard:
    """What a recognizer heard in a clip: mean log-probability of its tokens (`</s>` too), or why there is nothing."""

    id: str
    text: str = ""
    confidence: float = -math.inf
    problem: str = ""


def journal_line(heard: Heard) -> str:
    return json.dumps(asdict(heard), ensure_ascii=False) + "\n"


def read_journal(path: Path) -> Iterator[Heard]:
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            yield Heard(**json.loads(line))
        except ValueError:  # a line that a kill cut short: its clip is done again
            continue
