"""The one training loop. What differs between pre-training and fine-tuning is a `Task`.

An optimizer step is a fixed list of micro-batches, decided by (seed, step): the ranks share it out, the gradient is
divided by what the whole list counts, and everything random in the model is keyed by (seed, step, place in the list).
So a run that was killed goes on bit for bit, and one device and many train alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterable

import torch

from avhubert.config.validate import to_dict, write_yaml
from avhubert.data.collate import Batch
from avhubert.devices import to_device
from avhubert.errors import AvhubertError, DataError
from avhubert.model.kernels import reuse_memory
from avhubert.train import distributed as ranks
from avhubert.train import performance as speed
from avhubert.train import sharding
from avhubert.train.loggers import open_trackers
from avhubert.train.metrics import log_training, truncate_log, write_log
from avhubert.train.optimizer import Adam, learning_rate
from avhubert.train.progress import Bar, Signals
from avhubert.train.random import TRIAL, VALIDATION, seed_all
from avhubert.train.run_dir import Run
from avhubert.train.sharding import Whole
from avhubert.train.state import Counters, save_state
from avhubert.train.step import bind_loss, optimizer_step
from avhubert.train.task import Steps, Sums, Task


def train(
    run: Run,
    task: Task,
    steps: Steps,
    largest: Callable[[], Batch],
    validation: Iterable[tuple[int, Batch]] | None,
    bad_limit: int = 0,
) -> None:
    """Train until train.max_steps, from where the run stands, and leave the model directory in it.

    `largest`: the micro-batch with the most frames, tried before all others: memory that does not suffice is told at
    once and not after hours. `validation`: (number, batch) of this rank, iterated anew for each validation; None: there
    is none. `bad_limit`: how many clips may turn out to be unreadable; each is named, and the training goes on without
    it.

    SIGTERM, SIGINT and SIGUSR1 save the state at the end of the step and exit with code 0.

    Raises:
        AvhubertError: NON_FINITE_LIMIT steps in a row had a loss or gradient that was not finite; memory ran out.
        DataError: more than `bad_limit` clips could not be read.
    """
    config, fabric, last = run.config.train, run.fabric, run.config.train.max_steps
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Signals())  # a signal counts from here on
        placed, optimizer, counters = _made_ready(run, task, largest)
        bar = stack.enter_context(Bar(task.name, counters.step, last, shown=fabric.is_global_zero))
        clock = time.perf_counter()
        for micro_batches in steps(counters.step, fabric.global_rank, fabric.world_size):
            rate = learning_rate(run.config.optimizer, counters.step, last)
            stopping = optimizer_step(run, task, placed, optimizer, rate, micro_batches, counters, stop.received)
            clock, passed = time.perf_counter(), time.perf_counter() - clock
            counters.seconds += passed
            counters.interval_seconds += passed
            counters.step += 1
            step = counters.step

            if step % config.log_every == 0 or step == last:
                _tell_bad_clips(run, counters, bad_limit)
                bar.show(log_training(run, task, counters, rate))
            bar.advance()
            if validation is not None and (step % config.validate_every == 0 or step == last):
                _validate(run, task, placed, validation, counters)
                _tell_bad_clips(run, counters, bad_limit)
                clock = time.perf_counter()
            if step % config.save_every == 0 or step == last or stopping:
                _save(run, task, placed, optimizer, counters)
                clock = time.perf_counter()
            if step == last:
                break
            if stopping:
                run.say(f"{run.directory}: stopped by {stop.name} after step {step}; start it again to go on")
                sys.exit(0)
    skipped = (
        f"; {counters.skipped} steps were skipped, their loss or gradient was not finite" if counters.skipped else ""
    )
    run.say(f"{run.directory}: {last} steps done in {counters.seconds:.0f} s{skipped}")


def _made_ready(run: Run, task: Task, largest: Callable[[], Batch]) -> tuple[Whole, Adam, Counters]:
    """The module on its devices, the optimizer and the counters as they were saved, if they were; files of the run."""
    config, fabric = run.config.train, run.fabric
    if fabric.device.type == "cpu":
        reuse_memory()
    if run.state is not None:
        task.module.load_state_dict(run.state["model"])
    fabric.to_device(task.module)
    if config.compile:
        speed.compile_blocks(task.module)
    if config.checkpoint_activations:
        speed.checkpoint_blocks(task.module)
    placed = sharding.placed(fabric, task.module, config.sharding)
    groups = [group if isinstance(group, dict) else {"params": group} for group in task.parameter_groups()]
    optimizer = Adam(groups, run.config.optimizer)
    counters = _restore(run, placed, optimizer)
    if fabric.is_global_zero:
        truncate_log(run.directory / "metrics.jsonl", counters.step)
        write_yaml(run.config, run.directory / "resolved.yaml")
        run.trackers = open_trackers(config.trackers, run.directory, to_dict(run.config), counters.step)
    if counters.step:
        run.say(f"{run.directory}: going on after step {counters.step}")
    _try_largest(run, task, placed, largest())
    return placed, optimizer, counters


def _try_largest(run: Run, task: Task, placed: Whole, batch: Batch) -> None:
    """Forward and backward pass of the largest micro-batch, of which nothing stays but figures of the device."""
    if not batch.ids:
        return
    fabric = run.fabric
    task.begin_step(run.config.train.max_steps)  # by then nothing is frozen any more
    statistics = ranks.Statistics(fabric, task.module)
    prepared = to_device(task.prepare(batch, seed_all(run.config.seed, TRIAL)), fabric.device)
    try:
        with fabric.autocast():
            trial = bind_loss(task, prepared)
            operations = speed.forward_operations(lambda: placed.forward(trial))
            loss, _ = placed.forward(trial)
        if loss.requires_grad:
            fabric.backward(loss)
    except RuntimeError as error:
        if not speed.out_of_memory(error):
            raise
        raise AvhubertError(
            f"the largest micro-batch ({len(batch.ids)} clips, {batch.inputs.batch_size * batch.inputs.frames} frames) "
            f"does not fit in the memory of {fabric.device}; give a lower train.frames_per_batch, or "
            "train.checkpoint_activations=true"
        ) from error
    finally:
        statistics.undo()
        for parameter in task.module.parameters():
            parameter.grad = None
    run.operations_per_frame = 3 * operations / batch.frames  # a backward pass takes twice the work of a forward pass
    precision = ranks.matrix_precision(fabric)
    run.operations_per_second = fabric.world_size * speed.matrix_rate(fabric.device, precision)


@torch.no_grad()
def _validate(run: Run, task: Task, placed: Whole, validation: Iterable[tuple[int, Batch]], counters: Counters) -> None:
    """Write a line of validation figures; the best model by the task's figure goes to RUN/best."""
    started = time.perf_counter()
    task.module.eval()
    sums = Sums()
    with placed.gathered():
        for number, batch in validation:
            counters.bad_here.update(batch.left_out)
            if not batch.ids:
                continue
            rng = seed_all(run.config.seed, VALIDATION, number)
            with run.fabric.autocast():
                sums.add(task.evaluate(to_device(task.prepare(batch, rng), run.fabric.device)))
    figures = task.figures(sums.over_ranks(run.fabric))
    counters.seconds += time.perf_counter() - started
    write_log(run, counters, "valid", figures)
    run.say(f"step {counters.step}, valid: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    for sentence in task.alarms(counters.step, figures):
        run.say(f"warning: step {counters.step}: {sentence}")
    if task.selection is not None and figures[task.selection] > counters.best:
        counters.best = figures[task.selection]
        weights = placed.weights()
        if run.fabric.is_global_zero:
            task.save(run.directory / "best", counters.step, weights)


def _tell_bad_clips(run: Run, counters: Counters, limit: int) -> None:
    """Name the clips that could not be read since the last time, on every rank alike; stop when there are too many."""
    for found in ranks.gathered(run.fabric, counters.bad_here):
        for identifier, why in found.items():
            if identifier not in counters.bad:
                counters.bad[identifier] = why
                run.say(f"step {counters.step}: left out from here on: {why}")
    counters.bad_here.clear()
    if len(counters.bad) > limit:
        raise DataError(
            f"{len(counters.bad)} clips cannot be read, more than the {limit} that data.max_bad_share="
            f"{run.config.data.max_bad_share:g} allows, among them {', '.join(list(counters.bad)[:3])}: "
            f"{next(iter(counters.bad.values()))}"
        )


def _save(run: Run, task: Task, placed: Whole, optimizer: Adam, counters: Counters) -> None:
    """The model directory, then the state: killed between the two, the step before is done again, alike."""
    state = {field.name: getattr(counters, field.name) for field in dataclasses.fields(counters)}
    state["sums"] = counters.sums.over_ranks(run.fabric)
    scaler = ranks.scaler(run.fabric)
    weights, moments = placed.weights(), placed.optimizer_state(optimizer)
    if run.fabric.is_global_zero:
        task.save(run.directory, counters.step, weights)
        save_state(
            run.directory,
            {
                "step": counters.step,
                "model": weights,
                "optimizer": moments,
                "scaler": {} if scaler is None else scaler.state_dict(),
                "counters": state,
            },
            keep=run.config.train.keep_last,
        )
    run.fabric.barrier()


def _restore(run: Run, placed: Whole, optimizer: Adam) -> Counters:
    """Load what `_save` wrote, if anything and but for the weights, and let go of it."""
    state, run.state = run.state, None
    if state is None:
        return Counters()
    placed.restore(optimizer, state["optimizer"])
    scaler = ranks.scaler(run.fabric)
    if scaler is not None and state["scaler"]:
        scaler.load_state_dict(state["scaler"])
    kept = dict(state["counters"])
    sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in kept.pop("sums").items()}
    return Counters(**kept, sums=Sums(sums if run.fabric.is_global_zero else {}))
