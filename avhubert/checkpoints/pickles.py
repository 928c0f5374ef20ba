"""Reads pickles without executing anything in them.

A pickle is a program: `pickle.load` may call whatever it names. The interpreter here walks the opcodes and cannot call
anything: a "call" or "build" opcode makes an inert `Record`, and only for names in ALLOWED_NAMES; any other name is an
error. The numbers of opcodes and of copied bytes are limited, so that a small file cannot take much memory.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from avhubert.errors import CheckpointError

T = TypeVar("T")

MAX_OPCODES = 4_000_000  # in all pickles of a file, about 1 GB of objects; published files have about 30 000
MAX_COPIED_BYTES = 64 << 20  # by all "calls" of a file, which may copy the same object many times
MAX_DIMENSIONS = 16
MAX_ELEMENTS = 1 << 62

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

ALLOWED_NAMES = {  # classes and functions that published checkpoints name
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


class DamagedError(Exception):
    """A file that cannot be read; the message is the middle of a sentence."""


@dataclass(frozen=True)
class Name:
    """The name of a class or function."""

    name: str


@dataclass(eq=False)
class Record:
    """A call that a pickle asks for and that was not made: `name` with `arguments`, then `state`."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True)
class Storage:
    """A persistent id: numbers elsewhere in the file."""

    dtype: torch.dtype
    key: str
    count: int


