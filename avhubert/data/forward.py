"""Reads successive parts of a stream in which seeking fails, without starting again at the beginning for each part.

The file stays open between two parts, and the packets of the last part are kept: decoding goes on at a key frame of
them. So a stream is demuxed once, and each part is decoded once, however many parts there are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Generic, TypeVar

import av

from avhubert.data.media import FileIdentity, StreamKind
from avhubert.data.timestamps import BACK_SECONDS

MAX_BYTES = 1 << 26  # of the packets that are kept: 60 s at 9 Mbit/s
MARK_SECONDS = Fraction(1, 2)  # between two packets at which decoding can go on
OPEN_PASSES = 4  # files and streams that stay open

State = TypeVar("State")
StreamKey = tuple[FileIdentity, StreamKind, int]


@dataclass(frozen=True)
class Mark(Generic[State]):
    """A packet at which decoding can go on.

    Attributes:
        time: Of its frame, in seconds after the start of the file.
        state: What the decoder of the stream knew before this frame.
    """

    time: Fraction
    state: State


class _Restarts:
    """Counts how often the timestamps of a stream start again."""

    def __init__(self, stream: Any) -> None:
        self._back = BACK_SECONDS / stream.time_base
        self.begin(0)

    def begin(self, restarts: int) -> None:
        """Go on where the timestamps have started again so often."""
        self._restarts = restarts
        self._last: int | None = None

    def count(self, timestamp: int | None) -> int:
        """The restarts up to the next timestamp."""
        if timestamp is not None:
            if self._last is not None and self._last - timestamp > self._back:
                self._restarts += 1
            self._last = timestamp
        return self._restarts


class ForwardPass(Generic[State]):
    """An open file of which one stream is demuxed from its beginning to its end, in several parts.

    Attributes:
        container: The file.
        stream: The stream.
        state: The state at which decoding of the next part begins; None: at the beginning of the file.
    """

    def __init__(self, container: av.container.InputContainer, stream: Any) -> None:
        self.container, self.stream = container, stream
        self.state: State | None = None
        self._kept: list[tuple[int, Any]] = []  # packets, each with how often their clock has started again before
        self._bytes = 0
        self._complete = True  # the first packet of the stream is among them
        # by the number of restarts and the timestamp of the packet: in joined files, timestamps are there several times
        self._marks: dict[tuple[int, int], Mark[State]] = {}
        self._candidates: set[tuple[int, int]] = set()  # packets that may get a mark
        self._last_candidate: Fraction | None = None  # time
        self._demuxed = _Restarts(stream)
        self._decoded = _Restarts(stream)

    def go_to(self, time: Fraction) -> bool:
        """Let the next part begin at most at `time`; False: what precedes that time is no longer kept."""
        for index in reversed(range(len(self._kept))):
            restarts, packet = self._kept[index]
            mark = self._marks.get((restarts, packet.pts))
            if mark is not None and mark.time <= time:
                self._drop(index)
                self.state = mark.state
                self._decoded.begin(restarts)
                return True
        self.state = None
        self._decoded.begin(0)
        return self._complete

    def packets(self, following: Iterator[Any]) -> Iterator[Any]:
        """The packets from the beginning of the part on; `following` are those that have not been demuxed yet."""
        yield from [packet for _, packet in self._kept]
        for packet in following:
            if packet.size:
                self._keep(packet)
            yield packet

    def needs_mark(self, pts: int | None) -> bool:
        """Whether the next frame, which has this timestamp, should be marked."""
        return pts is not None and (self._decoded.count(pts), pts) in self._candidates

    def mark(self, pts: int, time: Fraction, state: State) -> None:
        """Remember the state before the frame with this timestamp."""
        key = self._decoded.count(pts), pts
        self._candidates.discard(key)
        self._marks[key] = Mark(time, state)

    def _keep(self, packet: Any) -> None:
        restarts = self._demuxed.count(packet.dts)
        self._kept.append((restarts, packet))
        self._bytes += packet.size
        if packet.pts is not None and packet.is_keyframe:
            time = packet.pts * packet.time_base
            if self._last_candidate is None or abs(time - self._last_candidate) >= MARK_SECONDS:
                self._candidates.add((restarts, packet.pts))
                self._last_candidate = time
        if self._bytes > MAX_BYTES:
            self._drop(1)

    def _drop(self, count: int) -> None:
        """Forget the first packets."""
        for restarts, packet in self._kept[:count]:
            self._bytes -= packet.size
            self._marks.pop((restarts, packet.pts), None)
            self._candidates.discard((restarts, packet.pts))
        del self._kept[:count]
        self._complete = self._complete and count == 0


# passes that no part is read from at the moment, the last one used is the last
_idle: list[tuple[tuple[int, StreamKey], ForwardPass[Any]]] = []
_lock = threading.Lock()


def take(stream: StreamKey, time: Fraction) -> ForwardPass[Any] | None:
    """A pass over a stream that goes on at most at `time`; None if there is none. Only the caller uses it."""
    key = (os.getpid(), stream)  # a file that was opened before a fork has the position of the other process
    with _lock:
        for index in reversed(range(len(_idle))):
            if _idle[index][0] == key and _idle[index][1].go_to(time):
                return _idle.pop(index)[1]
    return None


def give_back(stream: StreamKey, forward: ForwardPass[Any]) -> None:
    """Keep a pass for the next part; the pass that was used longest ago may be closed."""
    forward.stream.codec_context.flush_buffers()  # the frames in the decoder, which are not kept
    with _lock:
        _idle.append(((os.getpid(), stream), forward))
        closed = [_idle.pop(0)[1] for _ in range(len(_idle) - OPEN_PASSES)]
    for old in closed:
        old.container.close()


def close_passes() -> None:
    """Close the files of all passes, for a process that is about to delete them."""
    with _lock:
        closed = [forward for _, forward in _idle]
        _idle.clear()
    for forward in closed:
        forward.container.close()
