"""One optimizer step over a fixed list of micro-batches."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from avhubert.data.collate import Batch
from avhubert.errors import AvhubertError
from avhubert.train import distributed as ranks
from avhubert.train.metrics import Part, Sums
from avhubert.train.optimizer import Adam
from avhubert.train.run_dir import Run
from avhubert.train.sharding import Whole

NON_FINITE_LIMIT = 10


TRAINING, VALIDATION, INITIAL, TRIAL = 0, 1, 2, 3  # first key of random numbers


class Task(Protocol):
    """What differs between trainings. `module` holds everything that is trained."""

    name: str
    module: nn.Module
    selection: str | None  # the validation figure whose highest value chooses RUN/best; None keeps no best

    def parameter_groups(self) -> Sequence[list[nn.Parameter] | dict[str, Any]]:
        """Parameters, grouped by when they start to learn; as torch's dicts where a `factor` scales a group's rate."""

    def begin_step(self, step: int) -> None:
        """Set training mode and what learns in step `step`."""

    def loss(self, batch: Batch, rng: np.random.Generator) -> Part:
        """The training loss of a micro-batch on the module's device."""

    def evaluate(self, batch: Batch, rng: np.random.Generator) -> Part:
        """The validation sums of a batch; the module is in evaluation mode and gradients are off."""

    def figures(self, sums: dict[str, Any]) -> dict[str, float]:
        """What the log shows, from summed metrics (`loss` and `sample_size` among them)."""

    def alarms(self, step: int, figures: dict[str, float]) -> list[str]:
        """Sentences about what validation figures after `step` steps give away; none when all is well."""

    def save(self, directory: Path, step: int, weights: dict[str, Tensor]) -> None:
        """Write the model directory, with `weights`: the module's state, of which a sharded module has only parts."""


# --------------------------------------------------------------------------- the loop
@dataclass
class Counters:
    """What the loop counts, beside the model and the optimizer; part of the saved state."""

    step: int = 0  # optimizer steps done
    best: float = -math.inf
    skipped: int = 0  # steps whose loss or gradient was not finite
    skipped_in_a_row: int = 0
    seconds: float = 0.0  # spent training, over all restarts
    frames: int = 0  # since the last line of the log, as are the following
    interval_seconds: float = 0.0
    waiting: float = 0.0  # seconds of them in which there was no batch to train on
    mean_loss: float = math.nan  # of the last few lines of the log
    sums: Sums = field(default_factory=Sums)
    bad: dict[str, str] = field(default_factory=dict)  # clips that could not be read, on any rank: id → why
    bad_here: dict[str, str] = field(default_factory=dict)  # those that this rank met and has not told yet


def optimizer_step(
    run: Run,
    task: Task,
    placed: Whole,
    optimizer: Adam,
    rate: float,
    micro_batches: Sequence[tuple[int, Batch]],
    counters: Counters,
    stop: bool,
) -> bool:
    """One optimizer step; returns whether any rank was asked to stop."""
    fabric, module = run.fabric, task.module
    scaler = ranks.scaler(fabric)
    task.begin_step(counters.step)
    statistics = ranks.Statistics(fabric, module)
    sample_size, frames, sums = 0, 0, Sums()
    turns = placed.turns(len(micro_batches))
    for place, batch in _timed(micro_batches, counters):
        counters.bad_here.update(batch.left_out)
        if not batch.ids:
            placed.idle()
            continue
        rng = seed_all(run.config.seed, TRAINING, counters.step, place)
        with statistics.of_micro_batch(place), fabric.autocast():
            loss, part = placed.forward(bind_loss(task, to_device(batch, fabric.device), rng))
        if loss.requires_grad:  # not so when nothing in the micro-batch counts
            fabric.backward(loss)
        sample_size += part.sample_size
        frames += batch.frames
        sums.add(part)
    for _ in range(turns - len(micro_batches)):
        placed.idle()
    total, all_frames, stopping = ranks.total(fabric, sample_size, frames, int(stop))
    statistics.combine()

    gradients = placed.gradients()
    if scaler is not None:
        scaler.unscale_(optimizer)
    norm = ranks.norm(gradients) / max(1, total)
    if math.isfinite(norm):
        clip = run.config.optimizer.clip_norm
        factor = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
        torch._foreach_mul_(gradients, factor / max(1, total))
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        optimizer.step()
        counters.skipped_in_a_row = 0
        counters.frames += int(all_frames)
        counters.sums.merge(sums)
    else:
        statistics.undo()
        counters.skipped += 1
        counters.skipped_in_a_row += 1
    if scaler is not None:
        scaler.update()
    optimizer.zero_grad()
    if counters.skipped_in_a_row >= NON_FINITE_LIMIT:
        raise AvhubertError(
            f"{run.directory}: the loss or its gradient was not finite in {NON_FINITE_LIMIT} steps in a row, "
            f"up to step {counters.step + 1}; lower optimizer.lr, or give train.precision=32-true, and start again"
        )
    return bool(stopping)


def bind_loss(task: Task, batch: Batch, rng: np.random.Generator) -> Callable[[], tuple[Tensor, Part]]:
    def run() -> tuple[Tensor, Part]:
        part = task.loss(batch, rng)
        return part.loss, part

    return run


def _timed(micro_batches: Iterable[tuple[int, Batch]], counters: Counters) -> Iterator[tuple[int, Batch]]:
    """The same, counting the time that each has to be waited for."""
    iterator = iter(micro_batches)
    while True:
        started = time.perf_counter()
        found = next(iterator, None)
        counters.waiting += time.perf_counter() - started
        if found is None:
            return
        yield found


def seed_all(seed: int, *key: int) -> np.random.Generator:
    """Seed torch (weights, dropout, LayerDrop) with (seed, *key); returns a generator for the task's own draws."""
    sequence = np.random.SeedSequence([seed, *key])
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
    return np.random.default_rng(sequence.spawn(1)[0])


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its large tensors on `device`; masks and labels stay where asking them costs no waiting."""
    moved = {
        name: value.to(device, non_blocking=True)
        for name in ("audio", "video")
        if (value := getattr(batch, name)) is not None
    }
    return dataclasses.replace(batch, **moved)
