"""TensorBoard and Weights & Biases, by choice (train.trackers): what goes to RUN/metrics.jsonl goes there too."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from avhubert.errors import ConfigError
from avhubert.files import write_text

Write = Callable[[int, str, dict[str, float]], None]  # (step, split, figures)


def open_trackers(names: Sequence[str], run_dir: Path, settings: dict[str, Any], step: int) -> list[Write]:
    """Something to write figures with for each of `names`; a run that goes on after `step` goes on there too.

    Raises ConfigError for a tracker that is not installed.
    """
    makers = {"tensorboard": _tensorboard, "wandb": _wandb}
    found = []
    for name in names:
        try:
            found.append(makers[name](run_dir, settings, step))
        except ImportError as error:
            raise ConfigError(
                f"train.trackers={name} needs a package that is not here: pip install 'avhubert[{name}]'"
            ) from error
    return found


def _tensorboard(run_dir: Path, settings: dict[str, Any], step: int) -> Write:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1 if step else None)

    def write(step: int, split: str, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(f"{split}/{name}", value, step)
        writer.flush()  # a run may be killed at any moment

    return write


def _wandb(run_dir: Path, settings: dict[str, Any], step: int) -> Write:
    import wandb

    mark = run_dir / "wandb_run"  # by which the same run is found after a restart
    identity = mark.read_text(encoding="utf-8") if mark.exists() else secrets.token_hex(4)
    write_text(mark, identity)
    run = wandb.init(
        project="avhubert", name=run_dir.name, dir=str(run_dir), id=identity, resume="allow", config=settings
    )
    run.define_metric("*", step_metric="step")

    def write(step: int, split: str, figures: dict[str, float]) -> None:
        run.log({"step": step, **{f"{split}/{name}": value for name, value in figures.items()}})

    return write
