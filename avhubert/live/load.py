"""Whether the machine keeps up with a live stream, and how much work is dropped if it does not."""

from __future__ import annotations

import time
from collections.abc import Callable

from avhubert.constants import FRAME_RATE

STEP = 4  # frames between windows when the machine keeps up
HIGH, LOW = 0.8, 0.3  # share of the time that is spent; above: more work is dropped, below: less
AVERAGED_SECONDS = 2.0  # of the stream
STEPS = (STEP, 8, 16, 32)  # frames between windows, by level
TRACK_EVERY = (1, 1, 2, 3)  # frames in which faces are followed, by level
MESSAGES = (
    "the machine keeps up again",
    "the machine is too slow: words appear every 0.3 s",
    "the machine is too slow: words appear every 0.6 s, and faces are followed in every second frame",
    "the machine is too slow: words appear every 1.3 s, and faces are followed in every third frame",
)


class Load:
    """Measures the work of a stream against its time.

    Attributes:
        level: 0: nothing is dropped; up to 3: less and less work is done.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.level = 0
        self._clock = clock
        self._begun = 0.0
        self._spent = 0.0  # seconds of work since the last decision
        self._frames = 0  # of the stream since then

    @property
    def step(self) -> int:
        """Frames between two windows."""
        return STEPS[self.level]

    @property
    def track_every(self) -> int:
        """Of so many frames, faces are followed in one."""
        return TRACK_EVERY[self.level]

    def begin(self) -> None:
        """Work begins."""
        self._begun = self._clock()

    def end(self, frames: int) -> str | None:
        """Work ends, by which the stream went on by so many frames; the message if the level changes."""
        self._spent += self._clock() - self._begun
        self._frames += frames
        if self._frames < AVERAGED_SECONDS * FRAME_RATE:
            return None
        share = self._spent * FRAME_RATE / self._frames
        self._spent, self._frames = 0.0, 0
        level = self.level
        if share > HIGH:
            level = min(level + 1, len(STEPS) - 1)
        elif share < LOW:
            level = max(level - 1, 0)
        if level == self.level:
            return None
        self.level = level
        return MESSAGES[level]
