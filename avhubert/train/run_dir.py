"""A run directory: lock, saved settings, state to resume from."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from omegaconf import OmegaConf

from avhubert.config.schema import FinetuneConfig, PretrainConfig
from avhubert.config.validate import flatten, from_dict
from avhubert.errors import ConfigError
from avhubert.files import lock_directory, output_directory
from avhubert.train import distributed
from avhubert.train.loggers import Write
from avhubert.train.state import load_newest, remove_leftovers

MAY_CHANGE = {  # keys that may change when a run is resumed: length, bookkeeping, and what does not affect results
    *("train.max_steps", "train.save_every", "train.log_every", "train.keep_last", "train.validate_every"),
    *("run_dir", "data.workers", "train.checkpoint_activations", "train.trackers"),
    "train.sharding",
}


@dataclass
class Run:
    """An open run directory, locked, and the state to resume from (None: a new run)."""

    directory: Path
    config: PretrainConfig | FinetuneConfig
    fabric: Fabric
    state: dict[str, Any] | None
    loggers: list[Write] = field(default_factory=list)
    operations_per_frame: float = 0.0  # of a forward and a backward pass
    operations_per_second: float = math.inf  # that the devices of all ranks can do

    @property
    def finished(self) -> bool:
        """Whether all train.max_steps are done."""
        return self.state is not None and self.state["step"] >= self.config.train.max_steps

    def say(self, text: str) -> None:
        """Log a message, on one rank only."""
        if self.fabric.is_global_zero:
            print(text, flush=True)


@contextlib.contextmanager
def open_run(config: PretrainConfig | FinetuneConfig) -> Iterator[Run]:
    """Lock `config.run_dir` (created if needed) and read its newest state.

    Raises:
        ConfigError: the directory cannot be written, is in use, or was trained with other settings (listed by key).
        CheckpointError: it has states, and none of them can be read.
    """
    existed = Path(config.run_dir).exists()
    directory = output_directory(config.run_dir)
    fabric = distributed.make_fabric(config.train)
    with lock_directory(directory) if fabric.is_global_zero else contextlib.nullcontext():
        try:
            if fabric.is_global_zero:
                remove_leftovers(directory)
            fabric.barrier()
            state, problems = load_newest(directory)
            run = Run(directory, config, fabric, state)
            for problem in problems:
                run.say(problem)
            if state is not None:
                _refuse_other_settings(directory / "resolved.yaml", config)
            if run.finished:
                run.say(
                    f"{directory} is finished: all {config.train.max_steps} steps are done; "
                    "give a higher train.max_steps to train longer"
                )
            yield run
        finally:
            if not existed and fabric.is_global_zero and {path.name for path in directory.iterdir()} <= {".lock"}:
                with contextlib.suppress(PermissionError):  # Windows keeps an open file, the lock
                    (directory / ".lock").unlink(missing_ok=True)
                    directory.rmdir()  # nothing was written: remove the empty directory


def _refuse_other_settings(path: Path, config: PretrainConfig | FinetuneConfig) -> None:
    if not path.exists():
        return
    was = dict(flatten(from_dict(type(config), OmegaConf.to_container(OmegaConf.load(path)), source=str(path))))
    differing = [
        f"{key}={value} (was {was[key]})"
        for key, value in flatten(config)
        if key not in MAY_CHANGE and was[key] != value
    ]
    if differing:
        raise ConfigError(
            f"{path.parent} was trained with other settings: {', '.join(differing)}; "
            "choose another run_dir, or give the old values"
        )
