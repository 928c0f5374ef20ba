"""Part `training`: corrupt clips, a killed rank, numbers that are not finite, and memory that does not suffice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from avhubert.cli.app import main
from avhubert.data.manifest import read_manifest, write_manifest
from avhubert.train import pretrain
from tests.faults import mutations
from tests.faults.isolate import Fault, Limits, isolated
from tests.faults.outcome import ACCEPTED, Outcome
from tests.faults.part import Case, Part, random_of
from tests.faults.world import SHORT, SMALL, make_world

STOP_SECONDS = 30  # in which the other ranks end after one was killed
CLIPS = 40  # of the training with corrupt clips
CORRUPT = 2  # of them: 5 %
STEPS = 6


def arguments(world: Path, run: Path, *more: str) -> list[str]:
    settings = [*SHORT, *SMALL, "model.final_dim=8", f"train.max_steps={STEPS}", f"data.dir={world / 'data'}"]
    labels = f"data.labels={world / 'labels'}"
    return ["pretrain", "--config-name", "tiny_iter2", *settings, labels, *more, f"run_dir={run}"]


# --------------------------------------------------------------------------- corrupt clips
def corrupt_clips(world: Path, work: Path, rng: random.Random) -> Outcome:
    """5 % of the clips are damaged: the run names each that cannot be read, and does all of its steps."""
    data, labels = work / "data", work / "labels"
    shutil.copytree(world / "labels", labels)
    data.mkdir()
    clips = read_manifest(world / "data" / "train.tsv")
    chosen = [rng.randrange(len(clips)) for _ in range(CLIPS)]
    rows = (labels / "train.km").read_text(encoding="utf-8").splitlines()
    repeated = []
    for number, index in enumerate(chosen):
        clip = replace(clips[index], id=f"c{number}")
        if number < CORRUPT:
            for name in ("video", "audio"):
                path = getattr(clip, name)
                damaged = data / f"{number}{path.suffix}"
                damage = rng.choice((mutations.truncate, mutations.flip_many, mutations.zeros, mutations.other_file))
                damaged.write_bytes(damage(path.read_bytes(), rng))
                clip = replace(clip, **{name: damaged})
        repeated.append(clip)
    write_manifest(data / "train.tsv", repeated, data)
    (labels / "train.km").write_text("".join(rows[index] + "\n" for index in chosen), encoding="utf-8")
    info = json.loads((labels / "labels.json").read_text(encoding="utf-8"))
    info.pop("sha256", None), info.pop("files", None)
    (labels / "labels.json").write_text(json.dumps(info), encoding="utf-8")
    for name in ("valid.tsv",):
        shutil.copy(world / "data" / name, data / name)
    given = arguments(world, work / "run", "data.max_bad_share=0.1", f"data.workers={rng.choice((0, 2))}")
    given += [f"data.dir={data}", f"data.labels={labels}", "train.frames_per_step=400"]

    def train() -> int:
        code = main(given)
        if not code and not (work / "run" / "state" / f"step_{STEPS}.pt").exists():
            raise Fault("unfinished", "exit code 0 without the last step")
        return code

    outcome = isolated("corrupt clips", train, work, Limits(300, 3000))
    return outcome if outcome.verdict != "refused" else replace(outcome, verdict="stopped")


# --------------------------------------------------------------------------- a killed rank
def _start_ranks(given: list[str], ranks: int, launcher: bool, log: Path) -> list[subprocess.Popen[bytes]]:
    """Ranks by torchrun, or one by one as a job scheduler starts them."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    program = ["-m", "avhubert.cli", *given]
    with open(log, "wb") as output:
        if launcher:
            launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
            return [
                subprocess.Popen([sys.executable, *launch, *program], stdout=output, stderr=output, env=environment)
            ]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_WORLD_SIZE": 1, "GROUP_RANK": 0}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "faults"}
        own = [{**shared, "RANK": rank, "LOCAL_RANK": rank, "ROLE_RANK": rank} for rank in range(ranks)]
        return [
            subprocess.Popen(
                [sys.executable, *program],
                stdout=output, stderr=output, env=environment | {key: str(value) for key, value in each.items()},
            )
            for each in own
        ]  # fmt: skip


