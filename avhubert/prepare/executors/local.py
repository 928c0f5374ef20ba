"""Prepares clips in processes of this machine."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

from avhubert.corpora.sources import SourceClip
from avhubert.platforms import usable_processes
from avhubert.prepare.executors.worker import Outcome, Work, start_worker
from avhubert.prepare.records import ClipResult
from avhubert.processes import run_in_processes


def run_locally(
    work: Work, clips: Sequence[SourceClip], workers: int, stall_seconds: float, *settings: Any
) -> Generator[Outcome, None, None]:
    """Run `work(clip, *settings)` in processes of this machine; yields results as they finish.

    A process that dies, or makes no progress for `stall_seconds`, is replaced; its clip is the only one that fails.
    """
    processes = usable_processes(workers)
    return run_in_processes(partial(_call, work, settings), clips, processes, stall_seconds, start_worker)


def _call(work: Work, settings: tuple[Any, ...], clip: SourceClip) -> ClipResult:
    return work(clip, *settings)
