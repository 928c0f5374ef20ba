"""Text files as people's tools write them: UTF-8, UTF-16 and UTF-32, with and without BOM, and older encodings."""

from __future__ import annotations

import codecs
import contextlib
import errno
import re
import string
from dataclasses import dataclass
from pathlib import Path

from avhubert.errors import DataError

# the longer marks first: that of UTF-32 begins with that of UTF-16
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_USUAL = frozenset(string.printable)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
LEAST_ASCII = 0.02  # share of the characters of a text in UTF-16 without mark
# letters beyond ASCII of the languages that cp1252 was made for; a text of one language has only its own
_WESTERN = (
    *("àâæçéèêëîïôœùûüÿ", "äöüßé", "áéíñóúü", "àçéèíïóòúü", "áàâãçéêíóôõúü", "àèéìíîòóù", "áéíóúëïöüèê", "åäöéüš"),
    *("æøåéóòôü", "áðéíóúýþæö", "áéíóúàèìòù"),
)
LEAST_CONFIDENCE = (
    0.1  # of chardet, below which a text that can be Western is; with 0.1 most short texts are read right
)
# so many letters, digits and spaces of ASCII in a row, read as UTF-16, are no coincidence: in Chinese, a pair of two
# such bytes is frequent, ten in a row are not
_ASCII_IN_UTF16 = re.compile(r"[A-Za-z0-9 .,:\r\n>-]{20}")
_ESCAPE = b"\x1b"  # begins a change of the characters in ISO-2022, whose bytes are ASCII
MAX_DAMAGED = 0.25  # invalid bytes for each valid character beyond ASCII up to which a text is UTF-8 with damage
MISSING = "missing"  # the kind of the error for a file that does not exist
TEXT_START = 1 << 16  # bytes of a text file that are looked at before it is read whole
ZEROS = bytes(256)  # a row of them is in no text
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Decoded:
    """The text of a file.

    Attributes:
        text: Without a byte order mark; line breaks as in the file.
        encoding: Name of the encoding.
        is_guess: The encoding is not marked in the file and is none of Unicode's: the text may be wrong.
    """

    text: str
    encoding: str
    is_guess: bool = False


