"""What all executors share: the types of the work and its outcome, and the settings of a worker process."""

from __future__ import annotations

from collections.abc import Callable

from avhubert.corpora.sources import SourceClip
from avhubert.prepare.records import ClipResult
from avhubert.processes import Failure

Work = Callable[..., ClipResult]  # takes a source clip and settings
Outcome = tuple[SourceClip, "ClipResult | Failure"]


def start_worker() -> None:
    """Use one core per worker: the threads of several workers would compete for the cores."""
    import torch

    torch.set_num_threads(1)
