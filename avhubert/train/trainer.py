"""The training loop of pre-training and fine-tuning; what differs between them is a `Task`.

An optimizer step is a fixed list of micro-batches that depends on (seed, step) only. The list is distributed over the
ranks, the gradient is divided by the sample size of the whole list, and the model's random numbers are keyed by (seed,
step, position in the list). A killed run therefore resumes bit for bit, and results do not depend on the number of
devices.
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
from avhubert.devices import is_out_of_memory, to_device
from avhubert.errors import AvhubertError, DataError
from avhubert.model.kernels import reuse_memory
from avhubert.train import distributed, performance, sharding
from avhubert.train.loggers import open_loggers
from avhubert.train.metrics import log_training, truncate_log, write_log
from avhubert.train.optimizer import Adam, learning_rate
from avhubert.train.progress import Bar, Signals
from avhubert.train.random import TRIAL, VALIDATION, seed_all
from avhubert.train.run_dir import Run
from avhubert.train.sharding import Strategy
from avhubert.train.state import Counters, save_state
from avhubert.train.step import bind_loss, optimizer_step
from avhubert.train.task import MetricSums, Steps, Task


def train(
    run: Run,
    task: Task,
    steps: Steps,
    largest: Callable[[], Batch],
    validation: Iterable[tuple[int, Batch]] | None,
    bad_limit: int = 0,
) -> None:
    """Train until train.max_steps, resuming from the run's state, and write the model directory into the run.

    SIGTERM, SIGINT and SIGUSR1 save the state at the end of the step and exit with code 0.

    Args:
        run: the open run directory.
        task: pre-training or fine-tuning.
        steps: the micro-batches of each optimizer step.
        largest: returns the micro-batch with the most frames. It is tried first, so that the run fails fast if it does
            not fit in memory.
        validation: (number, batch) of this rank, iterated once per validation; None: no validation.
        bad_limit: number of clips that may be unreadable; each is reported and skipped.

    Raises:
        AvhubertError: NON_FINITE_LIMIT steps in a row were not finite; memory ran out; another rank has ended.
        DataError: more than `bad_limit` clips could not be read.
    """
    config, fabric, last = run.config.train, run.fabric, run.config.train.max_steps
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(Signals())  # a signal counts from here on
        stack.enter_context(distributed.lost_ranks_reported(fabric, run.directory))
        strategy, optimizer, counters = _set_up(run, task, largest)
        bar = stack.enter_context(Bar(task.name, counters.step, last, shown=fabric.is_global_zero))
        clock = time.perf_counter()
        for micro_batches in steps(counters.step, fabric.global_rank, fabric.world_size):
            rate = learning_rate(run.config.optimizer, counters.step, last)
            stopping = optimizer_step(run, task, strategy, optimizer, rate, micro_batches, counters, stop.received)
            clock, passed = time.perf_counter(), time.perf_counter() - clock
            counters.seconds += passed
            counters.interval_seconds += passed
            counters.step += 1
            step = counters.step

            if step % config.log_every == 0 or step == last:
                _report_bad_clips(run, counters, bad_limit)
                bar.show(log_training(run, task, counters, rate))
            bar.advance()
            if validation is not None and (step % config.validate_every == 0 or step == last):
                _validate(run, task, strategy, validation, counters)
                _report_bad_clips(run, counters, bad_limit)
                clock = time.perf_counter()
            if step % config.save_every == 0 or step == last or stopping:
                _save(run, task, strategy, optimizer, counters)
                clock = time.perf_counter()
            if step == last:
                break
            if stopping:
                run.say(f"{run.directory}: stopped by {stop.name} after step {step}; run the command again to resume")
                sys.exit(0)
    skipped = (
        f"; {counters.skipped} steps were skipped, their loss or gradient was not finite" if counters.skipped else ""
    )
    run.say(f"{run.directory}: {last} steps done in {counters.seconds:.0f} s{skipped}")


def _set_up(run: Run, task: Task, largest: Callable[[], Batch]) -> tuple[Strategy, Adam, Counters]:
    """Move the module to its devices, create optimizer and counters, restore the saved state, open the run's files."""
    config, fabric = run.config.train, run.fabric
    if fabric.device.type == "cpu":
        reuse_memory()
    if run.state is not None:
        task.module.load_state_dict(run.state["model"])
    fabric.to_device(task.module)
    if config.compile:
        performance.compile_blocks(task.module)
    if config.checkpoint_activations:
        performance.checkpoint_blocks(task.module)
    strategy = sharding.make_strategy(fabric, task.module, config.sharding)
    groups = [group if isinstance(group, dict) else {"params": group} for group in task.parameter_groups()]
    optimizer = Adam(groups, run.config.optimizer)
    counters = _restore(run, strategy, optimizer)
    if fabric.is_global_zero:
        truncate_log(run.directory / "metrics.jsonl", counters.step)
        write_yaml(run.config, run.directory / "resolved.yaml")
        run.loggers = open_loggers(config.trackers, run.directory, to_dict(run.config), counters.step)
    if counters.step:
        run.say(f"{run.directory}: resuming after step {counters.step}")
    _check_memory(run, task, strategy, largest())
    return strategy, optimizer, counters


