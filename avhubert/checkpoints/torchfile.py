"""Reads what `torch.save` wrote without executing anything in it.

A pickle is a program: reading one with `pickle` may call whatever it names. Here an interpreter of our own walks the
opcodes and has no way to call: a "call" or "build" opcode makes an inert `Record` of what was asked for, and only for
names in KNOWN; every other name is refused, before a tensor is read. Sizes are checked against the file's own length,
and what "calls" copy is counted, so that a small file cannot ask for much memory.

Both of torch's layouts are read: the zip archive (torch ≥ 1.6) and the older stream of pickles and raw storages.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from avhubert.errors import CheckpointError

MAX_PICKLE_BYTES = 64 << 20  # the published ones have about 1 MB


MAX_OPCODES = 4_000_000  # in all pickles of a file; the published ones have about 30 000; bounds memory at about 1 GB


MAX_COPIED_BYTES = 64 << 20  # by all "calls" of a file together, which may name the same object again and again


STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


KNOWN = {
    "_codecs.encode",
    "argparse.Namespace",
    "collections.OrderedDict",
    "collections.defaultdict",
    "fairseq.data.dictionary.Dictionary",
    "fairseq.data.encoders.sentencepiece_bpe.SentencepieceBPE",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "sentencepiece.SentencePieceProcessor",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch.Size",
    "torch.device",
    "typing.Any",
    *(f"omegaconf.nodes.{kind}Node" for kind in (
        "Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "Path", "String",
    )),
    *(f"{module}.{kind}" for module in ("builtins", "__builtin__") for kind in (
        "bool", "dict", "float", "int", "list", "long", "set", "str",
    )),
    *(f"fairseq.dataclass.constants.{kind}" for kind in (
        "ChoiceEnum", "CLIPPING_STRATEGY_CHOICES", "DDP_BACKEND_CHOICES", "DDP_COMM_HOOK_CHOICES",
        "DATASET_IMPL_CHOICES",
        "GENERATION_CONSTRAINTS_CHOICES", "GENERATION_DECODING_FORMAT_CHOICES", "LOG_FORMAT_CHOICES",
        "PIPELINE_CHECKPOINT_CHOICES", "PRINT_ALIGNMENT_CHOICES", "ZERO_SHARDING_CHOICES",
    )),
    *(f"torch.{kind}" for kind in STORAGES),
}  # fmt: skip


_DICTIONARIES = {f"{module}.dict" for module in ("builtins", "__builtin__")} | {
    "collections.OrderedDict",
    "collections.defaultdict",
}


_LISTS = {f"{module}.list" for module in ("builtins", "__builtin__")}


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names; nothing but its name."""

    name: str


@dataclass(eq=False)
class Record:
    """What a pickle asked to be made: `name` with `arguments`, then given `state`. It was not made."""

    name: str
    arguments: tuple
    state: Any = None


@dataclass(frozen=True)
class Storage:
    """A persistent id: numbers that lie elsewhere in the file."""

    dtype: torch.dtype
    key: str
    count: int


