"""What all executors share: the type of the work, and the settings of a worker process."""

from __future__ import annotations

from collections.abc import Callable

import torch

from avhubert.prepare.records import ClipResult

Work = Callable[..., ClipResult]  # takes a source clip and settings


def start_worker() -> None:
    """Use one core per worker: the threads of several workers would compete for the cores."""
    torch.set_num_threads(1)
