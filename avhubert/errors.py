"""Errors that a user can cause. Each message is one sentence: what is wrong, in which file, and how to fix it.

AvhubertError
├── ConfigError      a preset, key, value or option is wrong (exit code 2)
├── DataError        a data directory, manifest, transcript or label file is wrong (exit code 1)
├── MediaError       a video or audio file cannot be used (exit code 1)
└── CheckpointError  a model directory or checkpoint cannot be used (exit code 1)

`assert` is for bugs of this package only; whatever a user's input can cause is one of these errors.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from avhubert.constants import NAMES_SHOWN

LONGEST_MESSAGE = 2000  # characters; the middle of a longer message, such as a damaged line that it quotes, is left out
_UNSAFE = {"Cc", "Cs", "Zl", "Zp"}  # categories of control characters, surrogates and line separators
_DIRECTION = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # reverse the text that follows on a terminal


class AvhubertError(Exception):
    """Base class of all errors that this package raises deliberately.

    Callers that need more than the text read the fields; each is None if the place that raised did not know it.

    Args:
        message: One sentence for the user; it becomes one line without control characters, whatever it quotes.
        kind: What happened, as a short name that errors can be counted by, such as "no audio track".
        path: The file or folder that the error is about.
        clip_id: The clip that the error is about.
    """

    exit_code = 1

    def __init__(
        self,
        message: str = "",
        *,
        kind: str | None = None,
        path: str | Path | None = None,
        clip_id: str | None = None,
    ) -> None:
        super().__init__(one_line(message))
        self.kind = kind
        self.path = None if path is None else Path(path)
        self.clip_id = clip_id

    def with_path_as(self, name: str) -> str:
        """The message with `name` in place of `path`, for readers who must not see where the file is."""
        return str(self) if self.path is None else str(self).replace(one_line(str(self.path)), name)


def one_line(text: str) -> str:
    """Text for a terminal: control characters are escaped, and a very long text is shortened in the middle."""
    if len(text) > LONGEST_MESSAGE:
        half = LONGEST_MESSAGE // 2
        text = f"{text[:half]} … {text[-half:]}"
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _UNSAFE or char in _DIRECTION else char
        for char in text
    )


class ConfigError(AvhubertError):
    """A preset, key, value or option is unknown or out of range."""

    exit_code = 2


class DataError(AvhubertError):
    """A data directory, manifest, transcript or label file cannot be used."""


class MediaError(AvhubertError):
    """A video or audio file cannot be used."""


class CheckpointError(AvhubertError):
    """A model directory or checkpoint cannot be used."""


def one_of(what: str, value: object, known: Iterable[object]) -> str:
    """The message for an unknown name: the name itself and the known ones."""
    return f"unknown {what} '{value}'; known: {', '.join(sorted(map(str, known)))}"


def list_names(names: Sequence[str], quoted: bool = False) -> str:
    """The first names of a list for a message, and how many more there are."""
    first = ", ".join(f"'{name}'" if quoted else name for name in names[:NAMES_SHOWN])
    return first if len(names) <= NAMES_SHOWN else f"{first} and {len(names) - NAMES_SHOWN} more"
