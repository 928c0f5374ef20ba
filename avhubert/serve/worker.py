"""One thread that owns the recognizer, and a bounded number of requests that wait for it."""

from __future__ import annotations

import math
import queue
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from avhubert.serve.limits import Refused

LONGEST_RETRY = 60  # seconds


class Place:
    """A request's place among those inside, with a folder of its own that goes when the place is left."""

    def __init__(self, worker: Worker, folder: Path) -> None:
        self._worker, self.folder = worker, folder
        self._left = False

    def leave(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if not self._left:
            self._left = True
            self._worker._leave()


class Job:
    """Work that was handed in: `future` of its result; `give_up` ends it, at its next look at `stop` if it runs."""

    def __init__(self, work: Callable[[threading.Event], Any]) -> None:
        self.work = work
        self.future: Future[Any] = Future()
        self.stop = threading.Event()

    def give_up(self) -> None:
        self.stop.set()
        self.future.cancel()


class Worker:
    """Runs one job at a time, in the order of `submit`; `waiting` requests more may be inside.

    A place is taken before a request's body is read, so that the disk that all of them use is bounded.
    """

    def __init__(self, waiting: int, folder: Path) -> None:
        self.waiting, self.folder = waiting, folder
        self._lock = threading.Lock()
        self._inside = 0
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._recent: deque[float] = deque([1.0], maxlen=10)
        self._current: Job | None = None
        self._stopping = False
        threading.Thread(target=self._run, name="recognizer", daemon=True).start()

    @property
    def inside(self) -> int:
        """Requests that upload, wait or are transcribed."""
        return self._inside

    def admit(self) -> Place:
        """A place inside; Refused (429) where there is none."""
        with self._lock:
            if self._inside > self.waiting:
                seconds = math.ceil(self._inside * sum(self._recent) / len(self._recent) / 2)
                raise Refused(
                    429,
                    f"{self._inside} requests are being transcribed or wait already; try again later",
                    {"retry-after": str(min(max(1, seconds), LONGEST_RETRY))},
                )
            self._inside += 1
        try:
            return Place(self, Path(tempfile.mkdtemp(dir=self.folder)))
        except BaseException:
            self._leave()
            raise

    def submit(self, place: Place, work: Callable[[threading.Event], Any]) -> Job:
        """Run `work(stop)` when its turn comes; the place is left when it's over, whoever still waits for it."""
        job = Job(work)
        job.future.add_done_callback(lambda _: place.leave())
        self._jobs.put(job)
        return job

    def stop(self) -> None:
        """Take no further job, and ask the running one to end."""
        self._stopping = True
        current = self._current
        if current is not None:
            current.stop.set()

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1

    def _run(self) -> None:
        while not self._stopping:
            job = self._jobs.get()
            if not job.future.set_running_or_notify_cancel():
                continue
            self._current = job
            began = time.monotonic()
            try:
                result = job.work(job.stop)
            except BaseException as error:
                job.future.set_exception(error)
            else:
                job.future.set_result(result)
            self._recent.append(time.monotonic() - began)
            self._current = job = None  # type: ignore[assignment]
