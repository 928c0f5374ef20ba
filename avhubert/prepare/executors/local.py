"""Prepares clips in processes of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from avhubert.corpora.sources import SourceClip
from avhubert.errors import AvhubertError
from avhubert.platforms import usable_processes
from avhubert.prepare.executors.worker import Work, start_worker
from avhubert.prepare.records import ClipResult


def run_locally(work: Work, clips: Sequence[SourceClip], workers: int, *settings: Any) -> Iterator[ClipResult]:
    """Run `work(clip, *settings)` in processes of this machine; yields results as they finish.

    Raises:
        AvhubertError: A worker died, for example because memory ran out.
    """
    pool = ProcessPoolExecutor(usable_processes(workers), mp_context=get_context("spawn"), initializer=start_worker)
    waiting = iter(clips)
    running: dict[Future[ClipResult], SourceClip] = {}
    try:
        while True:
            for clip in waiting:
                running[pool.submit(work, clip, *settings)] = clip
                if len(running) >= 2 * workers:
                    break
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
                del running[future]
    except BrokenProcessPool as error:
        names = ", ".join(sorted(clip.id for clip in running.values()))
        raise AvhubertError(
            f"a worker died (out of memory, or killed) at one of these clips: {names}; run again to resume"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
