"""Atomic writing of files and folders (a temporary name, then a rename), locks, hashes, the cache folder."""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from avhubert import platforms
from avhubert.encoding import decode, is_lfs_pointer, lfs_message, read_text_bytes, refuse_endless
from avhubert.errors import ConfigError, DataError

_log = logging.getLogger(__name__)

LONGEST_NAME = 230  # bytes; file systems allow 255, and endings such as _face2.mp4 are added
LONGEST_STEM = 200  # bytes; a temporary name has at least 14 more
# the name of what is being written, or of the directory that it replaces
TEMPORARY = re.compile(r"\.(?P<stem>.+)\.\w{8}\.(?:part(?P<suffix>\.[^.]+)?|old)", re.DOTALL)
SET_CACHE = "set AVHUBERT_CACHE to a folder that you can write to"
_HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}  # another process holds the lock


def fitting_name(name: str, longest: int = LONGEST_NAME) -> str:
    """A file name of at most `longest` bytes: the end of a longer one is replaced by a part of its hash."""
    encoded = os.fsencode(name)
    if len(encoded) <= longest:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{encoded[: longest - 9].decode('utf-8', 'ignore')}~{digest}"


def temporary_stem(path: Path) -> str:
    """The stem of a file in the name of its temporary file, which is longer."""
    return fitting_name(path.stem, LONGEST_STEM)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffix, and rename it to `path` at the end of the block.

    If the block raises, the temporary file is removed and `path` is unchanged. Temporary files that killed processes
    left of the same `path` are removed.
    """
    path = Path(path)
    _remove_stale(path.parent, temporary_stem(path), path.suffix)
    with _temporary(lambda: _make_file(path)) as temporary:
        try:
            yield temporary
            _put_in_place(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def atomic_path_in_directory(path: str | Path) -> Iterator[Path]:
    """`atomic_path` for a library that writes temporary files of its own beside the file that it writes.

    The temporary path has the name of `path` and is in a temporary directory, which is removed with all its content.
    """
    path = Path(path)
    _remove_stale(path.parent, path.name)
    with _temporary(lambda: _make_directory(path, ".part")) as directory:
        try:
            yield directory / path.name
            _put_in_place(directory / path.name, path)
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename a temporary file that is complete to its final name."""
    with open(temporary, "r+b") as written:  # Windows syncs only files open for writing
        os.fsync(written.fileno())
    temporary.chmod(0o666 & ~_umask())
    platforms.replace(temporary, path)


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary directory beside `path` and rename it to `path` at the end of the block.

    An existing directory at `path` is replaced as a whole, and only at the end. If the block raises, it is unchanged.
    Temporary directories that killed processes left of the same `path` are removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path.parent, path.name)
    with _temporary(lambda: _make_directory(path, ".part")) as temporary:
        temporary.chmod(0o777 & ~_umask())
        try:
            yield temporary
            if path.exists():
                with _temporary(lambda: _make_directory(path, ".old")) as old:
                    platforms.replace(path, old / "was")
                    platforms.replace(temporary, path)
                    shutil.rmtree(old)
            else:
                platforms.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _make_file(path: Path) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{temporary_stem(path)}.", suffix=f".part{path.suffix}")
    os.close(handle)
    return Path(name)


def _make_directory(path: Path, suffix: str) -> Path:
    return Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=suffix))


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@contextlib.contextmanager
def _temporary(make: Callable[[], Path]) -> Iterator[Path]:
    """A new temporary file or directory that no other process takes for the leftover of a killed one."""
    while True:
        path = make()
        try:
            claim = platforms.claim(path)
        except (BlockingIOError, FileNotFoundError):  # another process took it for a leftover before it was claimed
            continue
        if path.exists():
            break
        _release(claim)
    try:
        yield path
    finally:
        _release(claim)


def _release(claim: int | None) -> None:
    if claim is not None:
        os.close(claim)


def _remove_stale(folder: Path, stem: str, suffix: str = "") -> None:
    """Remove what killed processes left of a file or directory; what a living process writes stays."""
    for path in _temporaries(folder).pop((stem, suffix), []):
        if path.suffix == ".old" and not (folder / stem).exists():
            continue  # killed between two renames: it has the only copy
        with contextlib.suppress(OSError):  # it is being written, or is gone
            claim = platforms.claim(path)
            try:
                if claim is not None:
                    remove(path)
            finally:
                _release(claim)