def _check_memory(run: Run, task: Task, strategy: Strategy, batch: Batch) -> None:
    """Try forward and backward pass of the largest micro-batch, and measure the speed of the device."""
    if not batch.ids:
        return
    fabric = run.fabric
    task.begin_step(run.config.train.max_steps)  # by then nothing is frozen any more
    statistics = distributed.Statistics(fabric, task.module)
    prepared = to_device(task.prepare(batch, seed_all(run.config.seed, TRIAL)), fabric.device)
    try:
        with fabric.autocast():
            trial = bind_loss(task, prepared)
            operations = performance.forward_operations(lambda: strategy.forward(trial))
            loss, _ = strategy.forward(trial)
        if loss.requires_grad:
            fabric.backward(loss)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
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
    precision = distributed.matrix_precision(fabric)
    run.operations_per_second = fabric.world_size * performance.matrix_rate(fabric.device, precision)


@torch.no_grad()
def _validate(
    run: Run, task: Task, strategy: Strategy, validation: Iterable[tuple[int, Batch]], counters: Counters
) -> None:
    """Write a line of validation metrics; the best model by the task's metric is saved in RUN/best."""
    started = time.perf_counter()
    task.module.eval()
    sums = MetricSums()
    with strategy.gathered():
        for number, batch in validation:
            counters.bad_here.update(batch.left_out)
            if not batch.ids:
                continue
            rng = seed_all(run.config.seed, VALIDATION, number)
            with run.fabric.autocast():
                sums.add(task.evaluate(to_device(task.prepare(batch, rng), run.fabric.device)))
    metrics = task.metrics(sums.over_ranks(run.fabric))
    counters.seconds += time.perf_counter() - started
    write_log(run, counters, "valid", metrics)
    run.say(f"step {counters.step}, valid: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    for sentence in task.warnings(counters.step, metrics):
        run.say(f"warning: step {counters.step}: {sentence}")
    # the best checkpoint: the largest value so far of the metric that the task selects
    if task.selection is not None and metrics[task.selection] > counters.best:
        counters.best = metrics[task.selection]
        weights = strategy.weights()
        if run.fabric.is_global_zero:
            task.save(run.directory / "best", counters.step, weights)


def _report_bad_clips(run: Run, counters: Counters, limit: int) -> None:
    """Report the clips that could not be read since the last call, on any rank; stop if there are too many."""
    for bad_clips in distributed.gathered(run.fabric, counters.bad_here):
        for clip_id, reason in bad_clips.items():
            if clip_id not in counters.bad:
                counters.bad[clip_id] = reason
                run.say(f"step {counters.step}: skipped from now on: {reason}")
    counters.bad_here.clear()
    if len(counters.bad) > limit:
        raise DataError(
            f"{len(counters.bad)} clips cannot be read, more than the {limit} that data.max_bad_share="
            f"{run.config.data.max_bad_share:g} allows, among them {', '.join(list(counters.bad)[:3])}: "
            f"{next(iter(counters.bad.values()))}"
        )


def _save(run: Run, task: Task, strategy: Strategy, optimizer: Adam, counters: Counters) -> None:
    """Save the model directory, then the state: a kill between the two repeats steps with the same result."""
    state = {field.name: getattr(counters, field.name) for field in dataclasses.fields(counters)}
    state["sums"] = counters.sums.over_ranks(run.fabric)
    scaler = distributed.scaler(run.fabric)
    weights, moments = strategy.weights(), strategy.optimizer_state(optimizer)
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


def _restore(run: Run, strategy: Strategy, optimizer: Adam) -> Counters:
    """Restore optimizer and counters from what `_save` wrote, if anything, and release that memory."""
    state, run.state = run.state, None
    if state is None:
        return Counters()
    strategy.restore(optimizer, state["optimizer"])
    scaler = distributed.scaler(run.fabric)
    if scaler is not None and state["scaler"]:
        scaler.load_state_dict(state["scaler"])
    values = dict(state["counters"])
    sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.pop("sums").items()}
    return Counters(**values, sums=MetricSums(sums if run.fabric.is_global_zero else {}))
