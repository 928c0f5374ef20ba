"""Runs work in processes that may crash or hang without ending the job, such as decoders of files of unknown origin.

`concurrent.futures.ProcessPoolExecutor` and `loky` give up all their work when one process dies; here only the task of
that process fails. Each process has one task at a time, so the guilty task is known.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from avhubert.errors import AvhubertError, CheckpointError, ConfigError
from avhubert.platforms import free_memory, is_windows, limit_memory, without_interrupts

T = TypeVar("T")
R = TypeVar("R")

POLL_SECONDS = 1.0  # at least so often, the silence of every process is checked
MAX_MEMORY = 8 << 30  # bytes of one process; decoding H.265 of 7680 × 4320 pixels takes 4.5 GB
MIN_MEMORY = 2 << 30  # bytes, the limit where less is free
REPORT_SECONDS = 0.2  # between two messages of a process that its work goes on

OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # what is wrong is the output folder, not an input
CRASHED = "the decoder crashed"
NO_PROGRESS = "no progress"
NO_MEMORY = "it needs too much memory"


@dataclass(frozen=True)
class Failure:
    """Why a task has no result.

    Attributes:
        kind: `CRASHED`, `NO_PROGRESS`, `NO_MEMORY`, or another name that failures can be counted by.
        reason: The same with details, for the user.
        traceback: Of an unexpected error, for a log.
    """

    kind: str
    reason: str
    traceback: str = ""


def failure_of(error: Exception) -> Failure:
    """The failure of one task, with the traceback of the error that is being handled if nobody expected it.

    Raises:
        The error itself if every task would fail: a model that cannot be loaded, a full or read-only disk.
    """
    if isinstance(error, (ConfigError, CheckpointError)):
        raise error
    if isinstance(error, OSError) and error.errno in OUTPUT_ERRORS:
        raise error
    if isinstance(error, MemoryError):
        return Failure(NO_MEMORY, " ".join(f"{NO_MEMORY} ({error})".split()) if str(error) else NO_MEMORY)
    if isinstance(error, AvhubertError):
        reason = " ".join(str(error).split())
        return Failure(error.kind or reason, reason)
    kind = f"unexpected error {type(error).__name__}"
    return Failure(kind, " ".join(f"{kind}: {error}".split()), traceback.format_exc())


def run_in_processes(
    work: Callable[[T], R],
    tasks: Iterable[T],
    processes: int,
    stall_seconds: float,
    initialize: Callable[[], None] | None = None,
) -> Generator[tuple[T, R | Failure], None, None]:
    """Call `work(task)` for every task, in processes that are replaced when they die or hang.

    Args:
        work: A function that can be pickled. An error that it raises is a failure of its task; see `failure_of`.
        tasks: Its arguments.
        processes: Number of processes.
        stall_seconds: A process is killed if its task makes no progress for so long; see `report_progress`.
        initialize: Called once in every process.

    Yields:
        Every task with its result, or with the reason why there is none, in the order in which they end.

    Raises:
        AvhubertError: A process cannot be started, or `failure_of` takes an error as one of the job.
        OSError: The same.
    """
    pool = [_Process(work, initialize) for _ in range(processes)]
    waiting = iter(tasks)
    exhausted = False
    try:
        while True:
            for process in pool:
                if process.is_free() and not exhausted:
                    task = next(waiting, _END)
                    exhausted = task is _END
                    if not exhausted:
                        process.give(task)
            if exhausted and all(process.task is None for process in pool):
                return
            yield from _collect(pool, stall_seconds, exhausted)
    finally:
        for process in pool:
            process.kill()


_END: Any = object()


def _collect(pool: list[_Process[T, R]], stall_seconds: float, exhausted: bool) -> Iterator[tuple[T, R | Failure]]:
    """Wait for messages of the processes; replace those that died or hang."""
    watched = [process for process in pool if process.task is not None or not (process.ready or exhausted)]
    before = time.monotonic()
    answering = set(wait([process.pipe for process in watched], min(POLL_SECONDS, stall_seconds)))
    seconds = time.monotonic() - before
    for process in watched:
        if process.pipe in answering:
            message = process.receive()
            if message is not None:
                yield message
        elif process.task is not None:
            # only time in which this loop waits counts: a job that was suspended did not hang
            process.silent_seconds += seconds
            if process.silent_seconds >= stall_seconds:
                yield process.fail(Failure(NO_PROGRESS, f"no progress for {stall_seconds:g} s"))


class _Process(Generic[T, R]):
    """One process and its task.

    Attributes:
        pipe: This end of the pipe to the process.
        task: The task it works on; None: none.
        ready: Whether the process has started.
        silent_seconds: For how long it has sent nothing.
    """

    def __init__(self, work: Callable[[T], R], initialize: Callable[[], None] | None) -> None:
        self._arguments = (work, initialize)
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(other_end, *self._arguments), daemon=True)
        if not is_windows():
            from multiprocessing import resource_tracker

            resource_tracker.ensure_running()  # the first process would start it, which lets Ctrl-C through
        with without_interrupts():  # Ctrl-C reaches the process too, which its parent ends
            self._process.start()
        other_end.close()
        self.task: T | None = None
        self.ready = False
        self.silent_seconds = 0.0

    def is_free(self) -> bool:
        """Whether a task can be given; replaces a process that was killed while it had none."""
        if not self.ready or self.task is not None:
            return False
        if self._process.is_alive():
            return True
        self.kill()
        self._start()
        return False

    def give(self, task: T) -> None:
        """Start work on a task."""
        self.task, self.silent_seconds = task, 0.0
        with contextlib.suppress(OSError):  # the process has died since: `receive` finds out
            self.pipe.send(task)

    def receive(self) -> tuple[T, R | Failure] | None:
        """Read one message: the result of the task, or a failure if the process has died; None: no result yet."""
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            return self._died()
        self.silent_seconds = 0.0
        if kind == "error":
            raise value
        if kind == "ready":
            self.ready = True
        if kind != "result":
            return None
        assert self.task is not None
        if isinstance(value, Failure) and value.kind == NO_MEMORY:
            return self.fail(value)  # a decoder may not have freed what it had
        task, self.task = self.task, None
        return task, value

    def _died(self) -> tuple[T, R | Failure]:
        self._process.join()
        code = self._process.exitcode or 0
        if not self.ready:
            raise AvhubertError(f"a worker process could not be started (exit code {code}); see the messages above")
        return self.fail(Failure(CRASHED, f"{CRASHED} ({_describe_exit(code)})"))

    def fail(self, failure: Failure) -> tuple[T, R | Failure]:
        """End the task with a failure, and replace the process."""
        task = self.task
        assert task is not None
        self.kill()
        self._start()
        return task, failure

    def kill(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self.pipe.close()


def _describe_exit(code: int) -> str:
    if code == -getattr(signal, "SIGKILL", 9):
        return "killed; if memory was short, use fewer --workers"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"exit code {code}"


class Caller:
    """Calls functions in one process, which is replaced when it dies or hangs. Only one thread may use it.

    Args:
        stall_seconds: as in `run_in_processes`.
        initialize: as in `run_in_processes`; to import what the functions need before the first call.
    """

    def __init__(self, stall_seconds: float, initialize: Callable[[], None] | None = None) -> None:
        self._settings = (1, stall_seconds, initialize)
        self._calls: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._outcomes: Generator[tuple[Any, Any], None, None] | None = None

    def call(self, function: Callable[[], R]) -> R | Failure:
        """The result of a function that can be pickled, or why there is none; errors as in `run_in_processes`."""
        if self._outcomes is None:  # the first call starts the process
            self._outcomes = run_in_processes(_call, iter(self._calls.get, None), *self._settings)
        self._calls.put(function)
        try:
            _, outcome = next(self._outcomes)
        except BaseException:
            self._outcomes = None  # the process has ended
            raise
        result: R | Failure = outcome
        return result

    def close(self) -> None:
        """End the process; the next call starts another one."""
        if self._outcomes is not None:
            self._outcomes.close()
            self._outcomes = None


def _call(function: Callable[[], Any]) -> Any:
    return function()


# --------------------------------------------------------------------------- in the processes
_report: Callable[[], None] | None = None


def report_progress() -> None:
    """Say that the work goes on; to be called wherever a decoder has delivered something, in any process.

    In a process that nobody watches it does nothing.
    """
    if _report is not None:
        _report()


def watch_progress(report: Callable[[], None] | None) -> None:
    """Let `report_progress` call `report` in this process."""
    global _report
    _report = report


def _serve(pipe: Connection, work: Callable[[Any], Any], initialize: Callable[[], None] | None) -> None:
    """The main loop of a process: receives tasks; sends (kind, value): 'ready', 'progress', 'result' or 'error'."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for Windows
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit_memory()
    if initialize is not None:
        initialize()
    last = time.monotonic()

    def report() -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_SECONDS:
            last = time.monotonic()
            pipe.send(("progress", None))

    watch_progress(report)
    pipe.send(("ready", None))
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(_try(work, task))


def _try(work: Callable[[Any], Any], task: object) -> tuple[str, Any]:
    try:
        return "result", work(task)
    except Exception as error:
        try:
            return "result", failure_of(error)
        except Exception as fatal:
            return "error", fatal


def _limit_memory() -> None:
    """Let a decoder that takes all memory fail alone; on Linux only."""
    free = free_memory()
    limit_memory(MAX_MEMORY if free is None else min(max(free, MIN_MEMORY), MAX_MEMORY))


def _end_with_parent() -> None:
    """End this process when its parent has ended, even if a decoder hangs."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
