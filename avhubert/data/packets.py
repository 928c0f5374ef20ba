"""Decoding a stream of a media file packet by packet: damage is skipped and recorded, seeking never loses anything."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from copy import copy
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic

import av
from av.error import FFmpegError

from avhubert.constants import FRAME_RATE
from avhubert.data.forward import ForwardPass, give_back, take
from avhubert.data.lengths import clock_restarts, compare_lengths
from avhubert.data.media import (
    AUDIO_GAP_SECONDS,
    MAX_FAILURES,
    MAX_PIXELS,
    Damage,
    DamageLog,
    FileIdentity,
    StreamKind,
    demux,
    file_identity,
    file_start,
    open_container,
)
from avhubert.data.timestamps import Clock, Frame, TimedFrame
from avhubert.errors import MediaError
from avhubert.processes import report_progress

SEEK_SECONDS = (1, 10)  # decoding starts this much before the requested part; after a seek, first frames are inexact
LARGE_PIXELS = 4_000_000  # each thread keeps frames, so that larger frames get few threads
LARGE_FRAME_THREADS = 4
# a longer time without a frame is reported; a variable frame rate can leave out frames for long …
GAP_SECONDS = {"audio": AUDIO_GAP_SECONDS, "video": Fraction(1)}
BROADCAST_GAP_SECONDS = Fraction(1, 10)  # … but not in the formats of broadcasts and discs
BROADCAST = frozenset(("mpeg", "mpegts", "mxf"))  # FFmpeg's names
JOINABLE = frozenset(("mpeg", "mpegts", "ogg"))  # files of which can be joined as they are, by `cat`
KNOWN_ENDS = 256  # streams whose end is remembered

# position of a stream among those of its kind, in an open file
SelectStream = Callable[[av.container.InputContainer], int]


def check_size(path: str | Path, stream: Any) -> None:
    """MediaError if the frames of a video stream are too large to be read."""
    if stream.width * stream.height > MAX_PIXELS:
        raise MediaError(
            f"the frames of {path} have {stream.width} × {stream.height} pixels, more than the {MAX_PIXELS / 1e6:.0f} "
            "million that are read; scale the video down",
            kind="frames too large",
            path=path,
        )


@dataclass(frozen=True)
class _State:
    """What is known at a frame from those before it: their clock, and the end of the latest one in seconds."""

    clock: Clock[Any]
    end: Fraction


class _FlushError(Exception):
    """A damaged packet was only noticed when the decoder's threads ended, which loses the frames behind it."""


class NothingDecodedError(Exception):
    """A stream has packets, none of which could be decoded; the argument is FFmpeg's message."""


# by file and stream: seconds after the start of the file after which the stream has no frame
_ends: dict[tuple[FileIdentity, StreamKind, int], Fraction] = {}


