"""How the measurements of speed work: every form in a process of its own, one repetition of each in turn.

A claim (`bench_*.py` with a `CLAIM`) has cases, and a case has forms: first the baseline, then ours. For each form the
parent starts a worker, which builds the form and runs it once; the numbers that it returns must agree with the
baseline's. Then the forms take turns, one repetition each, while the other processes sleep: so all see the same load of
the machine, none has the other's memory allocator or caches, and each has its own peak of memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
LEAST_ROUNDS = 5  # with fewer there is no interval of this confidence
CONFIDENCE = 0.9  # of the interval of a ratio, at least


# --------------------------------------------------------------------------- what is measured
@dataclass(frozen=True)
class Form:
    """One way to do the work.

    Attributes:
        name: "baseline" for the first form of a case.
        build: gets whether this is a dry run (small sizes), prepares everything, and returns one repetition; what that
            returns are the numbers to compare.
        tolerance: largest difference of these numbers from the baseline's; None: the difference is only reported.
        child: the repetition starts a process: its memory counts.
        missing: why this machine cannot run the form; None: it can.
        size: of a growth curve, how many items the work has.
    """

    name: str
    build: Callable[[bool], Callable[[], np.ndarray | None]]
    tolerance: float | None = None
    child: bool = False
    missing: str | None = None
    size: int = 0


@dataclass(frozen=True)
class Case:
    """One row of the table of goals.

    Attributes:
        id: of the command line.
        title: of the table.
        forms: the baseline, then ours.
        goal: text of the table.
        parts: a repetition's time is divided by it (frames of a clip, for example).
        unit: s or ms.
        seconds: of repetitions; at least `LEAST_ROUNDS` rounds are made.
        floor: the seconds of a repetition at this machine's measured rates, by number format.
        before: seconds that were measured with the published system itself.
        once: one run of each form in a new process, without warming up.
    """

    id: str
    title: str
    forms: Sequence[Form]
    goal: str = ""
    parts: int = 1
    unit: str = "s"
    seconds: float = 45.0
    floor: Callable[[bool], dict[str, float]] | None = None
    before: float | None = None
    once: bool = False


@dataclass(frozen=True)
class Claim:
    """The cases of one file, which make one table.

    Attributes:
        id: of the table; `make bench ONLY=id` measures it alone.
        title: of the table.
        cases: its rows.
        note: what a reader must know.
        curve: the forms of a case are the same work in growing sizes, not a baseline and ours.
    """

    id: str
    title: str
    cases: Sequence[Case]
    note: str = ""
    curve: bool = False


@dataclass
class Samples:
    """What was measured of a form: seconds of each round, and memory in bytes."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: int = 0
    difference: float | None = None

    @property
    def seconds(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.wall)


# --------------------------------------------------------------------------- the worker
def cpu_seconds() -> float:
    """Processor time of this process and of its finished children."""
    times = os.times()  # in steps of 10 ms
    return time.process_time() + times.children_user + times.children_system


def peak_bytes(child: bool) -> int:
    """The most memory that was resident at once, of this process or of its children."""
    status = Path("/proc/self/status")
    if not child and status.exists():  # a process takes over ru_maxrss from its parent
        (line,) = [row for row in status.read_text(encoding="utf-8").splitlines() if row.startswith("VmHWM:")]
        return 1024 * int(line.split()[1])
    usage = resource.getrusage(resource.RUSAGE_CHILDREN if child else resource.RUSAGE_SELF)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Let the peak of memory begin now: preparing a baseline takes the memory of two models."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    with contextlib.suppress(OSError):  # Linux only
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii", newline="\n")


