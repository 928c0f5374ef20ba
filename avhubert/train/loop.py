"""The one training loop. What differs between pre-training and fine-tuning is a `Task`.

An optimizer step is a fixed list of micro-batches, decided by (seed, step): the ranks share it out, the gradient is
divided by what the whole list counts, and everything random in the model is keyed by (seed, step, place in the list).
So a run that was killed goes on bit for bit, and one device and many train alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from omegaconf import OmegaConf
from torch import Tensor, nn

from avhubert.config import FinetuneConfig, PretrainConfig, flatten, from_dict, to_dict, write_yaml
from avhubert.data.batches import Batch
from avhubert.data.manifest import FRAME_RATE
from avhubert.errors import AvhubertError, ConfigError, DataError
from avhubert.files import lock_directory, output_directory, write_text
from avhubert.model.kernels import reuse_memory
from avhubert.report import progress
from avhubert.train import ranks, sharding, speed
from avhubert.train.checkpoint import load_newest, remove_leftovers, save_state
from avhubert.train.optimizer import Adam, learning_rate
from avhubert.train.sharding import Whole
from avhubert.train.trackers import Write, open_trackers

MAY_CHANGE = {  # what a run may be continued with: its length, its bookkeeping, and what changes no number
    *("train.max_steps", "train.save_every", "train.log_every", "train.keep_last", "train.validate_every"),
    *("run_dir", "data.workers", "train.checkpoint_activations", "train.trackers"),
    "train.sharding",
}
NON_FINITE_LIMIT = 10
SPIKE = 2.0  # times its recent mean: a loss worth a warning
TRAINING, VALIDATION, INITIAL, TRIAL = 0, 1, 2, 3  # first key of random numbers


# --------------------------------------------------------------------------- what a task gives to the loop
@dataclass
class Part:
    """One micro-batch: `loss` summed over what counts (with gradient), how much counts, and sums for the log."""

    loss: Tensor
    sample_size: int
    metrics: dict[str, Tensor] = field(default_factory=dict)


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


class Sums:
    """Running sums of micro-batches' losses and metrics, kept on the device until they are read."""

    def __init__(self, values: dict[str, Tensor] | None = None) -> None:
        self.values = values or {}

    def add(self, part: Part) -> None:
        """Count a micro-batch in."""
        one = {"loss": part.loss.detach(), "sample_size": part.sample_size, "micro_batches": 1, **part.metrics}
        self.merge(Sums({name: torch.as_tensor(value, dtype=torch.float64) for name, value in one.items()}))

    def merge(self, other: Sums) -> None:
        """Count other sums in."""
        for name, value in other.values.items():
            self.values[name] = self.values[name] + value if name in self.values else value

    def over_ranks(self, fabric: Fabric) -> dict[str, Any]:
        """The sums over all ranks: numbers, and arrays where a metric has several values."""
        here = {name: value.cpu().numpy() if value.dim() else float(value) for name, value in self.values.items()}
        return ranks.summed(fabric, here)


class Steps(Protocol):
    """The training data: for each optimizer step from `first` on, this rank's (place in the step's list, batch)."""

    def __call__(self, first: int, rank: int, world_size: int) -> Iterable[Sequence[tuple[int, Batch]]]: ...


# --------------------------------------------------------------------------- a run directory
@dataclass
class Run:
    """An open run directory, its lock held, and the state it goes on from (None: it starts)."""

    directory: Path
    config: PretrainConfig | FinetuneConfig
    fabric: Fabric
    state: dict[str, Any] | None
    trackers: list[Write] = field(default_factory=list)
    operations_per_frame: float = 0.0  # of a forward and a backward pass
    operations_per_second: float = math.inf  # that the devices of all ranks can do

    @property
    def finished(self) -> bool:
        """All of train.max_steps are done."""
        return self.state is not None and self.state["step"] >= self.config.train.max_steps

    def say(self, text: str) -> None:
        """Print a line, once over all ranks."""
        if self.fabric.is_global_zero:
            print(text, flush=True)


@contextlib.contextmanager
def open_run(config: PretrainConfig | FinetuneConfig) -> Iterator[Run]:
    """Lock `config.run_dir` (made if needed) and find what it holds.

    Raises:
        ConfigError: it cannot be written, is in use, or was trained with other settings (their keys are named).
        CheckpointError: it holds states, none of which can be read.
    """
    existed = Path(config.run_dir).exists()
    directory = output_directory(config.run_dir)
    fabric = ranks.make_fabric(config.train)
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
                    "give a higher train.max_steps to go on"
                )
            yield run
        finally:
            if not existed and fabric.is_global_zero and {path.name for path in directory.iterdir()} <= {".lock"}:
                (directory / ".lock").unlink(missing_ok=True)
                directory.rmdir()  # nothing was begun: leave nothing behind