def decode(data: bytes, guess: bool = True) -> Decoded:
    """The text of bytes in an unknown encoding.

    Args:
        data: The bytes of a file.
        guess: Whether encodings that are not Unicode are recognised, and damaged UTF-8 is read.

    Raises:
        UnicodeError: It is not text, or its encoding is not recognised.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return _checked(Decoded(data[len(bom) :].decode(encoding), encoding))
    if b"\0" in data:
        return _checked(_utf16_without_bom(data))
    if guess and _ESCAPE in data:
        return _legacy(data)
    try:
        return Decoded(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        if not guess:
            raise
    text = _damaged_utf8(data)
    return Decoded(text, "damaged utf-8", is_guess=True) if text is not None else _legacy(data)


def _checked(decoded: Decoded) -> Decoded:
    """Refuse UTF-16 with parts in ASCII, which some tools append to it; they would become Chinese characters."""
    is_utf16 = decoded.encoding.startswith("utf-16")
    if is_utf16 and _ASCII_IN_UTF16.search(decoded.text.encode(decoded.encoding).decode("latin-1")):
        raise UnicodeError("a part of it is UTF-16, another part is not")
    return decoded


def _utf16_without_bom(data: bytes) -> Decoded:
    """In the right byte order, spaces, digits and line breaks are ASCII; in the wrong one, nothing usual is."""
    candidates = []
    for encoding in ("utf-16-le", "utf-16-be"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        usual = sum(character in _USUAL for character in text)
        if usual >= LEAST_ASCII * len(text) and not _CONTROL.search(text):
            candidates.append((usual, text, encoding))
    if not candidates:
        raise UnicodeError("it contains NUL bytes")
    _, text, encoding = max(candidates)
    return Decoded(text, encoding)


def _damaged_utf8(data: bytes) -> str | None:
    """UTF-8 with a few invalid bytes, which are read as cp1252; None if there are too many."""
    text = data.decode("utf-8", "surrogateescape")
    invalid = len(re.findall("[\udc80-\udcff]", text))
    valid = sum(character > "\x7f" for character in text) - invalid
    if invalid > MAX_DAMAGED * valid:
        return None
    return re.sub("[\udc80-\udcff]", lambda match: _western(bytes([ord(match[0]) - 0xDC00])), text)


def _western(data: bytes) -> str:
    """Decode cp1252; its five undefined bytes as in Latin-1."""
    return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in data)


def _legacy(data: bytes) -> Decoded:
    from chardet import detect

    text, encoding = _western(data), "cp1252"
    guess = detect(data)
    if guess["encoding"] and (guess["confidence"] >= LEAST_CONFIDENCE or not _is_western(text)):
        with contextlib.suppress(UnicodeDecodeError, LookupError):
            text, encoding = data.decode(guess["encoding"]), codecs.lookup(guess["encoding"]).name
    if _CONTROL.search(text):
        raise UnicodeError("its encoding is not recognised")
    return Decoded(text, encoding, is_guess=True)


def _is_western(text: str) -> bool:
    """Whether a text has the letters of one Western language, no control characters and no symbols inside words."""
    letters = {character for character in text.lower() if character > "\x7f" and character.isalpha()}
    symbols = re.search(r"[^\W\d_][¡-¶¸-¿×÷ˆ˜†‡‰‹›€•]+[^\W\d_]", text)
    return not _CONTROL.search(text) and not symbols and any(letters <= set(alphabet) for alphabet in _WESTERN)


def read_text(path: str | Path, name: str = "", guess: bool = True) -> Decoded:
    """The text of a file.

    Args:
        path: The file.
        name: What messages call the file; default: its path.
        guess: See `decode`.

    Raises:
        DataError: It is missing (kind MISSING), cannot be read, is not text, or is a Git LFS pointer.
    """
    path = Path(path)
    name = name or str(path)
    try:
        data = read_text_bytes(path)
    except UnicodeDecodeError as error:
        kind = "not text"
        raise DataError(f"{name} is {kind}: it starts with zero bytes; make it again", kind=kind, path=path) from error
    except OSError as error:
        kind = MISSING if isinstance(error, FileNotFoundError) else "cannot be read"
        raise DataError(f"cannot read {name}: {error.strerror}", kind=kind, path=path) from error
    if is_lfs_pointer(data):
        raise DataError(lfs_message(name), kind="a Git LFS pointer", path=path)
    try:
        return decode(data, guess)
    except UnicodeError as error:
        kind = "not text in a known encoding" if guess else "not UTF-8 text"
        raise DataError(f"{name} is {kind}; convert it to UTF-8", kind=kind, path=path) from error


def read_text_bytes(path: str | Path) -> bytes:
    """Read the bytes of a text file in any encoding; OSError and UnicodeDecodeError as in `files.read_text`."""
    refuse_endless(path)
    with open(path, "rb") as handle:
        start = handle.read(TEXT_START)
        if ZEROS in start:
            position = start.index(ZEROS)
            raise UnicodeDecodeError("utf-8", start, position, position + len(ZEROS), "zero bytes")
        return start + handle.read()


def refuse_endless(path: str | Path) -> None:
    """OSError for a pipe or a device, which could have no end."""
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))


def is_lfs_pointer(data: bytes) -> bool:
    """Whether the first bytes of a file are those of the text that Git LFS leaves in place of a large file."""
    return data.startswith(_LFS_POINTER)


def lfs_message(name: str | Path) -> str:
    """The message for a Git LFS pointer."""
    return f"{name} is a Git LFS pointer, not the file itself; run `git lfs pull`"


def placeholder_message(path: str | Path) -> str | None:
    """The message for a file that is only a Git LFS pointer or a web page instead of a binary file; None for others."""
    try:
        refuse_endless(path)
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError:
        return None
    if is_lfs_pointer(start):
        return lfs_message(path)
    if start.removeprefix(codecs.BOM_UTF8).lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return f"{path} is a web page (HTML), not the file itself; download it again with the link of the file"
    return None
