"""Puts frames and samples with timestamps on one grid of 25 frames per second: late, missing and uneven ones."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from avhubert.constants import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from avhubert.errors import ConfigError
from avhubert.live.records import AudioBlock, VideoFrame

HOLD_SECONDS = 0.2  # a frame is repeated for so long where the next ones are missing
RESTART_SECONDS = 2.0  # a clock that goes back by more has started again
MAX_GAP_SECONDS = 600.0  # a longer gap is an error of the clock: the stream goes on without it
JITTER_SAMPLES = SAMPLES_PER_FRAME  # by which the timestamps of samples may be wrong
NEAR = 1e-6  # seconds


class Origin:
    """The time that frame 0 of the grid has; both timelines of a stream share it.

    Attributes:
        seconds: The time, by the clock of the caller; None before the first frame or sample.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None

    def since(self, seconds: float) -> float:
        """Seconds since the origin, which the first call defines."""
        if not math.isfinite(seconds):
            raise ConfigError(f"a timestamp of a live stream is {seconds}; it must be a finite number of seconds")
        if self.seconds is None:
            self.seconds = seconds
        return seconds - self.seconds


class FrameTimeline:
    """Resamples frames to the grid: the nearest one in time, as `avhubert.data.video.read_frames` does.

    Attributes:
        end: Number of grid frames so far.
        dropped: Number of frames that came too late.
        late_seconds: By how much the last frame that came too late was late; 0 without one.
    """

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._offset = 0.0
        self._image: np.ndarray | None = None
        self._time = -math.inf  # of the last frame
        self.end = 0
        self.dropped = 0
        self.late_seconds = 0.0

    def push(self, frame: VideoFrame) -> Iterator[np.ndarray | None]:
        """The grid frames that are decided now, in order; None: there was no frame at that time."""
        time = self._origin.since(frame.seconds) + self._offset
        newest = max(self._time, (self.end - 1) / FRAME_RATE)
        if self._image is not None and (time < newest - RESTART_SECONDS or time > newest + MAX_GAP_SECONDS):
            continued = newest + 1 / FRAME_RATE
            self._offset += continued - time
            time = continued
        if time <= self._time or time < (self.end - 1) / FRAME_RATE:
            self.dropped += 1
            self.late_seconds = newest - time
            return
        if self._image is None:
            yield from self._missing(time)
        else:
            yield from self._until((self._time + time) / 2, time)
        self._image, self._time = frame.image, time

    def fill(self, end: int) -> Iterator[np.ndarray | None]:
        """The grid frames before `end`, for a stream that does not deliver."""
        yield from self._until(end / FRAME_RATE - NEAR * 2, end / FRAME_RATE)

    def _until(self, last: float, following: float) -> Iterator[np.ndarray | None]:
        """Grid frames up to the time `last`: copies of the frame before, or None where `following` is far away."""
        hold = last if following - self._time <= 2 * HOLD_SECONDS else self._time + HOLD_SECONDS
        while self.end / FRAME_RATE <= last + NEAR:
            held = self._image if self.end / FRAME_RATE <= hold + NEAR else None
            self.end += 1
            yield held

    def _missing(self, time: float) -> Iterator[None]:
        """Grid frames before the first frame, which may start after the audio."""
        while (self.end + 0.5) / FRAME_RATE < time - NEAR:
            self.end += 1
            yield None


class SampleTimeline:
    """Puts blocks of samples in order: gaps become silence, what overlaps or came too late is dropped.

    Attributes:
        end: Number of samples so far.
        missing: Number of samples that were filled with silence.
        dropped: Number of samples that came too late.
        late_seconds: By how much the last block that came too late was late; 0 without one.
    """

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._offset = 0
        self._started = False
        self.end = 0
        self.missing = 0
        self.dropped = 0
        self.late_seconds = 0.0

    def push(self, block: AudioBlock) -> tuple[int, np.ndarray]:
        """The number of samples that are missing before the block, and what of its samples is new."""
        samples = block.samples
        if samples.dtype != np.int16 or samples.ndim != 1:
            raise ConfigError(
                f"live audio is {samples.dtype} {list(samples.shape)}; it must be int16 [N] at 16 kHz, one channel"
            )
        if block.seconds is None and self._started:
            return self._take(0, samples)
        start = (self._origin.seconds or 0.0) if block.seconds is None else block.seconds
        expected = round(self._origin.since(start) * SAMPLE_RATE) + self._offset
        shift = expected - self.end
        if self._started and not -RESTART_SECONDS * SAMPLE_RATE <= shift <= MAX_GAP_SECONDS * SAMPLE_RATE:
            self._offset -= shift
            shift = 0
        self._started = True
        if abs(shift) <= JITTER_SAMPLES:
            return self._take(0, samples)
        if shift < 0:
            self.late_seconds = -shift / SAMPLE_RATE
        return self._take(max(0, shift), samples[max(0, -shift) :], min(len(samples), max(0, -shift)))

    def fill(self, end: int) -> int:
        """The number of samples that are missing before the sample `end`, for a stream that does not deliver."""
        gap = max(0, end - self.end)
        self._started = self._started or gap > 0
        self.missing += gap
        self.end += gap
        return gap

    def _take(self, gap: int, samples: np.ndarray, dropped: int = 0) -> tuple[int, np.ndarray]:
        self.missing += gap
        self.dropped += dropped
        self.end += gap + len(samples)
        return gap, samples
