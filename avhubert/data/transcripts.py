"""Transcripts (`.wrd`) and true labels of frames (`.phn`: phones, or words of GRID), one line per clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avhubert.data.manifest import Clip, check_row_count, read_lines, write_lines
from avhubert.errors import DataError


def read_transcripts(path: str | Path, clips: Sequence[Clip]) -> list[str]:
    """Read the transcripts of a `.wrd` file, in the order of the manifest.

    Raises:
        DataError: the file is missing or is not Unicode text, or its number of lines differs from the number of clips.
    """
    lines = read_lines(path, "transcripts")
    check_row_count(len(lines), len(clips), path, "transcripts")
    return lines


def write_transcripts(path: str | Path, texts: Sequence[str]) -> None:
    """Write transcripts as a `.wrd` file.

    Raises:
        DataError: a transcript contains a line break.
    """
    write_lines(path, texts, "transcripts")


def read_phones(path: str | Path) -> list[list[str]]:
    """Read a `.phn` file: per clip the phone or word of each 25 Hz frame; empty if unknown.

    Raises:
        DataError: the file is missing or is not Unicode text.
    """
    return [line.split() for line in read_lines(path, "phones")]


def read_phones_of(path: str | Path, clips: Sequence[Clip]) -> list[list[str]] | None:
    """Read the reference phones of the clips, one per 25 Hz frame; None if the file does not exist.

    Raises:
        DataError: the file does not have a line for every clip.
    """
    if not Path(path).is_file():
        return None
    phones = read_phones(path)
    if len(phones) != len(clips):
        raise DataError(f"{path} has {len(phones)} lines but the manifest lists {len(clips)} clips; make or remove it")
    return phones


def write_phones(path: str | Path, rows: Sequence[Sequence[str]]) -> None:
    """Write a `.phn` file.

    Args:
        path: the file.
        rows: per clip the phone of each 25 Hz frame.

    Raises:
        DataError: a phone is empty or contains white space.
    """
    for row in rows:
        for phone in row:
            if len(phone.split()) != 1 or phone.split()[0] != phone:
                raise DataError(f"'{phone}' cannot be a phone in {path}: it is empty or contains white space")
    write_lines(path, [" ".join(row) for row in rows], "phones")
