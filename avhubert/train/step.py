"""One optimizer step over a fixed list of micro-batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from avhubert.data.collate import Batch
from avhubert.devices import to_device
from avhubert.errors import AvhubertError
from avhubert.train import distributed
from avhubert.train.optimizer import Adam
from avhubert.train.random import TRAINING, seed_all
from avhubert.train.run_dir import Run
from avhubert.train.sharding import Strategy
from avhubert.train.state import Counters
from avhubert.train.task import MetricSums, StepOutput, Task

NON_FINITE_LIMIT = 10


def optimizer_step(
    run: Run,
    task: Task,
    strategy: Strategy,
    optimizer: Adam,
    rate: float,
    micro_batches: Sequence[tuple[int, Batch]],
    counters: Counters,
    stop: bool,
) -> bool:
    """One optimizer step; returns whether any rank was asked to stop."""
    fabric, module = run.fabric, task.module
    task.begin_step(counters.step)
    statistics = distributed.Statistics(fabric, module)
    sample_size, frames, sums = 0, 0, MetricSums()
    passes = strategy.passes(len(micro_batches))
    for position, batch in _timed(micro_batches, counters):
        counters.bad_here.update(batch.left_out)
        if not batch.ids:
            strategy.dummy_step()
            continue
        rng = seed_all(run.config.seed, TRAINING, counters.step, position)
        with statistics.of_micro_batch(position), fabric.autocast():
            loss, part = strategy.forward(bind_loss(task, to_device(task.prepare(batch, rng), fabric.device)))
        if loss.requires_grad:  # False if no frame of the micro-batch counts
            fabric.backward(loss)
        sample_size += part.sample_size
        frames += batch.frames
        sums.add(part)
    for _ in range(passes - len(micro_batches)):
        strategy.dummy_step()
    total, all_frames, stopping = distributed.total(fabric, sample_size, frames, int(stop))
    statistics.combine()

    if _update(run, strategy, optimizer, rate, total):
        counters.skipped_in_a_row = 0
        counters.frames += int(all_frames)
        counters.sums.merge(sums)
    else:
        statistics.undo()
        counters.skipped += 1
        counters.skipped_in_a_row += 1
    if counters.skipped_in_a_row >= NON_FINITE_LIMIT:
        raise AvhubertError(
            f"{run.directory}: the loss or its gradient was not finite in {NON_FINITE_LIMIT} steps in a row, "
            f"up to step {counters.step + 1}; lower optimizer.lr, or give train.precision=32-true, and run again"
        )
    return bool(stopping)


def _update(run: Run, strategy: Strategy, optimizer: Adam, rate: float, sample_size: float) -> bool:
    """Divide the gradients by the sample size, clip and apply them; False (and no update) if they are not finite."""
    scaler = distributed.scaler(run.fabric)
    gradients = strategy.gradients()
    if scaler is not None:
        scaler.unscale_(optimizer)
    norm = distributed.norm(gradients) / max(1, sample_size)
    finite = math.isfinite(norm)
    if finite:
        clip = run.config.optimizer.clip_norm
        factor = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
        torch._foreach_mul_(gradients, factor / max(1, sample_size))
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        optimizer.step()
    if scaler is not None:
        scaler.update()
    optimizer.zero_grad()
    return finite


def bind_loss(task: Task, prepared: Any) -> Callable[[], tuple[Tensor, StepOutput]]:
    """The forward pass of a micro-batch as a call without arguments, as a strategy runs it."""

    def run() -> tuple[Tensor, StepOutput]:
        part = task.loss(prepared)
        return part.loss, part

    return run


def _timed(micro_batches: Iterable[tuple[int, Batch]], counters: Counters) -> Iterator[tuple[int, Batch]]:
    """The same micro-batches; adds the time spent waiting for each to the counters."""
    iterator = iter(micro_batches)
    while True:
        started = time.perf_counter()
        item = next(iterator, None)
        counters.waiting += time.perf_counter() - started
        if item is None:
            return
        yield item
