"""The training log, RUN/metrics.jsonl, and the warning about jumps of the loss."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from avhubert.constants import FRAME_RATE
from avhubert.files import read_json_lines, write_text
from avhubert.train.run_dir import Run
from avhubert.train.state import Counters
from avhubert.train.task import MetricSums, Task

SPIKE = 2.0  # a loss above this multiple of its recent mean gets a warning


def log_training(run: Run, task: Task, counters: Counters, rate: float) -> dict[str, float]:
    """Write a line of training metrics and start a new interval; returns the metrics."""
    sums = counters.sums.over_ranks(run.fabric)
    metrics = task.metrics(sums) if sums else {}  # empty if all steps were skipped
    seconds = max(counters.interval_seconds, 1e-9)
    speed = counters.frames / seconds
    metrics |= {
        "lr": rate,
        "frames_per_second": speed,
        "video_seconds_per_second": speed / FRAME_RATE,
    }
    metrics |= {"utilisation": speed * run.operations_per_frame / run.operations_per_second}
    metrics |= {"waiting": counters.waiting / seconds}
    metrics |= {"skipped": counters.skipped} if counters.skipped else {}
    metrics |= {"bad_clips": len(counters.bad)} if counters.bad else {}
    write_log(run, counters, "train", metrics)
    counters.sums, counters.frames, counters.interval_seconds, counters.waiting = MetricSums(), 0, 0.0, 0.0
    loss = metrics.get("loss", math.nan)
    if loss > SPIKE * counters.mean_loss:
        run.say(
            f"warning: step {counters.step}: the loss jumped to {loss:.4g}, {loss / counters.mean_loss:.1f} times its "
            "recent mean; if it stays there, lower optimizer.lr and resume from an older state"
        )
    counters.mean_loss = loss if math.isnan(counters.mean_loss) else 0.8 * counters.mean_loss + 0.2 * loss
    return metrics


def write_log(run: Run, counters: Counters, split: str, metrics: dict[str, float]) -> None:
    """Append a line to RUN/metrics.jsonl and pass it to the loggers."""
    if run.fabric.is_global_zero:
        row: dict[str, Any] = {"step": counters.step, "split": split, **metrics, "seconds": round(counters.seconds, 3)}
        row = {name: value for name, value in row.items() if not (isinstance(value, float) and math.isnan(value))}
        with open(run.directory / "metrics.jsonl", "a", encoding="utf-8", newline="\n") as log:
            log.write(json.dumps(row) + "\n")
        logged = {name: value for name, value in row.items() if name not in ("step", "split")}
        for write in run.loggers:
            write(counters.step, split, logged)


def truncate_log(path: Path, step: int) -> None:
    """Remove lines after `step`, from which the run resumes, and a line that a kill truncated."""
    rows = [row for row in read_json_lines(path) if isinstance(row, dict)] if path.exists() else []
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows if row.get("step", step + 1) <= step))
