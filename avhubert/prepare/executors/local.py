"""Prepares clips in processes of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from avhubert.errors import AvhubertError

if TYPE_CHECKING:
    from avhubert.corpora.sources import SourceClip
    from avhubert.prepare.records import Done

Work = Callable[..., "Done"]


def start_worker() -> None:
    """One core a worker: several workers' threads would stand in each other's way."""
    import torch

    torch.set_num_threads(1)


def local(work: Work, clips: Sequence[SourceClip], workers: int, *settings: Any) -> Iterator[Done]:
    """In processes of this machine. AvhubertError if one dies: something is wrong here, and nobody else is there."""
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start_worker)
    waiting = iter(clips)
    running = {}
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
            f"a worker died (out of memory, or killed) at one of these clips: {names}; start again to go on"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
