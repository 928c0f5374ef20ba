"""Whether a file without a length in its header was cut off: Ogg, AAC, MPEG transport and program streams."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

SEARCHED_BYTES = 1 << 19  # at the end of a file
CUT_OFF = "the download or the recording stopped before its end"
IN_A_PACKET = f"the file ends in the middle of a packet: {CUT_OFF}"
NOT_MARKED = f"the last page of the file is not marked as the last one: {CUT_OFF}"

OGG_HEADER = 27  # bytes before the table of segments
LAST_PAGE = 4  # flag
TS_SIZES = {188: 0, 192: 4, 204: 0}  # bytes of a packet: position of its first synchronisation byte
TS_CHECKED = 5  # packets that must begin with that byte
PACK, SYSTEM_END = 0xBA, 0xB9  # codes of a pack header and of the end of a program stream
FIRST_WITH_LENGTH = 0xBB  # of the codes that are followed by a length
ADTS_HEADER = 7  # bytes of the header of an AAC frame
ADTS_CHECKED = 4  # frames in a row after which the first one is no coincidence


def cut_off(path: str | Path, formats: set[str]) -> str | None:
    """A message if the file was cut off; None if it is complete, or if that cannot be known.

    Args:
        path: The file.
        formats: FFmpeg's names of its format.
    """
    check = next((check for name, check in _CHECKS.items() if name in formats), None)
    if check is None:
        return None
    try:
        with open(path, "rb") as file:
            start = file.read(TS_CHECKED * max(TS_SIZES))
            size = file.seek(0, 2)
            first = max(0, size - SEARCHED_BYTES)
            file.seek(first)
            return check(start, first, file.read())
    except OSError:
        return None


def _ogg(start: bytes, first: int, end: bytes) -> str | None:
    """Walks over the last pages: the last one of each stream has a flag."""
    position = end.find(b"OggS")
    last: dict[bytes, bool] = {}  # by the number of the stream
    while 0 <= position < len(end):
        header = end[position : position + OGG_HEADER]
        if header[:4] != b"OggS"[: len(header)]:
            position = end.find(b"OggS", position + 1)  # these bytes were part of a page
            continue
        segments = end[position + OGG_HEADER : position + OGG_HEADER + header[26]] if len(header) == OGG_HEADER else b""
        following = position + OGG_HEADER + len(segments) + sum(segments)
        if len(header) < OGG_HEADER or len(segments) < header[26] or following > len(end):
            return IN_A_PACKET
        last[header[14:18]] = bool(header[5] & LAST_PAGE)
        position = following
    return None if all(last.values()) else NOT_MARKED


def _transport_stream(start: bytes, first: int, end: bytes) -> str | None:
    for packet, offset in TS_SIZES.items():
        starts = range(offset, offset + TS_CHECKED * packet, packet)
        if all(start[position : position + 1] == b"G" for position in starts):
            rest = (first + len(end)) % packet
            # bytes after the last packet that do not begin one are no part of the recording
            cut = rest > offset and end[len(end) - rest + offset] == start[offset]
            return IN_A_PACKET if cut else None
    return None


def _program_stream(start: bytes, first: int, end: bytes) -> str | None:
    """Walks over the packets from a pack header on."""
    position = end.find(bytes((0, 0, 1, PACK)))
    if position < 0:
        return None
    while position + 4 <= len(end):
        if end[position : position + 3] != b"\0\0\1":
            return None  # padding, or something else that is not known here
        code = end[position + 3]
        if code == SYSTEM_END:
            return None
        if code == PACK:
            position += _pack_bytes(end, position)
        elif code >= FIRST_WITH_LENGTH:
            position += 6 + int.from_bytes(end[position + 4 : position + 6], "big")
        else:
            return None
    rest = end[position : position + 3]
    return IN_A_PACKET if position > len(end) or (rest and rest == b"\0\0\1"[: len(rest)]) else None


def _pack_bytes(content: bytes, position: int) -> int:
    """Length of a pack header: of MPEG-1, or of MPEG-2 with stuffing."""
    if position + 4 < len(content) and content[position + 4] >> 6 != 1:
        return 12
    return 14 + (content[position + 13] & 7 if position + 13 < len(content) else 0)


def _adts(start: bytes, first: int, end: bytes) -> str | None:
    """Walks over the AAC frames from the first one on that others follow."""
    position = end.find(b"\xff")
    while position >= 0:
        following, frames = position, 0
        while length := _adts_length(end, following):
            following += length
            frames += 1
        if frames >= ADTS_CHECKED:
            rest = end[following : following + 2]
            begins = bool(rest) and rest[:1] == b"\xff" and (len(rest) == 1 or rest[1] & 0xF6 == 0xF0)
            return IN_A_PACKET if following > len(end) or begins else None
        position = end.find(b"\xff", position + 1)
    return None


def _adts_length(content: bytes, position: int) -> int:
    """Length of the AAC frame at a position; 0 if there is none, or not its whole header."""
    header = content[position : position + ADTS_HEADER]
    if len(header) < ADTS_HEADER or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return 0
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length >= ADTS_HEADER else 0


_CHECKS: dict[str, Callable[[bytes, int, bytes], str | None]] = {
    "ogg": _ogg,
    "mpegts": _transport_stream,
    "mpeg": _program_stream,
    "aac": _adts,
}