def _ranks(run: Path) -> list[int]:
    """The processes of the run, without torchrun itself."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if f"run_dir={run}" in words and "torch.distributed.run" not in words:
                found.append(int(path.parent.name))
    return sorted(found)


@contextlib.contextmanager
def _ended(processes: list[subprocess.Popen[bytes]], run: Path) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for rank in _ranks(run):
            with contextlib.suppress(OSError):
                os.kill(rank, signal.SIGKILL)


def killed_rank(world: Path, work: Path, rng: random.Random) -> Outcome:
    """One rank is killed: the others end within 30 s and say why; started again, the run goes on."""
    run, log, launcher, ranks = work / "run", work / "log", rng.random() < 0.5, rng.choice((2, 2, 3))
    name = f"killed rank of {ranks}, {'torchrun' if launcher else 'no launcher'}"
    processes = _start_ranks(arguments(world, run, "train.max_steps=5000"), ranks, launcher, log)
    with _ended(processes, run):
        deadline = time.monotonic() + 120
        while not list(run.glob("state/step_*.pt")):
            if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
                return Outcome(name, "did not start", log.read_text(errors="replace", encoding="utf-8")[-500:])
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1))
        os.kill(rng.choice(_ranks(run)), signal.SIGKILL)
        killed = time.monotonic()
        while len(_ranks(run)) > 0 and time.monotonic() < killed + 2 * STOP_SECONDS:
            time.sleep(0.05)
        seconds = time.monotonic() - killed
        left = len(_ranks(run))
    said = log.read_text(errors="replace", encoding="utf-8")
    if left or seconds > STOP_SECONDS:
        return Outcome(name, "hang", f"{left} ranks left after {seconds:.0f} s", seconds)
    if not ("another rank has ended" in said or "SIGKILL" in said):
        return Outcome(name, "no reason", said[-500:], seconds)
    if "[rank" in said:  # torch's hook of unhandled exceptions
        return Outcome(name, "traceback", said[said.index("[rank") :][:500], seconds)
    last = max(int(path.stem.removeprefix("step_")) for path in run.glob("state/step_*.pt"))
    again = [*arguments(world, run), f"train.max_steps={last + 1}"]
    outcome = isolated(name, lambda: main(again), work, Limits(120, 3000))
    return replace(outcome, seconds=seconds) if outcome.verdict == ACCEPTED else replace(outcome, verdict="no resume")


# --------------------------------------------------------------------------- not finite, no memory
def not_finite(world: Path, work: Path, rng: random.Random) -> Outcome:
    """Losses of some micro-batches are NaN or infinite: their steps are skipped and counted, the weights are finite."""
    share, value = rng.choice((0.2, 0.4)), rng.choice((float("nan"), float("inf"), -float("inf")))
    real, injected = pretrain.Pretraining.loss, []

    def loss(self, prepared):
        part = real(self, prepared)
        if self.module.training and rng.random() < share:
            injected.append(1)
            part.loss = part.loss * value
        return part

    def train() -> int:
        pretrain.Pretraining.loss = loss  # in this process, which is a fork
        code = main([*arguments(world, work / "run"), "train.max_steps=20", "train.save_every=20"])
        weights = load_file(work / "run" / "model.safetensors")
        if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
            raise Fault("weights not finite", "after skipped steps")
        if injected and "steps were skipped" not in (work / ".case.out").read_text(encoding="utf-8"):
            raise Fault("not counted", f"{len(injected)} injected")
        return code

    return isolated(f"loss {value} in {share:.0%}", train, work, Limits(120, 3000))


def no_memory(world: Path, work: Path, rng: random.Random) -> Outcome:
    """The address space is limited to a little more than is in use: one sentence, at any place of the run."""
    more = rng.randint(2, 400) << 20

    def train() -> int:
        used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * os.sysconf("SC_PAGE_SIZE")
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + more, hard))
        code = main([*arguments(world, work / "run"), "model.encoder_embed_dim=64", "train.frames_per_batch=400"])
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        return code

    return isolated(f"{more >> 20} MB more", train, work, Limits(120, 3000))


Inflict = Callable[[Path, Path, random.Random], Outcome]
FAULTS: tuple[Inflict, ...] = (corrupt_clips, killed_rank, not_finite, no_memory)


def make(folder: Path, seed: int) -> Case:
    world = make_world(folder / "world")
    torch.set_num_threads(1)
    work = folder / "work"

    def case(number: int) -> Outcome:
        rng = random_of(seed, "training", number)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        outcome = FAULTS[number % len(FAULTS)](world, work, rng)
        return replace(outcome, case=f"{number} {outcome.case}")

    return case


PART = Part(
    "training",
    "5 % corrupt clips: named, all steps done; a killed rank, under torchrun or without it: the others stop in 30 s "
    "with the reason, the run resumes; losses that are NaN or infinite: skipped and counted; too little memory: one "
    "sentence. (Loaders are threads: none can die alone.)",
    200,
    make,
)