def work(form: Form, smoke: bool, numbers: Path) -> None:
    """Build the form, then run it once for each line of the standard input."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the work prints is no answer
    repeat = form.build(smoke)
    forget_peak()
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), cpu_seconds()
        returned = repeat()
        taken = {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}
        if returned is not None and not numbers.exists():
            np.save(numbers, returned)
        print(json.dumps(taken | {"peak": peak_bytes(form.child)}), file=answers, flush=True)


class Worker:
    """The process of a form, seen from the parent."""

    def __init__(self, script: str, case: str, form: str, smoke: bool, scratch: Path, threads: int) -> None:
        self.numbers = scratch / f"{case}-{form.replace(' ', '-')}.npy"
        command = [sys.executable, "-m", "measure", "--worker", script, case, form, str(int(smoke)), str(self.numbers)]
        paths = [str(Path(__file__).parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, encoding="utf-8", env=environment
        )
        self.name = f"{case}, {form}"

    def answer(self) -> dict[str, float]:
        """The next answer.

        Raises:
            RuntimeError: the worker has failed.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            last = self.log.read().decode("utf-8", "replace").strip()[-1500:]
            raise RuntimeError(f"{self.name}: the process ended with code {self.process.returncode}: {last}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def run(self) -> dict[str, float]:
        """One repetition."""
        assert self.process.stdin is not None
        print("run", file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        """End the process."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.log.close()


# --------------------------------------------------------------------------- the parent
def measure(
    script: str, case: Case, smoke: bool, threads: int, seconds: float | None = None, least: int = LEAST_ROUNDS
) -> dict[str, Samples]:
    """Measure every form of a case that this machine can run.

    Args:
        script: the module of the case.
        case: what to measure.
        smoke: a dry run: small sizes, one round.
        threads: of each process.
        seconds: of repetitions; None: the case's.
        least: rounds that are made in any case.

    Raises:
        RuntimeError: a worker has failed, or its numbers are not the baseline's.
    """
    forms = [form for form in case.forms if form.missing is None]
    samples = {form.name: Samples() for form in forms}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        workers = {}
        for form in forms:  # one after the other: they must not disturb each other
            worker = Worker(script, case.id, form.name, smoke, Path(scratch), threads)
            stack.callback(worker.close)
            first = worker.run()  # also warms up
            workers[form.name] = worker
            if case.once:
                add(samples[form.name], first, case)
                worker.close()
        compare(case, forms, samples, {name: worker.numbers for name, worker in workers.items()})
        end = time.perf_counter() + (case.seconds if seconds is None else seconds)
        rounds = 0
        while not case.once and (rounds < (1 if smoke else least) or (not smoke and time.perf_counter() < end)):
            rounds += 1
            for name, worker in workers.items():
                add(samples[name], worker.run(), case)
    return samples


def add(samples: Samples, answer: Mapping[str, float], case: Case) -> None:
    """Add a repetition."""
    samples.wall.append(answer["wall"] / case.parts)
    samples.cpu.append(answer["cpu"] / case.parts)
    samples.peak = int(answer["peak"])


def compare(case: Case, forms: Sequence[Form], samples: dict[str, Samples], numbers: Mapping[str, Path]) -> None:
    """Note the largest differences from the baseline's numbers; with its sign if it is one number.

    Raises:
        RuntimeError: a difference exceeds the form's tolerance.
    """
    first = numbers[forms[0].name]
    if not first.exists():
        return
    expected = np.load(first)
    for form in forms[1:]:
        if not numbers[form.name].exists():
            continue
        found = np.load(numbers[form.name])
        if found.shape != expected.shape:
            difference = float("inf")
        else:
            difference = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0))
        one_number = found.size == expected.size == 1
        samples[form.name].difference = float(found.item() - expected.item()) if one_number else difference
        if form.tolerance is not None and not difference <= form.tolerance:
            raise RuntimeError(
                f"{case.id}: the numbers of '{form.name}' differ from the baseline's by {difference:.3g}, more than "
                f"{form.tolerance:g}"
            )


def ratio(baseline: Sequence[float], ours: Sequence[float]) -> tuple[float, float | None, float | None]:
    """How many times as fast: the median of the rounds' ratios, and an interval of it from their order statistics.

    Fewer than five rounds give no interval.
    """
    ratios = sorted(theirs / own for theirs, own in zip(baseline, ours, strict=True))
    count = len(ratios)
    if count < LEAST_ROUNDS:
        return statistics.median(ratios), None, None
    outside, cut = 2 * 0.5**count, 0  # probability that the median is beyond the first or the last
    weight = 0.5**count
    while cut + 1 < (count + 1) // 2:
        weight = weight * (count - cut) / (cut + 1)
        if 1 - (outside + 2 * weight) < CONFIDENCE:
            break
        outside, cut = outside + 2 * weight, cut + 1
    return statistics.median(ratios), ratios[cut], ratios[count - 1 - cut]


def machine(threads: int) -> str:
    """Processor, cores, load and versions, in one line."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        flags = next((line for line in lines if line.startswith("flags")), "").split()
        name = models[0] if models else name
        name += "".join(f", {flag}" for flag in ("avx512_bf16", "avx512_vnni", "amx_tile") if flag in flags)
    from importlib.metadata import version

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {cores} cores{load}, {threads} threads, torch {version('torch')}"


def result(case: Case, samples: dict[str, Samples], floors: dict[str, float]) -> dict[str, Any]:
    """Everything about a case that is kept."""
    baseline = samples.get(case.forms[0].name)
    forms = {}
    sizes = {form.name: form.size for form in case.forms}
    for name, sample in samples.items():
        compared = baseline is not None and not case.once
        times, low, high = ratio(baseline.wall, sample.wall) if compared else (None, None, None)
        forms[name] = asdict(sample) | {
            "seconds": sample.seconds, "cpu_seconds": statistics.median(sample.cpu),
            "times": times, "low": low, "high": high, "size": sizes[name],
        }  # fmt: skip
    missing = {form.name: form.missing for form in case.forms if form.missing is not None}
    return {
        "id": case.id, "title": case.title, "goal": case.goal, "unit": case.unit, "before": case.before,
        "forms": forms, "floors": {name: value / case.parts for name, value in floors.items()}, "missing": missing,
    }  # fmt: skip


if __name__ == "__main__":
    import importlib

    _, option, module, wanted, form_name, dry, target = sys.argv
    assert option == "--worker"
    chosen = next(case for case in importlib.import_module(module).CLAIM.cases if case.id == wanted)
    work(next(form for form in chosen.forms if form.name == form_name), bool(int(dry)), Path(target))