@dataclass(eq=False)
class TensorRecord:
    """A tensor not read yet: a strided view into a storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class TorchFile:
    """The object that a file holds, in `.content`: dicts, lists, tuples, scalars, `Record`s and `TensorRecord`s.

    `.length` is the file's length in bytes.

    Raises CheckpointError, in one sentence, for a file that is not one of torch's, is damaged, or names anything
    outside KNOWN.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._storages: dict[str, Storage] = {}
        self._places: dict[str, tuple[int, int]] = {}  # storage key → position in the file and length in bytes
        self._steps = 0
        self._copied = 0
        try:
            with open(self.path, "rb") as file:
                zipped = file.read(4) == b"PK\x03\x04"
                file.seek(0)
                self.length = self.path.stat().st_size
                self.content = self._read_zip(file) if zipped else self._read_stream(file)
        except OSError as error:
            raise CheckpointError(f"cannot read {self.path}: {error.strerror or error}") from error
        except CheckpointError:
            raise
        except (
            zipfile.BadZipFile,
            _Damaged,
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
        """Read one tensor: contiguous, in the dtype it was saved in. CheckpointError if it does not fit its storage."""
        storage, size, stride = record.storage, record.size, record.stride
        position, length = self._places.get(storage.key, (0, -1))
        width = storage.dtype.itemsize
        count = 1
        for extent in size:
            count *= extent
        last = record.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else -1
        if length < 0 or last >= length // width or count > length // width:
            raise CheckpointError(
                f"{self.path} is damaged: a tensor {list(size)} lies outside the numbers saved for it"
            )
        if not count:
            return torch.empty(size, dtype=storage.dtype)
        wanted = (last + 1 - record.offset) * width
        try:
            with open(self.path, "rb") as file:
                file.seek(position + record.offset * width)
                raw = bytearray(file.read(wanted))
        except OSError as error:
            raise CheckpointError(f"cannot read {self.path}: {error.strerror or error}") from error
        if len(raw) != wanted:
            raise CheckpointError(f"{self.path} is damaged: it ends too early; get the file again")
        return torch.frombuffer(raw, dtype=storage.dtype).as_strided(size, stride).contiguous()

    # ------------------------------------------------------------------- the two layouts
    def _read_zip(self, file: BinaryIO) -> Any:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if any(
                info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size
                for info in members.values()
            ):
                raise _Damaged("it holds compressed members, which torch never writes")
            if sum(info.file_size for info in members.values()) > self.length or len(members) != len(
                archive.infolist()
            ):
                raise _Damaged("its members claim more bytes than it has")
            program = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(program) != 1:
                raise _Damaged("there is no data.pkl in it")
            folder = program[0].removesuffix("data.pkl")
            if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
                raise _Damaged("it was written on a big-endian machine")
            if members[program[0]].file_size > MAX_PICKLE_BYTES:
                raise _Damaged(f"its pickle has more than {MAX_PICKLE_BYTES >> 20} MB")
            content = self._interpret(io.BytesIO(archive.read(program[0])))
            for name, info in members.items():
                if name.startswith(f"{folder}data/"):
                    start = _start(file, info)
                    if start + info.file_size > self.length:
                        raise _Damaged("it ends too early")
                    self._places[name.removeprefix(f"{folder}data/")] = (start, info.file_size)
        return content

    def _read_stream(self, file: BinaryIO) -> Any:
        program = io.BytesIO(file.read(MAX_PICKLE_BYTES))
        if program.getbuffer()[:1] != b"\x80":
            raise _Damaged("it starts neither as a zip archive nor as a pickle")
        if self._interpret(program) != 0x1950A86A20F9469CFC6C or self._interpret(program) != 1001:
            raise _Damaged("it does not start with torch's magic number")
        system = self._interpret(program)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise _Damaged("it was written on a big-endian machine")
        content = self._interpret(program)
        keys = self._interpret(program)
        position = program.tell()
        for key in keys if isinstance(keys, list) else []:
            storage = self._storages.get(key) if isinstance(key, str) else None
            if storage is None:
                raise _Damaged("it lists numbers that nothing uses")
            file.seek(position)
            (count,) = struct.unpack("<q", file.read(8))
            length = count * storage.dtype.itemsize
            position += 8
            if count != storage.count or position + length > self.length:
                raise _Damaged("it ends too early")
            self._places[storage.key] = (position, length)
            position += length
        return content

    # ------------------------------------------------------------------- the interpreter
    def _interpret(self, program: io.BytesIO) -> Any:
        """Walk one pickle up to its STOP; leaves `program` behind it."""
        machine = _Machine(self)
        for opcode, argument, _ in pickletools.genops(program):
            self._steps += 1
            if self._steps > MAX_OPCODES:
                raise _Damaged(f"its pickle has more than {MAX_OPCODES:,} steps")
            try:
                machine.step(opcode.name, argument)
            except (IndexError, KeyError, TypeError, AttributeError, UnicodeError) as error:
                raise _Damaged("its pickle is not well formed") from error
        return machine.result

    def storage(self, identifier: Any) -> Storage:
        """The storage that a persistent id stands for."""
        kind, name, key, _, count = identifier[:5]
        dtype = STORAGES.get(name.name.removeprefix("torch.")) if isinstance(name, Name) else None
        if kind != "storage" or dtype is None or not isinstance(key, str) or type(count) is not int or count < 0:
            raise _Damaged("a tensor's numbers are described in an unknown way")
        if len(identifier) > 5 and identifier[5] is not None:
            raise _Damaged("it holds views of storages as torch 0.3 wrote them")
        storage = Storage(dtype, key, count)
        known = self._storages.setdefault(key, storage)
        if known != storage:
            raise _Damaged("two tensors describe the same numbers differently")
        return storage

    def make(self, name: str, arguments: Any) -> Any:
        """What stands in for calling `name`: containers and tensors by meaning, all else as a `Record`."""
        if type(arguments) is not tuple:
            raise _Damaged("its pickle is not well formed")
        if name in _DICTIONARIES:
            pairs = arguments[0] if arguments and isinstance(arguments[0], (list, dict)) else ()
            self._copy(200 * len(pairs))
            items = pairs.items() if isinstance(pairs, dict) else pairs
            return {_key(key): value for key, value in items}
        if name in _LISTS:
            items = arguments[0] if arguments and isinstance(arguments[0], (list, tuple)) else ()
            self._copy(8 * len(items))
            return list(items)
        if name == "_codecs.encode":
            text, codec = arguments
            if type(text) is not str or codec not in ("latin1", "latin-1"):
                raise _Damaged("it holds bytes in an unknown form")
            self._copy(len(text))
            return text.encode("latin-1")
        if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            storage, offset, size, stride = arguments[:4]
            return TensorRecord(_of(Storage, storage), _whole(offset), _sizes(size), _sizes(stride, len(_sizes(size))))
        if name == "torch._utils._rebuild_parameter":
            return _of(TensorRecord, arguments[0])
        if name == "torch.Size":
            return _sizes(arguments[0])
        return Record(name, arguments)

    def _copy(self, count: int) -> None:
        self._copied += count
        if self._copied > MAX_COPIED_BYTES:
            raise _Damaged(f"its pickle copies more than {MAX_COPIED_BYTES >> 20} MB")

    def refuse(self, name: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is refused: it would call '{printable(name, 80)}', which no published checkpoint needs; "
            "nothing in it was executed"
        )


class _Damaged(Exception):
    """Why a file cannot be read, as the middle of a sentence."""


@dataclass
class _Machine:
    """Stack, marks and memo of a pickle. Only data is ever on the stack, so there is nothing to call."""

    file: TorchFile
    stack: list = field(default_factory=list)
    marks: list = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    result: Any = None

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _VALUES:
            stack.append(argument)
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif opcode in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if opcode == "EMPTY_DICT" else [])
        elif opcode == "MARK":
            self.marks.append(len(stack))
        elif opcode == "POP":
            stack.pop()
        elif opcode in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(opcode[-1])
            if count > len(stack):
                raise _Damaged("its pickle is not well formed")
            stack[-count:] = [tuple(stack[-count:])]
        elif opcode in ("TUPLE", "LIST"):
            items = self._marked()
            stack.append(tuple(items) if opcode == "TUPLE" else items)
        elif opcode == "DICT":
            stack.append(dict(_pairs(self._marked())))
        elif opcode == "APPEND":
            value = stack.pop()
            _of(list, stack[-1]).append(value)
        elif opcode == "APPENDS":
            items = self._marked()
            _of(list, stack[-1]).extend(items)
        elif opcode == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _of(dict, stack[-1])[_key(key)] = value
        elif opcode == "SETITEMS":
            items = self._marked()
            _of(dict, stack[-1]).update(_pairs(items))
        elif opcode in ("GLOBAL", "STACK_GLOBAL"):
            if opcode == "STACK_GLOBAL":
                name, module = _of(str, stack.pop()), _of(str, stack.pop())
                argument = f"{module} {name}"
            stack.append(self._known(argument.replace(" ", ".", 1)))
        elif opcode in ("REDUCE", "NEWOBJ"):
            arguments = stack.pop()
            stack.append(self.file.make(_of(Name, stack.pop()).name, arguments))
        elif opcode == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Record):
                stack[-1].state = state
            elif not isinstance(stack[-1], dict):  # an OrderedDict's own attributes, such as `_metadata`: not needed
                raise _Damaged("its pickle is not well formed")
        elif opcode == "BINPERSID":
            stack.append(self.file.storage(_of(tuple, stack.pop())))
        elif opcode == "STOP":
            self.result = stack.pop()
        elif opcode not in ("PROTO", "FRAME"):
            raise _Damaged(f"its pickle uses the step {opcode}, which torch never writes")

    def _marked(self) -> list:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _known(self, name: str) -> Name:
        if name not in KNOWN:
            raise self.file.refuse(name)
        return Name(name)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT", "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8", "UNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip


