"""How long a file is by its header, and how long it is when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from avhubert.data.media import (
    MAX_FAILURES,
    DamageLog,
    FileIdentity,
    demux,
    file_identity,
    file_start,
    open_container,
)
from avhubert.data.stored_lengths import avi_seconds, mp3_seconds, read_wav_header
from avhubert.data.timestamps import BACK_SECONDS
from avhubert.data.truncation import CUT_OFF, cut_off

TOLERANCE_SECONDS = Fraction(1)  # a smaller difference between header and content is usual
UNTIMED = frozenset(("avi", "mxf"))  # formats whose packets have no timestamps
COUNT_TOLERANCE_SECONDS = Fraction(1, 50)  # between what is counted in them and their header
PACKED_TOLERANCE_SECONDS = Fraction(1, 20)  # DivX counts an empty frame more
# FFmpeg's names of formats whose header has the length; of the others it is estimated from the size of the file
STORED_LENGTH = frozenset(("aiff", "asf", "caf", "flac", "flv", "matroska", "mov", "mxf", "w64"))


def compare_lengths(
    path: str | Path, container: av.container.InputContainer, stream: Any, end: Fraction, damage: DamageLog
) -> None:
    """Record a message if a stream of the file ended elsewhere than the header says, or if the file was cut off.

    Args:
        path: The file.
        container: The open file.
        stream: The stream that was read.
        end: Seconds after the start of the file at which the stream ended.
        damage: Gets the message.
    """
    header = _stored_seconds(path, container)
    if header is None:
        if message := cut_off(path, set(container.format.name.split(","))):
            damage.note(message)
        elif "ogg" in container.format.name:
            _compare_last_page(container, end, damage)
        return
    if end > header + TOLERANCE_SECONDS:
        damage.note(f"the header of the file says {float(header):.1f} s, but it has {float(end):.1f} s")
    elif end < header - TOLERANCE_SECONDS:
        read = max(end, _packet_times(file_identity(path)).end)  # another stream may be longer
        if read < header - TOLERANCE_SECONDS:
            damage.note(
                f"the header of the file says {float(header):.1f} s, but it ends after {float(read):.1f} s: {CUT_OFF}"
            )
    elif UNTIMED & set(container.format.name.split(",")):
        _compare_count(stream, end, damage)


def _compare_count(stream: Any, end: Fraction, damage: DamageLog) -> None:
    """Without timestamps, what follows a lost packet moves to its place: only the length of the stream shows it."""
    if not stream.duration or not stream.time_base:
        return
    missing = stream.duration * stream.time_base - end
    if missing > (PACKED_TOLERANCE_SECONDS if stream.codec_context.name == "mpeg4" else COUNT_TOLERANCE_SECONDS):
        damage.note(
            f"{float(missing):.2f} s of the {stream.type} are missing by the header of the file: it is damaged, and "
            "what follows the damage is too early by so much; use another copy of it"
        )


def _compare_last_page(container: av.container.InputContainer, end: Fraction, damage: DamageLog) -> None:
    """FFmpeg drops the last page of an Ogg file if those before it are lost."""
    length = Fraction(container.duration or 0, av.time_base)
    if end < length - TOLERANCE_SECONDS:
        damage.note(f"the file has {float(length):.1f} s, but nothing is read after {float(end):.1f} s: it is damaged")


def _stored_seconds(path: str | Path, container: av.container.InputContainer) -> Fraction | None:
    """Length by the header of the file; None if it has none."""
    formats = set(container.format.name.split(","))
    if "wav" in formats:
        header = read_wav_header(path)
        return None if header is None else header.seconds
    if "avi" in formats:
        return avi_seconds(path)
    if "mp3" in formats:
        return mp3_seconds(path, container.streams.audio[0].rate or 0)
    if container.duration and formats & STORED_LENGTH:
        return Fraction(container.duration, av.time_base)
    return None


def content_seconds(path: str | Path) -> float:
    """Length of a file by the last of its packets, without decoding; 0 if it has none with a time.

    Raises:
        av.FFmpegError: The file is not a media file.
        OSError: The file cannot be read.
    """
    return float(_packet_times(file_identity(path)).end)


def clock_restarts(path: str | Path) -> bool:
    """Whether the timestamps of a file start again, as where recordings were joined; reads all packets once.

    Raises:
        av.FFmpegError: The file is not a media file.
        OSError: The file cannot be read.
    """
    return _packet_times(file_identity(path)).restarts


@dataclass(frozen=True)
class _PacketTimes:
    """What the packets of a file say about it.

    Attributes:
        end: Seconds after the start of the file at which the last one ends.
        restarts: The timestamps of a stream start again.
    """

    end: Fraction
    restarts: bool


@lru_cache(maxsize=1024)
def _packet_times(identity: FileIdentity) -> _PacketTimes:
    last: dict[int, Fraction] = {}  # by stream: time of decoding,
    ends: dict[int, Fraction] = {}  # where its last packet ends,
    shifts: dict[int, Fraction] = {}  # and what is added to its timestamps since its clock started again
    with open_container(identity[0]) as container:
        begin = file_start(container)
        failures = 0
        while failures < MAX_FAILURES:
            try:
                for packet in demux(container):
                    failures = 0
                    index = packet.stream_index
                    if packet.dts is not None and packet.time_base is not None:
                        time = packet.dts * packet.time_base - begin
                        if last.get(index, time) - time > BACK_SECONDS:
                            shifts[index] = ends[index] - time
                        last[index] = time
                    end = _end(packet) - begin + shifts.get(index, Fraction(0))
                    ends[index] = max(end, ends.get(index, Fraction(0)))
                break
            except (FFmpegError, OSError):
                failures += 1
    return _PacketTimes(max(ends.values(), default=Fraction(0)), bool(shifts))


def _end(packet: Any) -> Fraction:
    if packet.pts is None or packet.time_base is None:
        return Fraction(0)
    last: Fraction = (packet.pts + (packet.duration or 0)) * packet.time_base
    return last