def _refuse_other_settings(path: Path, config: PretrainConfig | FinetuneConfig) -> None:
    if not path.exists():
        return
    was = dict(flatten(from_dict(type(config), OmegaConf.to_container(OmegaConf.load(path)), where=str(path))))
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
            stopping = _step(run, task, placed, optimizer, rate, micro_batches, counters, stop.received)
            clock, passed = time.perf_counter(), time.perf_counter() - clock
            counters.seconds += passed
            counters.interval_seconds += passed
            counters.step += 1
            step = counters.step

            if step % config.log_every == 0 or step == last:
                _tell_bad_clips(run, counters, bad_limit)
                bar.show(_log_training(run, task, counters, rate))
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
        _truncate_log(run.directory / "metrics.jsonl", counters.step)
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
    moved = to_device(batch, fabric.device)
    try:
        with fabric.autocast():
            trial = _losses(task, moved, seed_all(run.config.seed, TRIAL))
            operations = speed.forward_operations(lambda: placed.forward(trial))
            loss, _ = placed.forward(trial)
        if loss.requires_grad:
            fabric.backward(loss)
    except RuntimeError as error:
        if not speed.out_of_memory(error):
            raise
        raise AvhubertError(
            f"the largest micro-batch ({len(batch.ids)} clips, {batch.padding_mask.numel()} frames) does not fit in "
            f"the memory of {fabric.device}; give a lower train.frames_per_batch, or train.checkpoint_activations=true"
        ) from error
    finally:
        statistics.undo()
        for parameter in task.module.parameters():
            parameter.grad = None
    run.operations_per_frame = 3 * operations / batch.frames  # a backward pass takes twice the work of a forward pass
    precision = ranks.matrix_precision(fabric)
    run.operations_per_second = fabric.world_size * speed.matrix_rate(fabric.device, precision)


def _step(
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
            loss, part = placed.forward(_losses(task, to_device(batch, fabric.device), rng))
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


def _losses(task: Task, batch: Batch, rng: np.random.Generator) -> Callable[[], tuple[Tensor, Part]]:
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


# --------------------------------------------------------------------------- log, validation, saving
def _log_training(run: Run, task: Task, counters: Counters, rate: float) -> dict[str, float]:
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
    _write_log(run, counters, "train", figures)
    counters.sums, counters.frames, counters.interval_seconds, counters.waiting = Sums(), 0, 0.0, 0.0
    loss = figures.get("loss", math.nan)
    if loss > SPIKE * counters.mean_loss:
        run.say(
            f"warning: step {counters.step}: the loss jumped to {loss:.4g}, {loss / counters.mean_loss:.1f} times its "
            "recent mean; if it stays there, lower optimizer.lr and go on from an older state"
        )
    counters.mean_loss = loss if math.isnan(counters.mean_loss) else 0.8 * counters.mean_loss + 0.2 * loss
    return figures


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
                sums.add(task.evaluate(to_device(batch, run.fabric.device), rng))
    figures = task.figures(sums.over_ranks(run.fabric))
    counters.seconds += time.perf_counter() - started
    _write_log(run, counters, "valid", figures)
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


def _write_log(run: Run, counters: Counters, split: str, figures: dict[str, float]) -> None:
    if run.fabric.is_global_zero:
        row: dict[str, Any] = {"step": counters.step, "split": split, **figures, "seconds": round(counters.seconds, 3)}
        row = {name: value for name, value in row.items() if not (isinstance(value, float) and math.isnan(value))}
        with open(run.directory / "metrics.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        shown = {name: value for name, value in row.items() if name not in ("step", "split")}
        for write in run.trackers:
            write(counters.step, split, shown)


def _truncate_log(path: Path, step: int) -> None:
    """Drop what was logged after `step`, which the run goes on from, and a line that a kill cut short."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    write_text(path, "".join(kept))


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


# --------------------------------------------------------------------------- signals and progress
class Signals:
    """While it is open, the first SIGTERM, SIGINT or SIGUSR1 is only noted; a second one acts as it would without."""

    KINDS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self) -> None:
        self.received = False
        self.name = "another rank's signal"
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._before = {kind: signal.signal(kind, self._note) for kind in self.KINDS}
        return self

    def _note(self, number: int, frame: object) -> None:
        self.received, self.name = True, signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def __exit__(self, *error: object) -> None:
        self._restore()


class Bar:
    """Progress over steps on stderr: loss, frames per second, time left."""

    def __init__(self, name: str, done: int, last: int, shown: bool) -> None:
        self._name = name
        self._bar = progress() if shown else None
        if self._bar is not None:
            self._task = self._bar.add_task(name, total=last, completed=done, unit="steps")

    def __enter__(self) -> Bar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, figures: dict[str, float]) -> None:
        """The newest figures beside the name."""
        if self._bar is not None:
            text = (
                f"{self._name} · loss {figures.get('loss', math.nan):.3f} · {figures['frames_per_second']:.0f} frames/s"
            )
            self._bar.update(self._task, description=text)

    def advance(self) -> None:
        """One step is done."""
        if self._bar is not None:
            self._bar.advance(self._task)
