"""Python objects inside a published checkpoint, read and written without the classes that they name."""

from __future__ import annotations

import pickle
import types
from pathlib import Path
from typing import Any, ClassVar

from avhubert.checkpoints.fairseq.extras import Dictionary
from avhubert.checkpoints.pickles import Record
from avhubert.constants import SPECIAL_SYMBOLS
from avhubert.errors import CheckpointError

MAX_DEPTH = 40  # of a configuration
MAX_CHARACTERS = 10_000_000  # of a configuration; shared and cyclic references can make a small file look endless
CHARACTERS_PER_VALUE = 50  # what each value counts, besides the characters of a text


# --------------------------------------------------------------------------- reading
def to_plain(value: Any, path: str | Path) -> Any:
    """Dicts, lists and scalars of a configuration, with omegaconf's containers, namespaces and enums unwrapped.

    Args:
        value: An object of a `TorchFile`.
        path: The file, for messages.

    Raises:
        CheckpointError: The configuration is too deep or too large.
    """
    return _Unwrapping(path).plain(value, 0)


class _Unwrapping:
    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._remaining = MAX_CHARACTERS

    def plain(self, value: Any, depth: int) -> Any:
        self._remaining -= CHARACTERS_PER_VALUE + (len(value) if isinstance(value, str) else 0)
        if depth > MAX_DEPTH or self._remaining < 0:
            raise CheckpointError(f"{self._path}: its configuration is nested without end or huge; no published one is")
        if isinstance(value, Record):
            return self.plain(_content(value), depth + 1) if _has_content(value) else None
        if isinstance(value, dict):
            return {str(self.plain(key, depth + 1)): self.plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(item, depth + 1) for item in value]
        return _plain_scalar(value)


def _has_content(record: Record) -> bool:
    return record.name.startswith("omegaconf.") or record.name == "argparse.Namespace" or bool(record.arguments)


def _content(record: Record) -> Any:
    """What a container, a namespace or an enum holds."""
    state = record.state if isinstance(record.state, dict) else {}
    if record.name.startswith("omegaconf."):
        return state.get("_content", state.get("_val"))
    if record.name == "argparse.Namespace":
        return state
    return record.arguments[0]  # an enum's value


def _plain_scalar(value: Any) -> str | int | float | None:
    """The value if JSON can hold it, else None."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # lone surrogates cannot be written
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else None
    return value if isinstance(value, float) else None


def read_dictionary(item: Any, path: str | Path) -> Dictionary:
    """The symbols and counts of a pickled dictionary; counts of 1 if the file has no valid ones.

    Raises:
        CheckpointError: It has no symbols, or one that is not text.
    """
    state = item.state if isinstance(item, Record) else None
    if not isinstance(state, dict) or not isinstance(state.get("symbols"), list):
        raise CheckpointError(f"{path}: a dictionary in its task_state has no symbols")
    symbols, counts = state["symbols"], state.get("count")
    if not all(isinstance(symbol, str) for symbol in symbols):
        raise CheckpointError(f"{path}: a dictionary in its task_state has a symbol that is not text")
    if not isinstance(counts, list) or not all(type(count) is int and 0 <= count < 1 << 63 for count in counts):
        counts = [1] * len(symbols)
    return {"symbols": list(symbols), "count": list(counts)}


def read_tokenizer(task_state: dict[str, Any]) -> bytes | None:
    """The serialized SentencePiece model of a recognizer; None if the file has none."""
    wrapper = task_state.get("s2s_tokenizer")
    wrapped = wrapper.state if isinstance(wrapper, Record) else None
    processor = wrapped.get("sp") if isinstance(wrapped, dict) else None
    serialized = processor.state if isinstance(processor, Record) else None
    return serialized if isinstance(serialized, bytes) else None


# --------------------------------------------------------------------------- writing
class PickledDictionary:
    """Pickles as the original's dictionary."""

    pickled_as: ClassVar = ("fairseq.data.dictionary", "Dictionary")

    def __init__(self, dictionary: Dictionary) -> None:
        self.bos_word, self.pad_word, self.eos_word, self.unk_word = SPECIAL_SYMBOLS
        self.symbols = list(dictionary["symbols"])
        self.count = list(dictionary["count"])
        self.indices = {symbol: index for index, symbol in enumerate(self.symbols)}
        self.bos_index, self.pad_index, self.eos_index, self.unk_index = range(len(SPECIAL_SYMBOLS))
        self.nspecial = len(SPECIAL_SYMBOLS)


class _PickledProcessor:
    """Pickles as SentencePiece's processor, whose state is the serialized model."""

    pickled_as: ClassVar = ("sentencepiece", "SentencePieceProcessor")

    def __init__(self, serialized: bytes) -> None:
        self._serialized = serialized

    def __getstate__(self) -> bytes:
        return self._serialized


class PickledTokenizer:
    """Pickles as the original's tokenizer."""

    pickled_as: ClassVar = ("fairseq.data.encoders.sentencepiece_bpe", "SentencepieceBPE")

    def __init__(self, serialized: bytes) -> None:
        self.sp = _PickledProcessor(serialized)


class _Pickler(pickle._Pickler):
    """Writes the classes above under the names of the original; the C pickler would import those first."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if obj not in (PickledDictionary, _PickledProcessor, PickledTokenizer):
            super().save_global(obj, name)  # type: ignore[misc]
            return
        module, qualified_name = obj.pickled_as
        self.write(pickle.GLOBAL + f"{module}\n{qualified_name}\n".encode())  # type: ignore[attr-defined]
        self.memoize(obj)  # type: ignore[attr-defined]


PICKLE_MODULE = types.SimpleNamespace(__name__="avhubert", Pickler=_Pickler)  # for torch.save, which needs no more
