"""Reads files that `torch.save` wrote, without executing anything in them: see `pickles`.

Both of torch's layouts are read: the zip archive (torch ≥ 1.6) and the older stream of pickles and raw storages. Sizes
are checked against the length of the file.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from avhubert.checkpoints.hashes import damaged_zip_member
from avhubert.checkpoints.pickles import DamagedError, PickleReader, TensorRecord, printable
from avhubert.encoding import placeholder_message
from avhubert.errors import CheckpointError

MAX_PICKLE_BYTES = 64 << 20  # published files have about 1 MB
ZIP_SIGNATURE = b"PK\x03\x04"
LOCAL_HEADER_BYTES = 30
STREAM_MAGIC, STREAM_VERSION = 0x1950A86A20F9469CFC6C, 1001  # the first two objects of torch's older layout


@dataclass(frozen=True)
class _Location:
    """The bytes of a storage in the file."""

    position: int
    length: int


class TorchFile:
    """A file of `torch.save`.

    Attributes:
        path: The file.
        content: Its object, made of dicts, lists, tuples, scalars, `Record`s and `TensorRecord`s.
        length: The length of the file in bytes.

    Raises:
        CheckpointError: Not a file of torch, damaged, a Git LFS pointer or web page, or naming a class or function
            that no published checkpoint needs.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reader = PickleReader(self.path)
        self._locations: dict[str, _Location] = {}  # by storage key
        if problem := placeholder_message(self.path):
            raise CheckpointError(problem, path=self.path)
        try:
            with open(self.path, "rb") as file:
                zipped = file.read(4) == ZIP_SIGNATURE
                file.seek(0)
                self.length = self.path.stat().st_size
                self.content = self._read_zip(file) if zipped else self._read_stream(file)
        except OSError as error:
            raise CheckpointError(f"cannot read {self.path}: {error.strerror or error}") from error
        except CheckpointError:
            raise
        except (
            zipfile.BadZipFile,
            DamagedError,
            NotImplementedError,
            RuntimeError,
            ValueError,
            OverflowError,
            EOFError,
            struct.error,
        ) as error:
            raise CheckpointError(
                f"{self.path} is damaged or not a checkpoint of torch: {printable(error, 200)}; get the file again"
            ) from error

    def tensor(self, record: TensorRecord) -> Tensor:
        """Read one tensor: contiguous, in the dtype of the file.

        Raises:
            CheckpointError: It does not fit its storage.
        """
        storage, size, stride = record.storage, record.size, record.stride
        location = self._locations.get(storage.key, _Location(0, -1))
        width = storage.dtype.itemsize
        count = math.prod(size)
        last = record.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else -1
        if location.length < 0 or last >= location.length // width or count > location.length // width:
            raise CheckpointError(
                f"{self.path} is damaged: a tensor {list(size)} lies outside the numbers saved for it"
            )
        if not count:
            return torch.empty(size, dtype=storage.dtype)
        needed = (last + 1 - record.offset) * width
        try:
            with open(self.path, "rb") as file:
                file.seek(location.position + record.offset * width)
                raw = bytearray(file.read(needed))
        except OSError as error:
            raise CheckpointError(f"cannot read {self.path}: {error.strerror or error}") from error
        if len(raw) != needed:
            raise CheckpointError(f"{self.path} is damaged: it ends too early; get the file again")
        return torch.frombuffer(raw, dtype=storage.dtype).as_strided(size, stride).contiguous()

    def _read_zip(self, file: BinaryIO) -> Any:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            self._check_members(archive, members)
            pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise DamagedError("there is no data.pkl in it")
            folder = pickles[0].removesuffix("data.pkl")
            if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
                raise DamagedError("it was written on a big-endian machine")
            if members[pickles[0]].file_size > MAX_PICKLE_BYTES:
                raise DamagedError(f"its pickle has more than {MAX_PICKLE_BYTES >> 20} MB")
            content = self._reader.read(io.BytesIO(archive.read(pickles[0])))
            damaged = damaged_zip_member(self.path)
            if damaged is not None:
                raise DamagedError(f"the checksum of {printable(damaged, 80)} differs")
            for name, info in members.items():
                if name.startswith(f"{folder}data/"):
                    start = _member_start(file, info)
                    if start + info.file_size > self.length:
                        raise DamagedError("it ends too early")
                    self._locations[name.removeprefix(f"{folder}data/")] = _Location(start, info.file_size)
        return content

    def _check_members(self, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> None:
        """DamagedError for compressed, repeated or too large members."""
        if any(
            info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size
            for info in members.values()
        ):
            raise DamagedError("it holds compressed members, which torch never writes")
        total = sum(info.file_size for info in members.values())
        if total > self.length or len(members) != len(archive.infolist()):
            raise DamagedError("its members claim more bytes than it has")

    def _read_stream(self, file: BinaryIO) -> Any:
        program = io.BytesIO(file.read(MAX_PICKLE_BYTES))
        if bytes(program.getbuffer()[:1]) != b"\x80":
            raise DamagedError("it starts neither as a zip archive nor as a pickle")
        read = self._reader.read
        if read(program) != STREAM_MAGIC or read(program) != STREAM_VERSION:
            raise DamagedError("it does not start with torch's magic number")
        system = read(program)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise DamagedError("it was written on a big-endian machine")
        content = read(program)
        keys = read(program)
        self._locate_storages(file, keys if isinstance(keys, list) else [], program.tell())
        return content

    def _locate_storages(self, file: BinaryIO, keys: list[Any], position: int) -> None:
        """Find the storages of the older layout: each is its count and its numbers, in the order of `keys`."""
        for key in keys:
            storage = self._reader.storages.get(key) if isinstance(key, str) else None
            if storage is None:
                raise DamagedError("it lists numbers that nothing uses")
            file.seek(position)
            (count,) = struct.unpack("<q", file.read(8))
            length = count * storage.dtype.itemsize
            position += 8
            if count != storage.count or position + length > self.length:
                raise DamagedError("it ends too early")
            self._locations[storage.key] = _Location(position, length)
            position += length


def _member_start(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """The position of a member's bytes, which follow its local header."""
    file.seek(info.header_offset)
    header = file.read(LOCAL_HEADER_BYTES)
    if header[:4] != ZIP_SIGNATURE:
        raise DamagedError("a member has no header")
    name, extra = struct.unpack("<HH", header[26:LOCAL_HEADER_BYTES])
    return info.header_offset + LOCAL_HEADER_BYTES + int(name) + int(extra)
