"""Sums of losses and metrics, and the training log."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

from avhubert.constants import FRAME_RATE
from avhubert.files import write_text
from avhubert.train.run_dir import Run
from avhubert.train.state import Counters
from avhubert.train.task import Sums, Task

SPIKE = 2.0  # times its recent mean: a loss worth a warning


# --------------------------------------------------------------------------- log, validation, saving
def log_training(run: Run, task: Task, counters: Counters, rate: float) -> dict[str, float]:
    """Write a line of the training log and begin a new interval."""
    sums = counters.sums.over_ranks(run.fabric)
    figures = task.figures(sums) if sums else {}  # none: all of its steps were skipped
    seconds = max(counters.interval_seconds, 1e-9)
    pace = counters.frames / seconds
    figures |= {"lr": rate, "frames_per_second": pace, "video_seconds_per_second": pace / FRAME_RATE}
    figures |= {"utilisation": pace * run.operations_per_frame / run.operations_per_second}
    figures |= {"waiting": counters.waiting / seconds}
    figures |= {"skipped": counters.skipped} if counters.skipped else {}
    figures |= {"bad_clips": len(counters.bad)} if counters.bad else {}
    write_log(run, counters, "train", figures)
    counters.sums, counters.frames, counters.interval_seconds, counters.waiting = Sums(), 0, 0.0, 0.0
    loss = figures.get("loss", math.nan)
    if loss > SPIKE * counters.mean_loss:
        run.say(
            f"warning: step {counters.step}: the loss jumped to {loss:.4g}, {loss / counters.mean_loss:.1f} times its "
            "recent mean; if it stays there, lower optimizer.lr and go on from an older state"
        )
    counters.mean_loss = loss if math.isnan(counters.mean_loss) else 0.8 * counters.mean_loss + 0.2 * loss
    return figures


def write_log(run: Run, counters: Counters, split: str, figures: dict[str, float]) -> None:
    if run.fabric.is_global_zero:
        row: dict[str, Any] = {"step": counters.step, "split": split, **figures, "seconds": round(counters.seconds, 3)}
        row = {name: value for name, value in row.items() if not (isinstance(value, float) and math.isnan(value))}
        with open(run.directory / "metrics.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        shown = {name: value for name, value in row.items() if name not in ("step", "split")}
        for write in run.trackers:
            write(counters.step, split, shown)


def truncate_log(path: Path, step: int) -> None:
    """Drop what was logged after `step`, which the run goes on from, and a line that a kill cut short."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    write_text(path, "".join(kept))
