"""Who does the work of preparation: processes of this machine, or a Ray cluster. Results come as they are finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from avhubert.errors import AvhubertError, ConfigError

if TYPE_CHECKING:
    from avhubert.prepare.pipeline import Done, SourceClip

Work = Callable[..., "Done"]
TRIES = 3  # of a clip whose Ray worker dies


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


def on_ray(work: Work, clips: Sequence[SourceClip], workers: int, *settings: Any) -> Iterator[Done]:
    """On the Ray cluster of RAY_ADDRESS, or one started here with `workers` cores; `DST` must be a folder that all see.

    A worker that dies is replaced and its clip done by another, up to three times.

    Raises:
        ConfigError: Ray is not installed, or its cluster cannot be reached.
        AvhubertError: a clip at which every worker died.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "--executor ray needs Ray, which is not installed; run: pip install 'avhubert[ray]'"
        ) from error
    import os

    mine = not ray.is_initialized()
    if mine:
        try:
            if os.environ.get("RAY_ADDRESS"):
                ray.init(log_to_driver=False, logging_level="error")
            else:
                ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"the Ray cluster cannot be reached: {' '.join(str(error).split())}") from error

    @ray.remote(num_cpus=1, max_retries=TRIES)
    def one(clip: SourceClip) -> Done:
        start_worker()
        return work(clip, *settings)

    try:
        waiting = iter(clips)
        running: dict[Any, SourceClip] = {}
        while True:
            for clip in waiting:
                running[one.remote(clip)] = clip
                if len(running) >= 2 * int(ray.cluster_resources().get("CPU", 1)):
                    break
            if not running:
                return
            (finished, *_), _ = ray.wait(list(running))
            try:
                yield ray.get(finished)
            except ray.exceptions.WorkerCrashedError as error:
                name = running[finished].id
                raise AvhubertError(
                    f"every worker that took the clip {name} died (out of memory?); remove it, or start again to go on"
                ) from error
            del running[finished]
    finally:
        if mine:
            ray.shutdown()


EXECUTORS: dict[str, Callable[..., Iterator[Done]]] = {"local": local, "ray": on_ray}
