"""TensorBoard and Weights & Biases (train.trackers): they receive the rows of RUN/metrics.jsonl too."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from avhubert.errors import ConfigError
from avhubert.files import write_text

Write = Callable[[int, str, dict[str, float]], None]  # (step, split, metrics)


def open_loggers(names: Sequence[str], run_dir: Path, settings: dict[str, Any], step: int) -> list[Write]:
    """A function that writes metrics for each of `names`; a run that resumes after `step` resumes there too.

    Raises:
        ConfigError: the package of a logger is not installed.
    """
    makers = {"tensorboard": _tensorboard, "wandb": _wandb}
    loggers = []
    for name in names:
        try:
            loggers.append(makers[name](run_dir, settings, step))
        except ImportError as error:
            raise ConfigError(
                f"train.trackers={name} needs a package that is not installed: pip install 'avhubert[{name}]'"
            ) from error
    return loggers


def _tensorboard(run_dir: Path, settings: dict[str, Any], step: int) -> Write:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1 if step else None)

    def write(step: int, split: str, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(f"{split}/{name}", value, step)
        writer.flush()  # a run may be killed at any moment

    return write


def _wandb(run_dir: Path, settings: dict[str, Any], step: int) -> Write:
    import wandb

    mark = run_dir / "wandb_run"  # identifies the same run after a restart
    identity = mark.read_text(encoding="utf-8") if mark.exists() else secrets.token_hex(4)
    write_text(mark, identity)
    run = wandb.init(
        project="avhubert", name=run_dir.name, dir=str(run_dir), id=identity, resume="allow", config=settings
    )
    run.define_metric("*", step_metric="step")

    def write(step: int, split: str, metrics: dict[str, float]) -> None:
        run.log({"step": step, **{f"{split}/{name}": value for name, value in metrics.items()}})

    return write
