"""Loading batches ahead in threads."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from avhubert.data.batching import StepOrder
from avhubert.data.collate import Batch
from avhubert.data.dataset import ClipDataset


class Loader:
    """Loads batches of a data set in a given order. The batches do not depend on the number of workers.

    Args:
        dataset: the clips.
        workers: threads that load ahead; 0: each batch is loaded when it is requested.
    """

    def __init__(self, dataset: ClipDataset, workers: int = 0) -> None:
        self.dataset = dataset
        self.workers = workers

    def batches(self, requests: Iterable[tuple[int, Sequence[int]]]) -> Iterator[Batch]:
        """Load a batch for each request.

        Args:
            requests: (epoch, indices of clips) of each batch; may be infinite.

        Raises:
            MediaError, DataError: a clip cannot be read; raised in place of its batch.
        """
        if self.workers == 0:
            for epoch, indices in requests:
                yield self.dataset.batch(indices, epoch)
            return
        # one thread for torch's own loops: by default each worker would start as many as there are cores
        pool = ThreadPoolExecutor(self.workers, "avhubert-loader", torch.set_num_threads, (1,))
        waiting: deque[Future[Batch]] = deque()
        try:
            for epoch, indices in requests:
                waiting.append(pool.submit(self.dataset.batch, indices, epoch))
                if len(waiting) > 2 * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def steps(
        self, order: StepOrder, first: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Sequence[tuple[int, Batch]]]:
        """Load the micro-batches of this rank for each step, without end.

        Micro-batch i of a step goes to rank i mod `world_size`. Micro-batches are loaded as they are taken: take all of
        a step, in order and once, before the next step.

        Args:
            order: the clips of each step.
            first: number of the first step.
            rank: of this process.
            world_size: number of processes.

        Yields:
            Per step a sequence of (index of the micro-batch in the step, batch).

        Raises:
            MediaError, DataError: a clip cannot be read; raised in place of its batch.
        """

        def own_batches(number: int) -> tuple[int, list[tuple[int, list[int]]]]:
            epoch, micro_batches = order.step(number)
            return epoch, list(enumerate(micro_batches))[rank::world_size]

        def requests() -> Iterator[tuple[int, list[int]]]:
            for number in itertools.count(first):
                epoch, micro_batches = own_batches(number)
                for _, indices in micro_batches:
                    yield epoch, indices

        with contextlib.closing(self.batches(requests())) as batches:  # type: ignore[type-var]
            for number in itertools.count(first):
                step = _Step([index for index, _ in own_batches(number)[1]], batches)
                yield step
                assert step.done, "take all micro-batches of a step before the next step"


class _Step(Sequence[tuple[int, Batch]]):
    """Micro-batches of a step. Each can be taken once, in order: then only one of them is in memory.

    Args:
        indices: of this rank's micro-batches in the step.
        batches: the next batches of this rank.
    """

    def __init__(self, indices: list[int], batches: Iterator[Batch]) -> None:
        self._indices, self._batches, self._taken = indices, batches, 0

    @property
    def done(self) -> bool:
        return self._taken == len(self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, number: Any) -> Any:
        index = self._indices[number]  # IndexError ends an iteration
        assert number == self._taken, "take the micro-batches of a step once and in order"
        self._taken += 1
        return index, next(self._batches)
