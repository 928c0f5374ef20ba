"""What all executors share: the types of the work and its outcome, and the settings of a worker process."""

from __future__ import annotations

from collections.abc import Callable

from avhubert import platforms
from avhubert.corpora.sources import SourceClip
from avhubert.prepare.records import ClipResult
from avhubert.processes import Failure

Work = Callable[..., ClipResult]  # takes a source clip and settings
Outcome = tuple[SourceClip, "ClipResult | Failure"]

MAX_MEMORY = 8 << 30  # bytes of one process; decoding H.265 of 7680 × 4320 pixels takes 4.5 GB
MIN_MEMORY = 2 << 30  # the limit where less is free


def start_worker() -> None:
    """Use one core per worker: the threads of several workers would compete for the cores."""
    import torch

    torch.set_num_threads(1)


def limit_memory() -> None:
    """Limit the memory of this process, so that a decoder that takes all of it fails alone; on Linux only.

    The limit is what is free on the machine, but from 2 to 8 GiB.
    """
    free = platforms.free_memory()
    platforms.limit_memory(MAX_MEMORY if free is None else min(max(free, MIN_MEMORY), MAX_MEMORY))
