"""Mixing channels to mono without losing channels that are out of phase.

A cable with a wrong polarity makes the second channel the negative of the first one; their mean is silence.
"""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np

BLOCK_SECONDS = 0.5  # for which it is decided at once whether channels cancel
MEASURED_EVERY = 3  # frames, to save time
CANCELLED = 0.02  # share of the channels' power that is left in their mean, below which they cancel; uncorrelated: 0.5
_TYPES = {"dbl": "f8", "flt": "f4", "s16": "i2", "s32": "i4", "u8": "u1"}  # of samples, by FFmpeg's names
FORMATS = frozenset((*_TYPES, *(f"{name}p" for name in _TYPES)))  # interleaved and planar
AUDIBLE = 1e-7  # mean square of a channel relative to full scale (−70 dB), above which cancelling matters


def is_stereo(frame: av.AudioFrame) -> bool:
    """Whether a frame has two channels, in a format that is known here."""
    return frame.layout.nb_channels == 2 and frame.format.name in FORMATS


class PhaseCorrection:
    """Inverts the second channel of stereo frames while it cancels the first one.

    Attributes:
        seconds: Length of what was inverted.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._frames: list[av.AudioFrame] = []
        self._length = 0.0
        self._measured = 0  # samples
        self._power = np.zeros(2)  # sums of left² + right², and of left · right

    def add(self, frame: av.AudioFrame) -> Iterator[av.AudioFrame]:
        """The frames that are ready after `frame`, which is stereo."""
        if len(self._frames) % MEASURED_EVERY == 0:
            self._power += _power(frame)
            self._measured += frame.samples
        self._frames.append(frame)
        self._length += frame.samples / frame.sample_rate
        if self._length >= BLOCK_SECONDS:
            yield from self.flush()

    def flush(self) -> Iterator[av.AudioFrame]:
        """The frames that wait for the rest of their block."""
        frames, self._frames = self._frames, []
        cancels = bool(frames) and self._cancels()
        self.seconds += self._length if cancels else 0.0
        self._length, self._measured, self._power = 0.0, 0, np.zeros(2)
        for frame in frames:
            if cancels:
                _invert(frame)
            yield frame

    def _cancels(self) -> bool:
        both, product = self._power / max(1, self._measured)
        mean_power, mixed = both / 2, (both + 2 * product) / 4
        return bool(mean_power > AUDIBLE and mixed < CANCELLED * mean_power)


def _power(frame: av.AudioFrame) -> np.ndarray:
    """Sums of left² + right², and of left · right, float64 [2], full scale 1."""
    kind = np.dtype(_TYPES[frame.format.name.rstrip("p")])
    count = frame.samples * (1 if frame.format.is_planar else 2)
    # without `to_ndarray`, which copies and takes half of the time
    planes = [np.frombuffer(memoryview(plane), kind, count).astype(np.float32) for plane in frame.planes]
    middle, largest = 0.0, 1.0
    if kind.kind != "f":
        middle = 128.0 if kind.kind == "u" else 0.0
        largest = float(np.iinfo(kind).max) - middle
    if middle:
        planes = [plane - middle for plane in planes]
    left, right = planes if frame.format.is_planar else (planes[0][0::2], planes[0][1::2])
    both = sum(float(np.dot(plane, plane)) for plane in planes)
    return np.array((both, float(np.dot(left, right)))) / largest**2


def _invert(frame: av.AudioFrame) -> None:
    """Invert the second channel of a frame."""
    samples: np.ndarray = frame.to_ndarray().copy()
    second = samples[1] if frame.format.is_planar else samples[0, 1::2]
    if samples.dtype.kind == "u":
        second[:] = 255 - second
    elif samples.dtype.kind == "i":
        second[:] = -np.maximum(second, -np.iinfo(samples.dtype.name).max)
    else:
        second[:] = -second
    for plane, content in zip(frame.planes, samples, strict=True):
        padding = bytes(plane)[content.nbytes :]
        plane.update(content.tobytes() + padding)
