"""Word alignments of the GRID corpus: `.align` files with lines START END WORD, 25 000 units a second."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avhubert.encoding import read_text
from avhubert.errors import DataError

SUFFIX = ".align"
UNITS_PER_SECOND = 25_000  # so 1 000 are one video frame
SILENCE = "sil"
SILENCES = (SILENCE, "sp")  # silence, and a short pause between words
MALFORMED = "malformed .align"


@dataclass(frozen=True)
class AlignedWord:
    """A word or silence with its times in seconds."""

    text: str
    start: float
    end: float


def read_alignment(path: Path) -> list[AlignedWord]:
    """The words and silences of an `.align` file, in order. DataError names the line that is wrong."""
    words: list[AlignedWord] = []
    for number, line in enumerate(read_text(path, path.name, guess=False).text.splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            start, end = (int(field) / UNITS_PER_SECOND for field in fields[:2])
            (text,) = fields[2:]
        except ValueError as error:
            raise DataError(
                f"{path.name}, line {number}: '{line}' is not START END WORD", kind=MALFORMED, path=path
            ) from error
        if end < start or (words and start < words[-1].end):
            raise DataError(
                f"{path.name}, line {number}: '{line}' ends before it starts, or starts before the line above it ends",
                kind=MALFORMED,
                path=path,
            )
        words.append(AlignedWord(text.lower(), start, end))
    if not any(word.text not in SILENCES for word in words):
        raise DataError(f"{path.name} has no words", kind=MALFORMED, path=path)
    return words
