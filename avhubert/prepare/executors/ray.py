"""Prepares clips on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from avhubert.corpora.sources import SourceClip
from avhubert.errors import AvhubertError, ConfigError
from avhubert.prepare.executors.worker import Work, start_worker
from avhubert.prepare.records import ClipResult

MAX_RETRIES = 3  # of a clip whose Ray worker dies


def run_on_ray(work: Work, clips: Sequence[SourceClip], workers: int, *settings: Any) -> Iterator[ClipResult]:
    """Run `work(clip, *settings)` on the cluster of RAY_ADDRESS, or on one started here with `workers` cores.

    All nodes must see the output folder. A worker that dies is replaced, and its clip is tried again up to three
    times.

    Raises:
        ConfigError: Ray is not installed, or its cluster cannot be reached.
        AvhubertError: Every worker died at the same clip.
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
    def prepare_remotely(clip: SourceClip) -> ClipResult:
        start_worker()
        return work(clip, *settings)

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
            try:
                yield ray.get(finished)
            except ray.exceptions.WorkerCrashedError as error:
                name = running[finished].id
                raise AvhubertError(
                    f"every worker that took the clip {name} died (out of memory?); remove it, or run again to resume",
                    clip_id=name,
                ) from error
            del running[finished]
    finally:
        if started_here:
            ray.shutdown()


def _connect(ray: Any, workers: int) -> None:
    try:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False, logging_level="error")
        else:
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"the Ray cluster cannot be reached: {' '.join(str(error).split())}") from error
