"""Atomic writing of files and folders (a temporary name, then a rename), locks, hashes, the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avhubert import platforms
from avhubert.errors import ConfigError, DataError


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffix, and rename it to `path` at the end of the block.

    If the block raises, the temporary file is removed and `path` is unchanged.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=f".part{path.suffix}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "r+b") as written:  # Windows syncs only files open for writing
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        platforms.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary directory beside `path` and rename it to `path` at the end of the block.

    An existing directory at `path` is replaced as a whole, and only at the end. If the block raises, it is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o777 & ~umask)
    try:
        yield temporary
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
            platforms.replace(path, old / "was")
            platforms.replace(temporary, path)
            shutil.rmtree(old)
        else:
            platforms.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    r"""Write `text` as UTF-8 with \n between lines on every system, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; DataError names a file that is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", path=path) from error
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); make it again or restore it", path=path) from error


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
    """Hold the lock of directory `path` during the block; ConfigError at once if another process holds it.

    The operating system releases the lock of a process that ends, so a killed job leaves none behind.
    """
    path = Path(path)
    with open(path / ".lock", "w", encoding="utf-8", newline="\n") as handle:
        try:
            platforms.lock_file(handle)
        except OSError as error:
            message = f"{path} is in use by another process; wait for it or choose another directory"
            raise ConfigError(message, path=path) from error
        yield


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as handle:
        digest = hashlib.sha256()
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def cache_directory(name: str) -> Path:
    """The user's cache folder for `name`, created if needed.

    It is in $AVHUBERT_CACHE, else in $XDG_CACHE_HOME/avhubert, else in ~/.cache/avhubert.
    """
    root = os.environ.get("AVHUBERT_CACHE")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avhubert"
    return output_directory(base / name)
