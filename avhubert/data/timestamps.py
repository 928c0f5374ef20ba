"""Times of decoded frames: single wrong timestamps are repaired, and a clock that starts again goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

import av

LONGEST_FRAME_SECONDS = 3600  # a longer last frame has a wrong timestamp
JUMP_SECONDS = 10  # a larger jump between two frames is checked with the next frame …
BACK_SECONDS = Fraction(1, 2)  # … and so is a jump back by more than this

Frame = TypeVar("Frame", av.AudioFrame, av.VideoFrame)


@dataclass
class TimedFrame(Generic[Frame]):
    """A decoded frame.

    Attributes:
        frame: The frame.
        time: Seconds after the start of the file; None if the file has no timestamp for it.
    """

    frame: Frame
    time: Fraction | None


class Clock(Generic[Frame]):
    """Repairs the times of a stream's frames: single wrong timestamps, and a clock that starts again.

    Attributes:
        end: Seconds at which the last frame ends.
    """

    def __init__(self) -> None:
        self.end = Fraction(0)
        self._last: Fraction | None = None  # of the timestamps
        self._shift = Fraction(0)
        self._held: tuple[TimedFrame[Frame], Fraction] | None = None  # a frame after a jump, and its duration

    def add(self, timed: TimedFrame[Frame], duration: Fraction) -> Iterator[TimedFrame[Frame]]:
        """The frames whose time is certain after `timed`."""
        if self._held is not None and timed.time is not None:
            yield self._judged(*self._held, timed.time)
            self._held = None
        if self._last is not None and timed.time is not None and self._jumps(timed.time - self._last):
            self._held = timed, duration
        else:
            yield self._timed(timed, duration)

    @staticmethod
    def _jumps(step: Fraction) -> bool:
        return step > JUMP_SECONDS or step < -BACK_SECONDS

    def is_regular(self) -> bool:
        """Whether a frame shortly after the last one has the right time."""
        return self._held is None and not self._shift

    def follow(self, timed: TimedFrame[Frame], duration: Fraction) -> None:
        """Continue after a frame that needed no check."""
        self._timed(timed, duration)

    def flush(self) -> Iterator[TimedFrame[Frame]]:
        """The last frame, if its time is not certain."""
        if self._held is not None:
            timed, duration = self._held
            assert timed.time is not None
            assert self._last is not None
            plausible = 0 < timed.time - self._last < LONGEST_FRAME_SECONDS
            yield self._judged(timed, duration, timed.time if plausible else self._last)
            self._held = None

    def _judged(self, held: TimedFrame[Frame], duration: Fraction, following: Fraction) -> TimedFrame[Frame]:
        """The frame after a jump, given the time of the frame that follows it."""
        assert held.time is not None
        assert self._last is not None
        continues = following >= held.time
        if held.time < self._last:
            continues = 0 <= following - held.time < abs(following - self._last)
        if not continues:  # this timestamp alone is wrong
            time = self.end - self._shift
            last = self._last
            timed = self._timed(TimedFrame(held.frame, time), duration)
            self._last = last
            return timed
        if held.time < self._last:  # the clock has started again
            self._shift += self.end - (held.time + self._shift)
        return self._timed(held, duration)

    def _timed(self, timed: TimedFrame[Frame], duration: Fraction) -> TimedFrame[Frame]:
        if timed.time is None:
            self.end += duration
            return timed
        self._last = timed.time
        self.end = timed.time + self._shift + duration
        return TimedFrame(timed.frame, timed.time + self._shift) if self._shift else timed
