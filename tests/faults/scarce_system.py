"""Part `system`: what the operating system and other processes do to a command.

A full disk, a file system without locks, a clock that goes back, a read-only folder, two jobs in one folder, and data
that vanish. The command ends with one sentence, or does all of its work; started again without the fault, it writes the
bytes of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.isolate import Fault
from tests.faults.killed_commands import COMMANDS, Command, Commands
from tests.faults.outcome import ACCEPTED, REFUSED, SKIPPED, Outcome
from tests.faults.part import Case, Part, random_of
from tests.faults.preload import AVAILABLE, Run


class Skip(Exception):
    """This machine does not permit the fault."""


def _require_sentence(run: Run) -> None:
    if run.problem is not None:
        raise Fault(run.problem, run.stderr[-600:])


def _require_success(run: Run) -> None:
    _require_sentence(run)
    if run.code:
        raise Fault("fails", run.stderr[-500:])


def disk_full(commands: Commands, command: Command, rng: random.Random) -> str:
    limit = rng.randrange(max(1, commands.reference(command).written))
    commands.empty()
    run = commands.run(command, disk_bytes=limit)
    _require_sentence(run)
    if run.code and "space" not in run.stderr:
        raise Fault("other cause", run.stderr[-500:])
    _require_success(commands.run(command))
    commands.compare(command)
    return REFUSED if run.code else ACCEPTED


def no_locks(commands: Commands, command: Command, rng: random.Random) -> str:
    commands.reference(command)
    commands.empty()
    _require_success(commands.run(command, no_locks=rng.choice((errno.ENOSYS, errno.ENOLCK))))
    commands.compare(command)
    return ACCEPTED


def clock_back(commands: Commands, command: Command, rng: random.Random) -> str:
    commands.reference(command)
    commands.empty()
    _require_success(commands.run(command, clock_back=rng.choice((5, 3600, 10**8))))
    commands.compare(command)
    return ACCEPTED


@contextlib.contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    if os.geteuid():
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(0o755)
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        raise Skip("mounting is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def read_only(commands: Commands, command: Command, rng: random.Random) -> str:
    commands.reference(command)
    commands.empty()
    with _read_only(commands.out):
        run = commands.run(command)
    _require_sentence(run)
    if not run.code:
        raise Fault("success without output", run.stdout[-300:])
    _require_success(commands.run(command))
    commands.compare(command)
    return REFUSED


def two_jobs(commands: Commands, command: Command, rng: random.Random) -> str:
    commands.reference(command)
    commands.empty()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(commands.run, command)
        time.sleep(rng.choice((0, 0, 0.5, 2)))
        runs = [pool.submit(commands.run, command).result(), first.result()]
    for run in runs:
        _require_sentence(run)
    if all(run.code for run in runs):
        raise Fault("both fail", " | ".join(run.stderr[-250:] for run in runs))
    if any(run.code for run in runs):
        commands.compare(command)
        return REFUSED
    commands.compare(command)
    return ACCEPTED


def vanished_data(commands: Commands, command: Command, rng: random.Random) -> str:
    """A file of the data vanishes before the command, or all of it while the command runs."""
    intact = commands.world
    commands.reference(command)
    commands.empty()
    copy = intact.with_name("vanishing")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(intact, copy, symlinks=True)
    for manifest in copy.glob("*/*.tsv"):
        manifest.write_text(manifest.read_text(encoding="utf-8").replace(str(intact), str(copy)), encoding="utf-8")
    with ThreadPoolExecutor(1) as pool:
        if rng.random() < 0.5:
            files = [path for path in copy.rglob("*") if path.is_file() and path.parent.name != "evaluation"]
            rng.choice(files).unlink()
            job = pool.submit(commands.preload.run, command.line(copy, commands.out))
        else:
            job = pool.submit(commands.preload.run, command.line(copy, commands.out))
            time.sleep(rng.uniform(0.5, 5))
            for name in ("data", "corpus", "labels", "shards"):
                shutil.rmtree(copy / name, ignore_errors=True)
        run = job.result()
    shutil.rmtree(copy, ignore_errors=True)
    _require_sentence(run)
    return REFUSED if run.code else ACCEPTED


FAULTS: tuple[Callable[[Commands, Command, random.Random], str], ...] = (
    disk_full, vanished_data, two_jobs, disk_full, no_locks, clock_back, read_only,
)  # fmt: skip


def make(folder: Path, seed: int) -> Case:
    if not AVAILABLE:
        return lambda number: Outcome(f"{number}", SKIPPED, "needs Linux and a C compiler")
    commands = Commands(folder)

    def case(number: int) -> Outcome:
        rng = random_of(seed, "system", number)
        command = COMMANDS[number % len(COMMANDS)]
        inflict = FAULTS[number // len(COMMANDS) % len(FAULTS)]
        name, started = f"{number} {command.name}: {inflict.__name__}", time.monotonic()
        try:
            verdict, message = inflict(commands, command, rng), ""
        except Skip as reason:
            verdict, message = SKIPPED, str(reason)
        except Fault as fault:
            verdict, message = fault.verdict, str(fault)
        return Outcome(name, verdict, message, time.monotonic() - started)

    return case


PART = Part(
    "system",
    "a full disk, vanished data, two jobs in one folder, no locks, a clock that goes back, a read-only folder, for "
    "each command: one sentence or all the work; afterwards the same bytes",
    len(FAULTS) * len(COMMANDS),
    make,
)
