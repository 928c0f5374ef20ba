"""Reads RUN/metrics.jsonl, the log of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avhubert.files import read_json_lines


@dataclass(frozen=True)
class TrainingLog:
    """The lines of metrics.jsonl.

    Attributes:
        rows: The lines in order; each has `step`, `split`, and metrics by name.
        unreadable: Number of damaged lines; the last one may be incomplete while the run writes it.
    """

    rows: list[dict[str, Any]]
    unreadable: int

    @property
    def step(self) -> int:
        """The step of the last line; 0 if there is none."""
        return self.rows[-1]["step"] if self.rows else 0

    def of_split(self, split: str) -> list[dict[str, Any]]:
        """The lines of a split, 'train' or 'valid'."""
        return [row for row in self.rows if row.get("split") == split]

    def last(self, split: str) -> dict[str, Any]:
        """The last line of a split; empty if there is none."""
        rows = self.of_split(split)
        return rows[-1] if rows else {}

    def series(self, split: str, metric: str) -> tuple[list[float], list[float]]:
        """The steps and the values of a metric."""
        rows = [row for row in self.of_split(split) if metric in row]
        return [row["step"] for row in rows], [row[metric] for row in rows]


def read_log(run_dir: Path) -> TrainingLog:
    """The log of a run directory; without lines if the run has not written any."""
    path = run_dir / "metrics.jsonl"
    rows, unreadable = [], 0
    for row in read_json_lines(path) if path.is_file() else []:
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
        else:
            unreadable += 1
    return TrainingLog(rows, unreadable)
