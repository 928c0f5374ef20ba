"""The state of a run: RUN/state/step_N.pt holds everything that an exact resume needs; N is the number of steps done.

Everything random in training is a function of (seed, step, micro-batch) or (seed, epoch, utterance): the number of
steps done *is* the state of all random generators and the position in the data.
"""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from avhubert.checkpoints import hashes
from avhubert.checkpoints.writing import write_archive
from avhubert.errors import CheckpointError
from avhubert.files import atomic_path, remove
from avhubert.train.task import MetricSums


@dataclass
class Counters:
    """Counters of the training loop; part of the saved state, whose keys are the field names."""

    step: int = 0  # optimizer steps done
    best: float = -math.inf
    skipped: int = 0  # steps whose loss or gradient was not finite
    skipped_in_a_row: int = 0
    seconds: float = 0.0  # spent training, over all restarts
    frames: int = 0  # since the last line of the log, like the following
    interval_seconds: float = 0.0
    waiting: float = 0.0  # of these seconds: spent waiting for a batch
    mean_loss: float = math.nan  # of the last few lines of the log
    sums: MetricSums = field(default_factory=MetricSums)
    bad: dict[str, str] = field(default_factory=dict)  # unreadable clips of all ranks: id → reason
    bad_here: dict[str, str] = field(default_factory=dict)  # unreadable clips of this rank that are not yet reported


FORMAT = 1
KEYS = {"format", "step", "model", "optimizer", "scaler", "counters"}


def state_path(run_dir: Path, step: int) -> Path:
    """RUN/state/step_N.pt."""
    return run_dir / "state" / f"step_{step}.pt"


def steps_saved(run_dir: Path) -> list[int]:
    """The steps whose state is on disk, newest first."""
    matches = (re.fullmatch(r"step_(\d+)\.pt", path.name) for path in (run_dir / "state").glob("*.pt"))
    return sorted((int(match.group(1)) for match in matches if match), reverse=True)


def save_state(run_dir: Path, state: dict[str, Any], keep: int) -> None:
    """Write `state` (all KEYS except the format; tensors and plain values), then delete all but the newest `keep`."""
    (run_dir / "state").mkdir(exist_ok=True)
    with atomic_path(state_path(run_dir, state["step"])) as temporary:
        write_archive({"format": FORMAT, **state}, temporary)
    for step in steps_saved(run_dir)[keep:]:
        state_path(run_dir, step).unlink()


def read_state(run_dir: Path, step: int) -> dict[str, Any]:
    """The state of `step`, on the CPU.

    Raises:
        CheckpointError: the file cannot be read, is not a state, or differs from the one that was written.
    """
    path = state_path(run_dir, step)
    try:
        damaged = hashes.damaged_zip_member(path)
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged: the checksum of {damaged} differs")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        NotImplementedError,
    ) as error:
        raise CheckpointError(f"{path} cannot be read ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(state, dict) or set(state) != KEYS or state["format"] != FORMAT or state["step"] != step:
        raise CheckpointError(f"{path} is not a state that this version wrote")
    return state


def load_newest(run_dir: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest readable state, on the CPU (None if there is no state), and a message for each newer unreadable one.

    Raises:
        CheckpointError: there are states, and none can be read. Starting over silently would lose the work.
    """
    problems: list[str] = []
    steps = steps_saved(run_dir)
    for step in steps:
        try:
            return read_state(run_dir, step), problems
        except CheckpointError as error:
            problems.append(f"{error}; using the previous one")
    if steps:
        raise CheckpointError(
            f"none of the {len(steps)} states in {run_dir / 'state'} can be read; restore one, "
            f"or delete {run_dir} to start over"
        )
    return None, problems


def remove_leftovers(run_dir: Path) -> None:
    """Delete temporary files of a process that was killed while writing; call it with the run locked."""
    for folder in (run_dir, run_dir / "state", run_dir / "best"):
        for path in folder.glob(".*.part*"):
            remove(path)