class StreamDecoder(Generic[Frame]):
    """Decodes one stream of a file from any time on.

    Args:
        path: The file.
        kind: 'audio' or 'video'.
        select: Chooses the stream.
        damage: Records packets that cannot be decoded.

    Attributes:
        stream: The stream; None before the first frame.
        finished: The end of the stream was reached.
    """

    def __init__(
        self, path: str | Path, kind: StreamKind, select: SelectStream, damage: DamageLog | None = None
    ) -> None:
        self.path, self.kind, self.select = path, kind, select
        self.damage = damage
        self.stream: Any = None
        self.finished = False
        self._index = 0
        self._failure = ""  # the first error
        self._begin = Fraction(0)  # timestamp of time 0
        self._end = Fraction(0)  # of the last frame
        self._clock: Clock[Frame] = Clock()
        self._known = True  # where the frames are in the file
        self._timed = False  # a frame with a time was decoded since the file was opened
        self._covered = Fraction(0)  # seconds at which the last damage that was recorded ends
        self._gap = GAP_SECONDS[kind]

    def frames(self, start: Fraction = Fraction(0)) -> Generator[TimedFrame[Frame], None, None]:
        """The frames from `start` seconds after the start of the file on; the first ones are before `start`.

        Raises:
            MediaError: The stream does not exist, or the file is not a media file.
            NothingDecodedError: No packet of the stream can be decoded.
            av.FFmpegError: The file is not a media file.
            OSError: The file cannot be read.
        """
        for lead in SEEK_SECONDS:
            if start <= lead:
                break
            frames = self._completed(self._open(start, start - lead), start, start - lead)
            first = next(frames, None)
            # where a file has no index, FFmpeg may land behind the requested time
            if first is not None and first.time is not None and first.time <= start:
                yield first
                yield from frames
                return
            frames.close()
        else:
            end = _ends.get((file_identity(self.path), self.kind, self._index))
            if end is not None and end <= start:
                self.finished = True
                return
        yield from self._without_seeking(start)

    def time_of(self, frame: av.AudioFrame | av.VideoFrame) -> Fraction | None:
        """Seconds after the start of the file; None if the file has no timestamp for the frame."""
        if frame.pts is None or frame.time_base is None:
            return None
        return frame.pts * frame.time_base - self._begin

    def _without_seeking(self, start: Fraction) -> Generator[TimedFrame[Frame], None, None]:
        count = 0
        # a part after which another one may follow
        frames = self._open(start, None) if start <= SEEK_SECONDS[0] else self._forward(start)
        for timed in self._completed(frames, start, None):
            count += 1
            yield timed
        if count == 0 and self._failure:
            raise NothingDecodedError(self._failure)

    def _completed(
        self, frames: Generator[TimedFrame[Frame], None, None], start: Fraction, seek: Fraction | None
    ) -> Generator[TimedFrame[Frame], None, None]:
        """The frames, and with one thread those that the decoder's threads have lost."""
        last = None
        try:
            for timed in frames:
                last = timed.time
                yield timed
        except _FlushError:
            for timed in self._open(start, seek, threads=1):
                if last is None or timed.time is None or timed.time > last:
                    yield timed
        finally:
            frames.close()

    def _open(
        self, start: Fraction, seek: Fraction | None, threads: int = 0
    ) -> Generator[TimedFrame[Frame], None, None]:
        """Frames after a seek, or from the beginning; none if the seek fails; records damage from `start` on."""
        self.finished = False
        with open_container(self.path) as container:
            self._select(container, threads)
            if seek is not None:
                if JOINABLE & set(container.format.name.split(",")) and clock_restarts(self.path):
                    return  # a timestamp is at several places
                try:
                    container.seek(int((self._begin + seek) * av.time_base), backward=True)
                except (FFmpegError, OSError):
                    return
            yield from self._decoded(container, start, after_seek=seek is not None)

    def _forward(self, start: Fraction) -> Generator[TimedFrame[Frame], None, None]:
        """Frames from shortly before `start` on, by the pass that read the part before, or by a new one."""
        self.finished = False
        key = (file_identity(self.path), self.kind, self._index)
        forward: ForwardPass[_State] | None = take(key, start - SEEK_SECONDS[0])
        if forward is None:
            container = open_container(self.path)
            self._select(container)
            forward = ForwardPass(container, self.stream)
        self.stream, self._begin = forward.stream, file_start(forward.container)
        try:
            yield from self._decoded(forward.container, start, after_seek=False, forward=forward)
        finally:
            give_back(key, forward)

    def _select(self, container: av.container.InputContainer, threads: int = 0) -> None:
        """Choose the stream of an open file, and how it is decoded."""
        self._index = self.select(container)
        stream: Any = getattr(container.streams, self.kind)[self._index]
        self.stream = stream
        self._begin = file_start(container)
        if self.kind == "video":
            if BROADCAST & set(container.format.name.split(",")):
                self._gap = BROADCAST_GAP_SECONDS
            check_size(self.path, stream)
            stream.thread_type = "AUTO"
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            if stream.width * stream.height > LARGE_PIXELS:
                stream.codec_context.thread_count = LARGE_FRAME_THREADS
        if threads:
            stream.codec_context.thread_count = threads

    def _decoded(
        self,
        container: av.container.InputContainer,
        start: Fraction,
        after_seek: bool,
        forward: ForwardPass[_State] | None = None,
    ) -> Generator[TimedFrame[Frame], None, None]:
        """The frames of an open file with checked times; a forward pass goes on where it can."""
        self._clock, self._end, self._covered, self._timed = Clock(), Fraction(0), Fraction(0), False
        if forward is not None and forward.state is not None:
            self._clock, self._end = copy(forward.state.clock), forward.state.end
        self._known = not after_seek  # after a seek, frames without a timestamp are somewhere
        complete = False  # no packet was skipped since the last frame
        last_pts = usual_pts = -1
        regular: TimedFrame[Frame] | None = None  # the last frame, if the clock need not check it
        packets = self._packets(container)
        for packet in packets if forward is None else forward.packets(packets):
            try:
                frames = packet.decode()
            except (FFmpegError, OSError) as error:
                self._follow(regular)
                regular = None
                self._record(packet, start, error)
                complete = False
                if packet.size == 0 and self.kind == "video" and self.stream.codec_context.thread_count != 1:
                    raise _FlushError from error
                continue
            if packet.is_corrupt:
                self._follow(regular)
                regular = None
                self._record(packet, start)
            for frame in frames:
                pts = frame.pts
                marked = forward is not None and forward.needs_mark(pts)
                unusual = marked or not complete or frame.is_corrupt
                if not unusual and pts is not None and 0 < pts - last_pts <= usual_pts:
                    last_pts = pts
                    regular = TimedFrame(frame, self.time_of(frame))
                    report_progress()
                    yield regular
                    continue
                self._follow(regular)
                regular = None
                state = _State(copy(self._clock), self._end)
                for timed in self._checked(frame, start):
                    if forward is not None and marked and timed.frame is frame and timed.time is not None:
                        forward.mark(pts, timed.time, state)
                    complete = True
                    yield timed
                usual_pts = -1
                if pts is not None and frame.time_base is not None and self._clock.is_regular():
                    last_pts, usual_pts = pts, int((self._gap + self._duration(frame)) / frame.time_base)
        self._follow(regular)
        yield from self._rest(container)

    def _checked(self, frame: Frame, start: Fraction) -> Iterator[TimedFrame[Frame]]:
        """The frames whose time is certain after `frame`; records gaps before them."""
        time = self.time_of(frame)
        self._known = self._known or time is not None
        if not self._known:
            return
        for timed in self._clock.add(TimedFrame(frame, time), self._duration(frame)):
            self._stamp(timed)
            self._record_gap(timed, start)
            if timed.frame.is_corrupt:
                self._record_estimate(timed, start)
            if self._clock.end > self._end:  # frames without an advance in time are no progress
                report_progress()
            self._end = max(self._end, self._clock.end)
            self._timed = True
            yield timed

    def _rest(self, container: av.container.InputContainer) -> Iterator[TimedFrame[Frame]]:
        """The frames whose time was not certain before the end of the file. Compares the length with the header."""
        for timed in self._clock.flush():
            self._stamp(timed)
            yield timed
        self._end = max(self._end, self._clock.end)
        self.finished = True
        if self._known:
            if self.damage is not None:
                compare_lengths(self.path, container, self.stream, self._end, self.damage)
            if len(_ends) >= KNOWN_ENDS:
                _ends.clear()
            _ends[file_identity(self.path), self.kind, self._index] = self._end

    def _follow(self, regular: TimedFrame[Frame] | None) -> None:
        """Take note of frames that the clock did not need to check."""
        if regular is not None:
            self._clock.follow(regular, self._duration(regular.frame))
            self._end = max(self._end, self._clock.end)

    def _stamp(self, timed: TimedFrame[Frame]) -> None:
        """The frame itself also gets its repaired time, which filters pass on."""
        frame = timed.frame
        if timed.time is not None and frame.time_base is not None and timed.time != self.time_of(frame):
            frame.pts = round((timed.time + self._begin) / frame.time_base)

    def _packets(self, container: av.container.InputContainer) -> Iterator[Any]:
        """The packets of the stream; errors of the demuxer are skipped as long as packets follow."""
        failures = 0
        while failures < MAX_FAILURES:
            try:
                for packet in demux(container, self.stream):
                    failures = 0
                    yield packet
                return
            except (FFmpegError, OSError) as error:
                failures += 1
                self._failure = self._failure or (error.strerror or str(error))

    def _duration(self, frame: Any) -> Fraction:
        if self.kind == "audio":
            return Fraction(frame.samples, frame.sample_rate)
        return (frame.duration or 0) * (frame.time_base or Fraction(0)) or Fraction(1, FRAME_RATE)

    def _record_gap(self, timed: TimedFrame[Frame], start: Fraction) -> None:
        """Record that packets before a frame are missing, which a damaged container skips without an error."""
        if self.damage is None or not self._timed or timed.time is None or timed.time < start:
            return
        begin = max(self._end, self._covered)
        if timed.time - begin > self._gap:
            self.damage.add(Damage(self.kind, float(begin), float(timed.time - begin), packets=0))

    def _record_estimate(self, timed: TimedFrame[Frame], start: Fraction) -> None:
        """Record that the decoder estimated a part of a frame, without an error."""
        if self.damage is None or timed.time is None or timed.time < start:
            return
        seconds = float(self._duration(timed.frame))
        self.damage.add(Damage(self.kind, float(timed.time), seconds, estimated=True))

    def _record(self, packet: Any, start: Fraction, error: FFmpegError | OSError | None = None) -> None:
        """Record a damaged packet that belongs to the requested part; without an error, it was decoded all the same."""
        reason = "" if error is None else error.strerror or str(error)
        self._failure = self._failure or reason
        time = self._end
        if packet.pts is not None and packet.time_base is not None:
            time = packet.pts * packet.time_base - self._begin
        elif not self._known:
            return
        if time < start or self.damage is None:
            return
        seconds = (packet.duration or 0) * (packet.time_base or Fraction(0))
        self._covered = max(self._covered, time + seconds)
        self.damage.add(Damage(self.kind, float(time), float(seconds), reason=reason, estimated=error is None))
