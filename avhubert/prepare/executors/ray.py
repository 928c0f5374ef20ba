"""Prepares clips on a Ray cluster."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator, Sequence
from typing import Any

from avhubert.corpora.sources import SourceClip
from avhubert.errors import ConfigError
from avhubert.prepare.executors.worker import Outcome, Work, start_worker
from avhubert.prepare.records import ClipResult
from avhubert.processes import CRASHED, Failure, failure_of, watch_progress

MAX_RETRIES = 3  # of a clip whose Ray worker dies: it may be the worker's machine that failed


def run_on_ray(
    work: Work, clips: Sequence[SourceClip], workers: int, stall_seconds: float, *settings: Any
) -> Generator[Outcome, None, None]:
    """Run `work(clip, *settings)` on the cluster of RAY_ADDRESS, or on one started here with `workers` cores.

    All nodes must see the output folder. A worker that dies, or makes no progress for `stall_seconds`, is replaced, and
    its clip is tried again up to three times.

    Raises:
        ConfigError: Ray is not installed, or its cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "--executor ray needs Ray, which is not installed; run: pip install 'avhubert[ray]'"
        ) from error
    started_here = not ray.is_initialized()
    if started_here:
        _connect(ray, workers)

    @ray.remote(num_cpus=1, max_retries=MAX_RETRIES)  # type: ignore[untyped-decorator, unused-ignore]
    def prepare_remotely(clip: SourceClip) -> ClipResult | Failure:
        start_worker()
        with _EndWhenStalled(stall_seconds):
            try:
                return work(clip, *settings)
            except Exception as error:
                return failure_of(error)

    try:
        waiting = iter(clips)
        running: dict[Any, SourceClip] = {}
        while True:
            for clip in waiting:
                running[prepare_remotely.remote(clip)] = clip
                if len(running) >= 2 * int(ray.cluster_resources().get("CPU", 1)):
                    break
            if not running:
                return
            (finished, *_), _ = ray.wait(list(running))
            clip = running.pop(finished)
            try:
                yield clip, ray.get(finished)
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
                reason = f"{CRASHED}, or made no progress for {stall_seconds:g} s, in {MAX_RETRIES + 1} Ray workers"
                yield clip, Failure(CRASHED, reason)
    finally:
        if started_here:
            ray.shutdown()


class _EndWhenStalled:
    """Ends this process when `report_progress` is not called for so many seconds; Ray then starts another one."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._restart()
        watch_progress(self._restart)

    def __exit__(self, *_: object) -> None:
        watch_progress(None)
        faulthandler.cancel_dump_traceback_later()

    def _restart(self) -> None:
        # a thread without the interpreter lock: it also ends a decoder that never gives the lock back
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=2)


def _connect(ray: Any, workers: int) -> None:
    try:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False, logging_level="error")
        else:
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"the Ray cluster cannot be reached: {' '.join(str(error).split())}") from error
