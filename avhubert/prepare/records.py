"""What a preparation passes between its parts: the outcome of a clip, and the summary."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Done:
    """What became of a source clip. `reason` is empty for a usable one."""

    id: str
    reason: str = ""
    frames: int = 0
    samples: int = 0
    found_share: float = 0.0
    warnings: tuple[str, ...] = ()
    source: str = ""  # size and time of the input and of its landmarks: a changed one is done again
    others: tuple[float, ...] = ()  # found_share of the other faces that became clips


@dataclass(frozen=True)
class Summary:
    """How a preparation ended."""

    usable: int
    rejected: Counter = field(default_factory=Counter)  # reason → count
    directories: tuple[Path, ...] = ()
    waiting_for: int = 0  # clips of other shards
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.usable} clips are ready"]
        if self.rejected:
            lines.append(f"{self.rejected.total()} inputs were left out, each named in rejected.tsv:")
            lines += [f"  {count} × {reason}" for reason, count in self.rejected.most_common()]
        if self.waiting_for:
            lines.append(f"manifests wait for {self.waiting_for} clips of other shards")
        lines += [*self.notes, *(f"data directory: {directory}" for directory in self.directories)]
        return "\n".join(lines)
