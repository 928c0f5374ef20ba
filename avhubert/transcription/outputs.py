"""The files that `avhubert transcribe` writes into a folder; files that it did not write are never replaced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from avhubert.errors import DataError
from avhubert.files import end_last_line, read_json_lines, sha256, write_text

RECORD = ".avhubert-outputs.jsonl"  # in the output folder: a line with name and SHA-256 for each file


class OutputFolder:
    """An output folder with a record of what was written into it.

    A file is replaced only if its content is recorded: neither a file of the user nor a transcript that was corrected
    by hand is.

    Args:
        folder: The folder.
        overwrite: Replace other files too.
    """

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        self._folder, self._overwrite = folder, overwrite
        self._known: set[tuple[str, str]] = set()
        self._read()

    def check(self, paths: Sequence[Path]) -> None:
        """Check that files may be replaced, if they exist.

        Raises:
            DataError: A file was not written by this package, or was changed since.
        """
        if self._overwrite:
            return
        foreign = [path for path in paths if path.exists() and not self._is_own(path)]
        if foreign:
            more = f" and {len(foreign) - 1} more files" if len(foreign) > 1 else ""
            were = "were" if more else "was"
            raise DataError(
                f"{foreign[0]}{more} {were} not written by `avhubert transcribe`, or changed since, and cannot be "
                "replaced; choose another folder (--out), keep what exists (--skip-existing) "
                "or replace it (--overwrite)",
                path=foreign[0],
            )

    def write(self, path: Path, text: str) -> None:
        """Write a text file. DataError if another file would be replaced."""
        content = text.encode("utf-8", errors="backslashreplace")
        digest = hashlib.sha256(content).hexdigest()
        if not (path.is_file() and sha256(path) == digest):
            self.check([path])
        # first: a process that is killed between the two leaves no file that it does not know
        self._append(path, digest)
        write_text(path, text)

    def add(self, path: Path) -> None:
        """Record a file that was written."""
        self._append(path, sha256(path))

    def _is_own(self, path: Path) -> bool:
        if not path.is_file():
            return False
        entry = self._name(path), sha256(path)
        if entry not in self._known:
            self._read()  # another command may have written it meanwhile
        return entry in self._known

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _append(self, path: Path, digest: str) -> None:
        entry = self._name(path), digest
        if entry in self._known:
            return
        self._known.add(entry)
        end_last_line(self._folder / RECORD)
        with open(self._folder / RECORD, "a", encoding="ascii", newline="\n") as file:
            file.write(json.dumps({"name": entry[0], "sha256": digest}) + "\n")

    def _read(self) -> None:
        if not (self._folder / RECORD).is_file():
            return
        for entry in read_json_lines(self._folder / RECORD):
            if isinstance(entry, dict):
                self._known.add((str(entry.get("name")), str(entry.get("sha256"))))
