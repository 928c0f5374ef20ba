"""Batches with a budget of frames, and the order of batches as a pure function of the seed."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from avhubert.data.collate import batch_frames
from avhubert.errors import DataError

MULTIPLE = 8  # batches of more clips than this hold a multiple of it


# --------------------------------------------------------------------------- order
def make_batches(
    lengths: Sequence[int],
    frames_per_batch: int,
    seed: int = 0,
    crop_frames: int | None = None,
    multiple: int = MULTIPLE,
) -> list[list[int]]:
    """Indices in batches of at most `frames_per_batch` frames, padding and crop counted; longer clips stand alone.

    Longest clips first (by uncropped length), ties in an order drawn with the seed. A batch of more than `multiple`
    clips holds a multiple of it.
    """
    # a legacy generator: its numbers are frozen, and they are those of the published order
    ties = np.random.RandomState(seed % 2**32).permutation(len(lengths))
    order = np.lexsort((ties, np.asarray(lengths)))[::-1].tolist()
    batches: list[list[int]] = []
    current: list[int] = []

    def emit() -> None:
        batches.append(current[: _held(len(current), multiple)])
        del current[: len(batches[-1])]

    for index in order:
        if current:
            longest = lengths[current[0]] if crop_frames is None else min(lengths[current[0]], crop_frames)
            if longest * (len(current) + 1) > frames_per_batch:
                emit()
        current.append(index)
    while current:
        emit()
    return batches


def _held(count: int, multiple: int) -> int:
    return count - count % multiple if count > multiple else count


class StepOrder:
    """Which clips each optimizer step takes, as a pure function of (seed, step).

    Batches are made once; each epoch shuffles their order with seed + epoch. A step takes the next
    max(1, round(frames_per_step / frames_per_batch)) of them, the last step of an epoch what is left.

    Raises:
        DataError: there are no clips.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        frames_per_batch: int,
        frames_per_step: int,
        seed: int,
        crop_frames: int | None = None,
    ) -> None:
        if not len(lengths):
            raise DataError("no clips are left to train on; look at data.min_frames, data.max_frames and the manifest")
        self.batches = make_batches(lengths, frames_per_batch, seed, crop_frames)
        self.batches_per_step = max(1, round(frames_per_step / frames_per_batch))
        self.steps_per_epoch = -(-len(self.batches) // self.batches_per_step)
        self._seed = seed
        self._lengths, self._crop_frames = lengths, crop_frames
        self._shuffled = functools.lru_cache(maxsize=4)(self._shuffle)

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.RandomState((self._seed + epoch) % 2**32).permutation(len(self.batches))

    def largest(self) -> list[int]:
        """The micro-batch with the most frames, padding counted."""
        return max(self.batches, key=lambda batch: len(batch) * self._longest(batch))

    def _longest(self, batch: list[int]) -> int:
        return batch_frames([self._lengths[index] for index in batch], True, self._crop_frames)

    def step(self, number: int) -> tuple[int, list[list[int]]]:
        """Epoch and micro-batches (lists of indices) of step `number`, counted from 0."""
        epoch, place = divmod(number, self.steps_per_epoch)
        first = place * self.batches_per_step
        return epoch, [self.batches[i] for i in self._shuffled(epoch)[first : first + self.batches_per_step]]
