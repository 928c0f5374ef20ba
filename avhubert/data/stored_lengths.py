"""Lengths that headers of wav, AVI and MP3 files state; FFmpeg replaces them by an estimate if a file is cut off."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

SEARCHED_BYTES = 1 << 16  # from the start of a file, for its header
UNKNOWN_SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF)  # written by programs that did not know the size yet
MP3_TAGS = (b"Xing", b"Info")
MP3_LONG_FRAME, MP3_SHORT_FRAME = 1152, 576  # samples per frame from 32 kHz on, and below
MP3_LONG_RATE = 32_000


@dataclass(frozen=True)
class WavHeader:
    """The header of a wav file.

    Attributes:
        byte_rate: Bytes per second.
        data_start: Position of the samples.
        data_bytes: Size of the samples by the header.
        file_bytes: Size of the file.
        complete: What follows the samples in the file is a list of chunks, as it should be.
    """

    byte_rate: int
    data_start: int
    data_bytes: int
    file_bytes: int
    complete: bool

    @property
    def too_short(self) -> bool:
        """Whether the file has more samples than the header says."""
        return self.data_bytes in UNKNOWN_SIZES or not self.complete

    @property
    def seconds(self) -> Fraction | None:
        """Length by the header; None if it is unknown."""
        if self.data_bytes in UNKNOWN_SIZES or self.byte_rate == 0:
            return None
        return Fraction(self.data_bytes, self.byte_rate)


def read_wav_header(path: str | Path) -> WavHeader | None:
    """The header of a wav file; None for any other file, and one whose header cannot be read."""
    if not Path(path).is_file():  # opening a pipe waits for its writer
        return None
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"RIFF" or len(file.read(4)) < 4 or file.read(4) != b"WAVE":
                return None
            file_bytes = file.seek(0, 2)
            byte_rate, position = 0, 12
            while position + 8 <= file_bytes:
                file.seek(position)
                name, size = struct.unpack("<4sI", file.read(8))
                if name == b"fmt ":
                    byte_rate = struct.unpack("<8xI", file.read(12))[0]
                elif name == b"data":
                    end = position + 8 + size
                    return WavHeader(byte_rate, position + 8, size, file_bytes, _is_chunk_list(file, end, file_bytes))
                position += 8 + size + size % 2
    except (OSError, struct.error):
        pass
    return None


def _is_chunk_list(file: BinaryIO, position: int, file_bytes: int) -> bool:
    """Whether the rest of a file from `position` on is shorter than a chunk, or consists of chunks."""
    position += position % 2
    while position + 8 <= file_bytes:
        file.seek(position)
        name, size = struct.unpack("<4sI", file.read(8))
        if not all(32 <= byte < 127 for byte in name):
            return False
        position += 8 + size + size % 2
    return True


def avi_seconds(path: str | Path) -> Fraction | None:
    """Length of an AVI file by its main header; None if it has none."""
    content = _start(path)
    position = content.find(b"avih")
    if position < 0 or len(content) < position + 28:
        return None
    microseconds, frames = struct.unpack_from("<I12xI", content, position + 8)
    return Fraction(frames * microseconds, 1_000_000) or None


def mp3_seconds(path: str | Path, rate: int) -> Fraction | None:
    """Length of an MP3 file of a sample rate by its Xing header; None if it has none."""
    content = _start(path)
    for tag in MP3_TAGS:
        position = content.find(tag)
        if position >= 0 and len(content) >= position + 12 and rate > 0:
            flags, frames = struct.unpack_from(">II", content, position + 4)
            if flags & 1 and frames:
                return Fraction(frames * (MP3_LONG_FRAME if rate >= MP3_LONG_RATE else MP3_SHORT_FRAME), rate)
    return None


def _start(path: str | Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(SEARCHED_BYTES)
    except OSError:
        return b""
