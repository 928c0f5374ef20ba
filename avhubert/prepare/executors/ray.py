"""Prepares clips on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from avhubert.errors import AvhubertError, ConfigError
from avhubert.prepare.executors.local import Work, start_worker

if TYPE_CHECKING:
    from avhubert.corpora.sources import SourceClip
    from avhubert.prepare.records import Done

TRIES = 3  # of a clip whose Ray worker dies


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
