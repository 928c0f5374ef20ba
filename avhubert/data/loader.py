"""Loads batches ahead in threads."""

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


# --------------------------------------------------------------------------- loading ahead
class Loader:
    """Batches of a dataset in a given order, loaded ahead by `workers` threads (0: when they are asked for).

    The batches are the same whatever the number of workers. An error of a clip is raised where its batch would come.
    """

    def __init__(self, dataset: ClipDataset, workers: int = 0) -> None:
        self.dataset = dataset
        self.workers = workers

    def batches(self, wanted: Iterable[tuple[int, Sequence[int]]]) -> Iterator[Batch]:
        """A batch for each (epoch, indices); `wanted` may be endless."""
        if self.workers == 0:
            for epoch, indices in wanted:
                yield self.dataset.batch(indices, epoch)
            return
        # each thread would otherwise start as many more for torch's own loops as there are cores
        pool = ThreadPoolExecutor(self.workers, "avhubert-loader", torch.set_num_threads, (1,))
        waiting: deque[Future[Batch]] = deque()
        try:
            for epoch, indices in wanted:
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
        """For each step from `first` on, without end: this rank's (place in the step's list, batch).

        The micro-batches of a step are dealt out in turn. Each is loaded when its turn comes: go through a step's
        sequence once, from first to last, before the next step.
        """

        def mine(number: int) -> tuple[int, list[tuple[int, list[int]]]]:
            epoch, micro_batches = order.step(number)
            return epoch, list(enumerate(micro_batches))[rank::world_size]

        def wanted() -> Iterator[tuple[int, list[int]]]:
            for number in itertools.count(first):
                epoch, micro_batches = mine(number)
                for _, indices in micro_batches:
                    yield epoch, indices

        with contextlib.closing(self.batches(wanted())) as stream:  # type: ignore[type-var]
            for number in itertools.count(first):
                step = _Step([place for place, _ in mine(number)[1]], stream)
                yield step
                assert step.done, "a step's micro-batches must all be taken before the next step"


class _Step(Sequence[tuple[int, Batch]]):
    """Micro-batches of a step; each can be taken once, in order, so that no more than one is held."""

    def __init__(self, places: list[int], stream: Iterator[Batch]) -> None:
        self._places, self._stream, self._taken = places, stream, 0

    @property
    def done(self) -> bool:
        return self._taken == len(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: Any) -> Any:
        place = self._places[number]  # IndexError ends an iteration
        assert number == self._taken, "a step's micro-batches come once and in order"
        self._taken += 1
        return place, next(self._stream)
