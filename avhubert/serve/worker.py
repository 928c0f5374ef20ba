"""One thread that uses the recognizer, and a bounded queue of requests that wait for it."""

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
from typing import Any, Generic, TypeVar

from avhubert.serve.limits import MAX_RETRY_SECONDS, RequestError

T = TypeVar("T")


class Admission:
    """A request that the server has accepted, with a folder of its own that is deleted at the end.

    Attributes:
        folder: Folder for the files of the request.
    """

    def __init__(self, folder: Path, on_release: Callable[[], None]) -> None:
        self.folder = folder
        self._on_release = on_release
        self._released = False

    def release(self) -> None:
        """Ends the request: deletes its folder and lets another request in."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if not self._released:
            self._released = True
            self._on_release()


class Job(Generic[T]):
    """Work for the recognizer's thread.

    Attributes:
        work: The function to call, with `stop`.
        future: Its result.
        stop: Set when the result is no longer needed; `work` checks it between segments.
    """

    def __init__(self, work: Callable[[threading.Event], T]) -> None:
        self.work = work
        self.future: Future[T] = Future()
        self.stop = threading.Event()

    def cancel(self) -> None:
        """Ends the job: at once if it is waiting, at its next check of `stop` if it is running."""
        self.stop.set()
        self.future.cancel()


class Worker:
    """Runs jobs one after the other, in the order of `submit`.

    A request is admitted before its body is read, so that the disk space of all requests is bounded.
    """

    def __init__(self, queue_limit: int, folder: Path) -> None:
        """Starts the thread.

        Args:
            queue_limit: Number of requests that may be admitted besides the one that is transcribed.
            folder: Folder for the files of requests.
        """
        self._queue_limit = queue_limit
        self._folder = folder
        self._lock = threading.Lock()
        self._admitted = 0
        self._jobs: queue.SimpleQueue[Job[Any]] = queue.SimpleQueue()
        self._durations: deque[float] = deque([1.0], maxlen=10)  # seconds of recent jobs
        self._current: Job[Any] | None = None
        self._stopping = False
        threading.Thread(target=self._run, name="recognizer", daemon=True).start()

    @property
    def admitted(self) -> int:
        """Number of requests that upload, wait or are transcribed."""
        return self._admitted

    def admit(self) -> Admission:
        """Accepts a request.

        Raises:
            RequestError: Status 429: the queue is full.
        """
        with self._lock:
            if self._admitted > self._queue_limit:
                raise RequestError(
                    429,
                    f"{self._admitted} requests are already being transcribed or waiting; try again later",
                    {"retry-after": str(self._retry_seconds())},
                )
            self._admitted += 1
        try:
            return Admission(Path(tempfile.mkdtemp(dir=self._folder)), self._release)
        except BaseException:
            self._release()
            raise

    def submit(self, admission: Admission, work: Callable[[threading.Event], T]) -> Job[T]:
        """Adds `work` to the queue; the admission is released when it has ended."""
        job = Job(work)
        job.future.add_done_callback(lambda _: admission.release())
        self._jobs.put(job)
        return job

    def stop(self) -> None:
        """Starts no further job, and ends the running one at its next check."""
        self._stopping = True
        current = self._current
        if current is not None:
            current.stop.set()

    def _retry_seconds(self) -> int:
        seconds = math.ceil(self._admitted * sum(self._durations) / len(self._durations) / 2)
        return min(max(1, seconds), MAX_RETRY_SECONDS)

    def _release(self) -> None:
        with self._lock:
            self._admitted -= 1

    def _run(self) -> None:
        while not self._stopping:
            job: Job[Any] | None = self._jobs.get()
            assert job is not None
            if not job.future.set_running_or_notify_cancel():
                continue
            self._current = job
            start_time = time.monotonic()
            try:
                result = job.work(job.stop)
            except BaseException as error:
                job.future.set_exception(error)
            else:
                job.future.set_result(result)
            self._durations.append(time.monotonic() - start_time)
            self._current = job = None  # frees the recording while the thread waits
