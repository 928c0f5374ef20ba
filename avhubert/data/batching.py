"""Batches with a maximum number of frames, and the order of batches as a pure function of the seed."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from avhubert.data.collate import batch_frames
from avhubert.errors import DataError

MULTIPLE = 8  # the size of a batch of more clips than this is a multiple of it


def make_batches(
    lengths: Sequence[int],
    frames_per_batch: int,
    seed: int = 0,
    crop_frames: int | None = None,
    multiple: int = MULTIPLE,
) -> list[list[int]]:
    """Group clips of similar length into batches.

    Clips are sorted by uncropped length, longest first; clips of equal length are in random order.

    Args:
        lengths: frames of each clip.
        frames_per_batch: maximum size of a batch: clips · frames of the longest clip after cropping. A longer clip
            is a batch of its own.
        seed: of the order of equally long clips.
        crop_frames: frames that a longer clip is cropped to; None: clips are not cropped.
        multiple: the size of a batch of more clips than this is a multiple of it.

    Returns:
        Batches of indices into `lengths`; every clip is in one batch.
    """
    # the legacy generator: its numbers do not change with NumPy's version and give the published order
    ties = np.random.RandomState(seed % 2**32).permutation(len(lengths))
    order = np.lexsort((ties, np.asarray(lengths)))[::-1].tolist()
    batches: list[list[int]] = []
    current: list[int] = []

    def emit() -> None:
        batches.append(current[: _round_down(len(current), multiple)])
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


def _round_down(count: int, multiple: int) -> int:
    """The largest multiple of `multiple` up to `count`; `count` itself if it is smaller than `multiple`."""
    return count - count % multiple if count > multiple else count


class StepOrder:
    """The clips of each optimizer step, as a pure function of (seed, step).

    The batches are made once; each epoch shuffles their order with seed + epoch. A step takes the next
    max(1, round(frames_per_step / frames_per_batch)) batches, the last step of an epoch the remaining ones.

    Args:
        lengths: frames of each clip.
        frames_per_batch: maximum frames of a micro-batch, padding included.
        frames_per_step: frames of an optimizer step, over all ranks.
        seed: of the order.
        crop_frames: frames that a longer clip is cropped to; None: clips are not cropped.

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
            raise DataError("no clips are left to train on; check data.min_frames, data.max_frames and the manifest")
        self.batches = make_batches(lengths, frames_per_batch, seed, crop_frames)
        self.batches_per_step = max(1, round(frames_per_step / frames_per_batch))
        self.steps_per_epoch = -(-len(self.batches) // self.batches_per_step)
        self._seed = seed
        self._lengths, self._crop_frames = lengths, crop_frames
        self._shuffled = functools.lru_cache(maxsize=4)(self._shuffle)

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.RandomState((self._seed + epoch) % 2**32).permutation(len(self.batches))

    def largest(self) -> list[int]:
        """Indices of the micro-batch with the most frames, padding included."""
        return max(self.batches, key=lambda batch: len(batch) * self._longest(batch))

    def _longest(self, batch: list[int]) -> int:
        return batch_frames([self._lengths[index] for index in batch], True, self._crop_frames)

    def step(self, number: int) -> tuple[int, list[list[int]]]:
        """Epoch and micro-batches (lists of indices) of step `number`, counted from 0."""
        epoch, step_in_epoch = divmod(number, self.steps_per_epoch)
        first = step_in_epoch * self.batches_per_step
        return epoch, [self.batches[i] for i in self._shuffled(epoch)[first : first + self.batches_per_step]]
