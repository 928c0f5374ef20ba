"""Writes tensors to files; where the disk is full, the error is that of the operating system."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from avhubert.files import atomic_path_in_directory

_METADATA = "__metadata__"  # its key in the header of a safetensors file


class _Sink:
    """A file that remembers the error of a write: torch replaces it by one about positions in its archive."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def write_archive(content: Any, path: Path, pickle_module: Any = None) -> None:
    """Write an object with `torch.save`; equal objects give equal files, whatever their names.

    Args:
        content: The object.
        path: The file.
        pickle_module: See `torch.save`; None: the default.

    Raises:
        OSError: The file cannot be written.
    """
    with open(path, "wb") as file:
        sink = _Sink(file)
        try:
            if pickle_module is None:
                torch.save(content, sink)  # type: ignore[arg-type]
            else:
                torch.save(content, sink, pickle_module=pickle_module)  # type: ignore[arg-type]
        except RuntimeError as error:
            if sink.error is None:
                raise
            raise OSError(sink.error.errno, sink.error.strerror, str(path)) from error


def write_safetensors(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically; equal tensors and metadata give equal files.

    Raises:
        OSError: The file cannot be written.
    """
    with atomic_path_in_directory(path) as temporary:  # safetensors leaves `.tmpXXXXXX` if it is killed
        try:
            save_file(dict(state), temporary, metadata=dict(metadata))
        except SafetensorError as error:
            number = re.search(r"os error (\d+)|Os \{ code: (\d+)", str(error))
            if number is None:
                raise
            code = int(number[1] or number[2])  # the second is how older releases of safetensors write it
            raise OSError(code, os.strerror(code), str(path)) from error
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Put the metadata in order, which the library writes in a random one. The length of the header stays."""
    with open(path, "r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header = {_METADATA: dict(sorted(header.pop(_METADATA).items())), **header}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "the header became longer"
        file.seek(8)
        file.write(text.ljust(length))