def remove(path: Path) -> None:
    """Remove a file, or a directory with its content."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@functools.lru_cache(maxsize=256)
def _temporaries(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """Temporary files and directories when this process first writes to a folder, by stem and suffix.

    A folder can have many files, so it is not read for each one that is written.
    """
    found: dict[tuple[str, str], list[Path]] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if match := TEMPORARY.fullmatch(entry.name):
                found.setdefault((match["stem"], match["suffix"] or ""), []).append(folder / entry.name)
    return found


def remove_directory_leftovers(path: str | Path) -> None:
    """Remove what a killed `atomic_directory(path)` left beside `path`; only while no other process writes it."""
    path = Path(path)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.part"):
        shutil.rmtree(leftover, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    r"""Write `text` as UTF-8 with \n between lines on every system, atomically.

    What is not Unicode, such as the bytes of a file name, is written as escape sequences.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_text(path: str | Path) -> str:
    """Read a UTF-8 text file, with line ends as in `Path.read_text`.

    Raises:
        OSError: the file cannot be read, or is a pipe or a device, which could have no end.
        UnicodeDecodeError: it is not UTF-8 text. Zero bytes near its start are detected before the rest is read.
    """
    return read_text_bytes(path).decode().replace("\r\n", "\n").replace("\r", "\n")


def read_bytes(path: str | Path, most: int) -> bytes:
    """Read a file of at most `most` bytes; OSError if it is larger, cannot be read, or is a pipe or a device."""
    refuse_endless(path)
    with open(path, "rb") as handle:
        content = handle.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most >> 20} MB", str(path))
    return content


def read_json(path: str | Path) -> Any:
    """Read a JSON file; DataError names a file that is missing or damaged."""
    try:
        data = read_text_bytes(path)
        if is_lfs_pointer(data):
            raise DataError(lfs_message(path), path=path)
        return parse_json(decode(data, guess=False).text)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", path=path) from error
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); make it again or restore it", path=path) from error


def parse_json(text: str) -> Any:
    """Parse JSON; ValueError also for values that are nested too deeply for the parser."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error


def read_json_object(path: str | Path) -> dict[str, Any]:
    """Read a JSON file that holds names and values; DataError names a missing or damaged file, or other content."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} does not hold names and values; make it again or restore it", path=path)
    return content


def read_json_lines(path: str | Path) -> Iterator[Any]:
    """The values of a file with one JSON value per line, and None for each unreadable line.

    A process that was killed leaves an incomplete last line, which can end within a character.
    """
    with open(path, encoding="utf-8", errors="replace", newline="\n") as lines:
        for line in lines:
            try:
                yield parse_json(line)
            except ValueError:
                yield None


def end_last_line(path: str | Path) -> None:
    """End the last line of a file that a killed process left incomplete, so that what follows is a line of its own."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def refuse_existing(path: str | Path) -> None:
    """ConfigError if there is a file or folder already."""
    if Path(path).exists():
        raise ConfigError(f"{path} exists already; choose another place or delete it")


def output_directory(path: str | Path) -> Path:
    """Create the directory `path` and check that it can be written to; ConfigError if not."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        message = f"cannot write to the output folder {path}: {error.strerror}; choose another one"
        raise ConfigError(message, path=path) from error
    return path


@contextlib.contextmanager
def lock_directory(path: str | Path) -> Iterator[None]:
    """Hold the lock of directory `path` during the block.

    The operating system releases the lock of a process that ends, so a killed job leaves none behind. On a file system
    without locks the block runs without one; a warning says so once.

    Raises:
        ConfigError: Another process holds it.
    """
    path = Path(path)
    with open(path / ".lock", "w", encoding="utf-8", newline="\n") as handle:
        _lock(handle, path)
        yield


def _lock(handle: IO[str], path: Path) -> None:
    try:
        platforms.lock_file(handle)
    except OSError as error:
        if error.errno not in _HELD:
            _warn_without_lock(error.strerror or str(error), path)
            return
        message = f"{path} is in use by another process; wait for it or choose another directory"
        raise ConfigError(message, path=path) from error


@functools.cache
def _warn_without_lock(reason: str, path: Path) -> None:
    _log.warning("%s cannot be locked (%s); make sure that no other process writes to it", path, reason)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as handle:
        digest = hashlib.sha256()
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def cache_path(name: str) -> Path:
    """The user's cache folder for `name`; it may not exist.

    It is in $AVHUBERT_CACHE, else in $XDG_CACHE_HOME/avhubert, else in ~/.cache/avhubert.

    Raises:
        ConfigError: The home folder is not known.
    """
    if root := os.environ.get("AVHUBERT_CACHE"):
        return Path(root) / name
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avhubert" / name
    except RuntimeError as error:
        raise ConfigError(f"the cache folder is not known, because HOME is not set; {SET_CACHE}") from error


def cache_directory(name: str) -> Path:
    """`cache_path`, created if needed; ConfigError if it cannot be written to."""
    path = cache_path(name)
    try:
        return output_directory(path)
    except ConfigError as error:
        reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
        raise ConfigError(f"cannot write to the cache folder {path}: {reason}; {SET_CACHE}", path=path) from error
