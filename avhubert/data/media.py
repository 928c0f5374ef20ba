"""Opening media files, choosing their streams, and recording what is damaged in them.

Every module that reads audio or video opens its file here.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast

import av

from avhubert.data.stored_lengths import read_wav_header

NEIGHBOUR_SECONDS = 1.0  # damaged packets that are closer than this are reported in one sentence
AUDIO_GAP_SECONDS = Fraction(1, 50)  # a longer time without audio is filled with zeros, and reported
MOST_GAPS = 5  # of a stream that are reported one by one

PRIMING_SECONDS = Fraction(3, 10)  # encoders put less than this before time 0, which players do not play
MAX_FAILURES = 1000  # errors of the demuxer in a row, after which the rest of a file is given up
MAX_PIXELS = 50_000_000  # of a frame: more than 8K

# playlists may not make FFmpeg open anything but files; a file cannot have more streams than a broadcast multiplex
SAFE_OPTIONS = {"protocol_whitelist": "file", "max_streams": "256"}

# up to PyAV 18, a title that is not UTF-8 raises an error without this argument; PyAV 19 removed the argument
_ANY_METADATA: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}

StreamKind = Literal["audio", "video"]
FileIdentity = tuple[str, int, int]


@dataclass(frozen=True)
class StreamChoice:
    """Which streams of a file are read.

    Attributes:
        audio: Position among the audio streams, from 0, as FFmpeg's `0:a:N`; None: chosen automatically.
        video: The same for the video streams.
    """

    audio: int | None = None
    video: int | None = None


AUTOMATIC = StreamChoice()


@dataclass(frozen=True)
class Damage:
    """A part of a stream that is lost: packets that are missing, or that could not be decoded as a whole.

    Attributes:
        stream: 'audio' or 'video'.
        start: Seconds after the start of the file.
        seconds: Length of what is lost.
        packets: Number of packets that could not be decoded; 0: there are none in this part.
        reason: FFmpeg's message.
        estimated: The packets were decoded, but what is damaged in them was estimated from their surroundings.
    """

    stream: StreamKind
    start: float
    seconds: float
    packets: int = 1
    reason: str = ""
    estimated: bool = False

    @property
    def end(self) -> float:
        """Seconds after the start of the file at which the stream continues."""
        return self.start + self.seconds

    def is_neighbour(self, later: Damage) -> bool:
        """Whether the next damage of the file belongs to the same stretch of damaged packets."""
        packets = self.packets > 0 and later.packets > 0 and self.estimated == later.estimated
        return packets and self.stream == later.stream and later.start <= self.end + NEIGHBOUR_SECONDS

    def __str__(self) -> str:
        if self.packets == 0:
            digits = 1 if self.seconds >= 1 else 2
            return f"the {self.stream} has nothing from {self.start:.{digits}f} s to {self.end:.{digits}f} s"
        packets = "1 damaged packet" if self.packets == 1 else f"{self.packets} damaged packets"
        was = "was" if self.packets == 1 else "were"
        if self.estimated:
            frames = packets.replace("packet", "frame")
            return (
                f"{frames} of the {self.stream} {was} decoded with errors at {self.start:.1f} s ({self.seconds:.2f} s)"
            )
        return f"{packets} of the {self.stream} {was} skipped at {self.start:.1f} s ({self.seconds:.2f} s lost)"


class DamageLog:
    """What was damaged in a file and what else its user should know; equal entries are kept once.

    A file is often read in several passes and in parts that overlap, so that the same packet is reported several times.
    """

    def __init__(self) -> None:
        self._parts: dict[tuple[StreamKind, int, bool, bool], Damage] = {}
        self._notes: dict[str, None] = {}

    def add(self, damage: Damage) -> None:
        """Record a damaged packet or a gap."""
        kind = damage.packets == 0, damage.estimated
        self._parts.setdefault((damage.stream, round(1000 * damage.start), *kind), damage)

    def note(self, sentence: str) -> None:
        """Record another message for the user, such as which of several streams is read."""
        self._notes.setdefault(sentence)

    def merge(self, other: DamageLog) -> None:
        """Record the entries of another log."""
        for damage in other._parts.values():
            self.add(damage)
        for sentence in other._notes:
            self.note(sentence)

    def damages(self) -> list[Damage]:
        """The damage of each stream in order of time; neighbouring packets are one entry."""
        merged: list[Damage] = []
        for damage in sorted(self._parts.values(), key=lambda damage: (damage.stream, damage.estimated, damage.start)):
            last = merged[-1] if merged else None
            if last is None or not last.is_neighbour(damage):
                merged.append(damage)
            else:
                seconds, packets = last.seconds + damage.seconds, last.packets + damage.packets
                merged[-1] = replace(last, seconds=seconds, packets=packets)
        return sorted(merged, key=lambda damage: (damage.stream, damage.start))

    def sentences(self) -> tuple[str, ...]:
        """One message for each entry; one for all gaps of a stream that has many."""
        damages = self.damages()
        sentences = []
        for damage in damages:
            gaps = [other for other in damages if other.packets == 0 and other.stream == damage.stream]
            if damage.packets or len(gaps) <= MOST_GAPS:
                sentences.append(str(damage))
            elif damage is gaps[0]:
                seconds = sum(gap.seconds for gap in gaps)
                sentences.append(
                    f"the {damage.stream} has {len(gaps)} gaps of {seconds:.1f} s in all, the first at "
                    f"{damage.start:.1f} s, the longest of {max(gap.seconds for gap in gaps):.2f} s"
                )
        return (*self._notes, *sentences)

    def __bool__(self) -> bool:
        return bool(self._parts or self._notes)


@dataclass(frozen=True)
class MediaPart:
    """A part of a media file, and how it is read.

    Attributes:
        path: Any file that FFmpeg can read.
        start: Seconds from the start of the file.
        end: Seconds from the start of the file; None: until its end.
        streams: Which of several streams are read.
        damage: Records what is damaged in the part; None: it is not recorded.
    """

    path: str | Path
    start: float = 0.0
    end: float | None = None
    streams: StreamChoice = AUTOMATIC
    damage: DamageLog | None = field(default=None, compare=False)

    def again(self) -> MediaPart:
        """The same part for another pass, which need not record the damage."""
        return replace(self, damage=None)


def open_container(path: str | Path, options: Mapping[str, str] | None = None) -> av.container.InputContainer:
    """Open a local media file for reading; nothing else is opened, whatever the file refers to.

    Args:
        path: the file.
        options: FFmpeg's options for the container format.

    Raises:
        av.FFmpegError: the file is not a media file.
        OSError: the file is missing or its permissions do not allow reading.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise FileNotFoundError(errno.ENOENT, "it is not a file", str(path))  # reading a pipe could wait for ever
    header = read_wav_header(path)
    lies = {"ignore_length": "1"} if header is not None and header.too_short else {}
    # with "file:", FFmpeg does not take the part of a name before a colon as a protocol
    name = f"file:{path}"
    # with `options`, PyAV up to 16 crashes at formats that find streams later, such as MPEG program streams
    container = av.open(name, mode="r", container_options={**SAFE_OPTIONS, **lies, **(options or {})}, **_ANY_METADATA)
    return cast(av.container.InputContainer, container)


def demux(container: av.container.InputContainer, *streams: Any) -> Iterator[Any]:
    """The packets of streams, by default of all, and an empty one at the end of each.

    Raises:
        av.FFmpegError: the file is damaged; packets may follow.
        OSError: the same.
    """
    # PyAV raises it after the last packet, where a damaged file seems to get another stream after its header
    with contextlib.suppress(IndexError):
        yield from container.demux(*streams)


def file_identity(path: str | Path) -> FileIdentity:
    """Changes when a file does; key of what is remembered about files."""
    status = os.stat(path)
    return str(Path(path).absolute()), status.st_size, status.st_mtime_ns


def file_start(container: av.container.InputContainer) -> Fraction:
    """Timestamp in seconds that is time 0 of the file: the earliest of its streams, but not priming before 0."""
    start = Fraction(container.start_time or 0, av.time_base)
    return Fraction(0) if -PRIMING_SECONDS < start < 0 else start
