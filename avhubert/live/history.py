"""Values of the most recent frames of a stream, in an array of constant size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class History:
    """One value per frame, by frame number from 0; the oldest ones are forgotten.

    Attributes:
        end: Number of frames so far.
    """

    def __init__(self, shape: Sequence[int], dtype: type[np.generic], capacity: int, start: int = 0) -> None:
        """Begin an empty history.

        Args:
            shape: Of each value.
            dtype: Of each value.
            capacity: Frames that are remembered at least.
            start: Number of the first frame.
        """
        self._values = np.zeros((2 * capacity, *shape), dtype)
        self._capacity = capacity
        self._first = start  # frame of the first value
        self.end = start

    @property
    def start(self) -> int:
        """First frame that is remembered."""
        return self._first

    def extend(self, values: np.ndarray | Sequence[object]) -> None:
        """Append the values of the next frames, [n, …]."""
        values = np.asarray(values, self._values.dtype)
        for first in range(0, len(values), self._capacity):
            self._append(values[first : first + self._capacity])

    def append(self, value: object) -> None:
        """Append the value of the next frame."""
        self.extend([value])

    def _append(self, values: np.ndarray) -> None:
        used = self.end - self._first
        if used + len(values) > len(self._values):
            remembered = self._values[used - self._capacity : used].copy()
            self._values[: self._capacity] = remembered
            self._first = self.end - self._capacity
            used = self._capacity
        self._values[used : used + len(values)] = values
        self.end += len(values)

    def __getitem__(self, frames: slice) -> np.ndarray:
        """The values of the frames start … stop − 1, all of which are remembered (no copy)."""
        start = self._first if frames.start is None else frames.start
        stop = self.end if frames.stop is None else frames.stop
        assert self._first <= start <= stop <= self.end, (self._first, start, stop, self.end)
        return self._values[start - self._first : stop - self._first]

    def last(self, count: int) -> np.ndarray:
        """The values of the last frames, at most `count` (no copy)."""
        return self[max(self._first, self.end - count) :]

    def blank(self, count: int) -> np.ndarray:
        """Zeros in the form of `count` values."""
        return np.zeros((count, *self._values.shape[1:]), self._values.dtype)