def printable(text: object, limit: int) -> str:
    """`text` out of a file for an error's sentence: one line, no control characters, at most `limit` of it."""
    return "".join(char if char.isprintable() else "?" for char in str(text)[:limit])


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise _Damaged("its pickle is not well formed")
    return value


def _key(key: Any) -> Any:
    # a nested key would be hashed by recursion, whose depth the file decides
    if key is not None and type(key) not in (str, int, float, bool, bytes):
        raise _Damaged("a dictionary in it has a key that is neither text nor number")
    return key


def _pairs(items: list) -> list[tuple[Any, Any]]:
    if len(items) % 2:
        raise _Damaged("its pickle is not well formed")
    return [(_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True)]


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise _Damaged("a tensor has an impossible size")
    return value


def _sizes(value: Any, count: int | None = None) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)) or len(value) > 16 or (count is not None and len(value) != count):
        raise _Damaged("a tensor has an impossible size")
    sizes = tuple(_whole(extent) for extent in value)
    if math.prod(max(extent, 1) for extent in sizes) >= 1 << 62:  # torch multiplies the others even beside a 0
        raise _Damaged("a tensor has an impossible size")
    return sizes


def _start(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: behind its local header."""
    file.seek(info.header_offset)
    header = file.read(30)
    if header[:4] != b"PK\x03\x04":
        raise _Damaged("a member has no header")
    name, extra = struct.unpack("<HH", header[26:30])
    return info.header_offset + 30 + name + extra