@dataclass(eq=False)
class TensorRecord:
    """A tensor that is not read yet: a strided view into a storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class PickleReader:
    """Reads the pickles of one file; the limits hold for all of them together.

    Args:
        path: The file, for messages.

    Attributes:
        storages: The storages that the pickles refer to, by key.
    """

    def __init__(self, path: Path) -> None:
        self.storages: dict[str, Storage] = {}
        self._path = path
        self._opcodes = 0
        self._copied = 0

    def read(self, program: io.BytesIO) -> Any:
        """Read one pickle: dicts, lists, tuples, scalars, `Record`s and `TensorRecord`s.

        Args:
            program: The pickle; its position is after the pickle's end when this returns.

        Raises:
            CheckpointError: The pickle names anything outside ALLOWED_NAMES.
            DamagedError: It is not well formed, or too large.
        """
        interpreter = _Interpreter(self)
        for opcode, argument, _ in pickletools.genops(program):
            self._opcodes += 1
            if self._opcodes > MAX_OPCODES:
                raise DamagedError(f"its pickle has more than {MAX_OPCODES:,} steps")
            try:
                interpreter.step(opcode.name, argument)
            except (IndexError, KeyError, TypeError, AttributeError, UnicodeError) as error:
                raise DamagedError("its pickle is not well formed") from error
        return interpreter.result

    def name(self, name: str) -> Name:
        """An allowed name; CheckpointError for any other."""
        if name not in ALLOWED_NAMES:
            raise CheckpointError(
                f"{self._path} is refused: it would call '{printable(name, 80)}', which no published checkpoint needs; "
                "nothing in it was executed"
            )
        return Name(name)

    def storage(self, identifier: Any) -> Storage:
        """The storage of a persistent id."""
        kind, name, key, _, count = identifier[:5]
        dtype = STORAGES.get(name.name.removeprefix("torch.")) if isinstance(name, Name) else None
        if kind != "storage" or dtype is None or not isinstance(key, str) or type(count) is not int or count < 0:
            raise DamagedError("a tensor's numbers are described in an unknown way")
        if len(identifier) > 5 and identifier[5] is not None:
            raise DamagedError("it holds views of storages as torch 0.3 wrote them")
        storage = Storage(dtype, key, count)
        if self.storages.setdefault(key, storage) != storage:
            raise DamagedError("two tensors describe the same numbers differently")
        return storage

    def make(self, name: str, arguments: Any) -> Any:
        """The result of calling `name`: containers and tensors for those names, else a `Record`."""
        if type(arguments) is not tuple:
            raise DamagedError("its pickle is not well formed")
        if name in _DICTIONARIES:
            pairs = arguments[0] if arguments and isinstance(arguments[0], (list, dict)) else ()
            self._count_copy(200 * len(pairs))
            items = pairs.items() if isinstance(pairs, dict) else pairs
            return {_checked_key(key): value for key, value in items}
        if name in _LISTS:
            items = arguments[0] if arguments and isinstance(arguments[0], (list, tuple)) else ()
            self._count_copy(8 * len(items))
            return list(items)
        if name == "_codecs.encode":
            text, codec = arguments
            if type(text) is not str or codec not in ("latin1", "latin-1"):
                raise DamagedError("it holds bytes in an unknown form")
            self._count_copy(len(text))
            return text.encode("latin-1")
        if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            storage, offset, size, stride = arguments[:4]
            sizes = _checked_sizes(size)
            strides = _checked_sizes(stride, len(sizes))
            return TensorRecord(_instance(Storage, storage), _checked_size(offset), sizes, strides)
        if name == "torch._utils._rebuild_parameter":
            return _instance(TensorRecord, arguments[0])
        if name == "torch.Size":
            return _checked_sizes(arguments[0])
        return Record(name, arguments)

    def _count_copy(self, count: int) -> None:
        self._copied += count
        if self._copied > MAX_COPIED_BYTES:
            raise DamagedError(f"its pickle copies more than {MAX_COPIED_BYTES >> 20} MB")


@dataclass
class _Interpreter:
    """Stack, marks and memo of one pickle; there is only data on the stack, so nothing can be called."""

    reader: PickleReader
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    result: Any = None

    def step(self, opcode: str, argument: Any) -> None:
        """Execute one opcode."""
        if opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in _OPERATIONS:
            _OPERATIONS[opcode](self, argument)
        elif opcode not in ("PROTO", "FRAME"):
            raise DamagedError(f"its pickle uses the step {opcode}, which torch never writes")

    def _pop_marked(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    # ------------------------------------------------------------------- memo and stack
    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def pop(self, _: None) -> None:
        self.stack.pop()

    def stop(self, _: None) -> None:
        self.result = self.stack.pop()

    # ------------------------------------------------------------------- containers
    def empty_dict(self, _: None) -> None:
        self.stack.append({})

    def empty_list(self, _: None) -> None:
        self.stack.append([])

    def short_tuple(self, count: int) -> None:
        if count > len(self.stack):
            raise DamagedError("its pickle is not well formed")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def marked_tuple(self, _: None) -> None:
        self.stack.append(tuple(self._pop_marked()))

    def marked_list(self, _: None) -> None:
        self.stack.append(self._pop_marked())

    def marked_dict(self, _: None) -> None:
        self.stack.append(dict(_pairs(self._pop_marked())))

    def append(self, _: None) -> None:
        value = self.stack.pop()
        _instance(list, self.stack[-1]).append(value)

    def appends(self, _: None) -> None:
        items = self._pop_marked()
        _instance(list, self.stack[-1]).extend(items)

    def set_item(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _instance(dict, self.stack[-1])[_checked_key(key)] = value

    def set_items(self, _: None) -> None:
        items = self._pop_marked()
        _instance(dict, self.stack[-1]).update(_pairs(items))

    # ------------------------------------------------------------------- names and calls
    def global_name(self, argument: str) -> None:
        self.stack.append(self.reader.name(argument.replace(" ", ".", 1)))

    def stack_name(self, _: None) -> None:
        name, module = _instance(str, self.stack.pop()), _instance(str, self.stack.pop())
        self.global_name(f"{module} {name}")

    def call(self, _: None) -> None:
        arguments = self.stack.pop()
        self.stack.append(self.reader.make(_instance(Name, self.stack.pop()).name, arguments))

    def build(self, _: None) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Record):
            self.stack[-1].state = state
        elif not isinstance(self.stack[-1], dict):  # attributes of an OrderedDict, such as `_metadata`, are not needed
            raise DamagedError("its pickle is not well formed")

    def persistent_id(self, _: None) -> None:
        self.stack.append(self.reader.storage(_instance(tuple, self.stack.pop())))


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_OPERATIONS: dict[str, Callable[[_Interpreter, Any], None]] = {
    "PUT": _Interpreter.put,
    "BINPUT": _Interpreter.put,
    "LONG_BINPUT": _Interpreter.put,
    "MEMOIZE": _Interpreter.memoize,
    "GET": _Interpreter.get,
    "BINGET": _Interpreter.get,
    "LONG_BINGET": _Interpreter.get,
    "MARK": _Interpreter.mark,
    "POP": _Interpreter.pop,
    "STOP": _Interpreter.stop,
    "EMPTY_DICT": _Interpreter.empty_dict,
    "EMPTY_LIST": _Interpreter.empty_list,
    "TUPLE1": lambda interpreter, _: interpreter.short_tuple(1),
    "TUPLE2": lambda interpreter, _: interpreter.short_tuple(2),
    "TUPLE3": lambda interpreter, _: interpreter.short_tuple(3),
    "TUPLE": _Interpreter.marked_tuple,
    "LIST": _Interpreter.marked_list,
    "DICT": _Interpreter.marked_dict,
    "APPEND": _Interpreter.append,
    "APPENDS": _Interpreter.appends,
    "SETITEM": _Interpreter.set_item,
    "SETITEMS": _Interpreter.set_items,
    "GLOBAL": _Interpreter.global_name,
    "STACK_GLOBAL": _Interpreter.stack_name,
    "REDUCE": _Interpreter.call,
    "NEWOBJ": _Interpreter.call,
    "BUILD": _Interpreter.build,
    "BINPERSID": _Interpreter.persistent_id,
}


# --------------------------------------------------------------------------- checks
def printable(text: object, limit: int) -> str:
    """Text out of a file for a message: one line, no control characters, at most `limit` characters."""
    return "".join(char if char.isprintable() else "?" for char in str(text)[:limit])


def _instance(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise DamagedError("its pickle is not well formed")
    return value


def _checked_key(key: Any) -> Any:
    # hashing a nested key recurses as deep as the file says
    if key is not None and type(key) not in (str, int, float, bool, bytes):
        raise DamagedError("a dictionary in it has a key that is neither text nor number")
    return key


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    if len(items) % 2:
        raise DamagedError("its pickle is not well formed")
    return [(_checked_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True)]


def _checked_size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MAX_ELEMENTS:
        raise DamagedError("a tensor has an impossible size")
    return value


def _checked_sizes(value: Any, count: int | None = None) -> tuple[int, ...]:
    """A tensor's sizes or strides; `count`: how many there must be."""
    sequence = isinstance(value, (tuple, list))
    if not sequence or len(value) > MAX_DIMENSIONS or (count is not None and len(value) != count):
        raise DamagedError("a tensor has an impossible size")
    sizes = tuple(_checked_size(size) for size in value)
    if math.prod(max(size, 1) for size in sizes) >= MAX_ELEMENTS:  # torch multiplies the others even beside a 0
        raise DamagedError("a tensor has an impossible size")
    return sizes
