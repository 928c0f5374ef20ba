"""`tokenizer.json` of the library tokenizers (unigram) becomes a SentencePiece model; nothing in it is executed.

A SentencePiece model is a protocol buffer. Its few fields are written by hand here, so that no library for protocol
buffers is needed; their numbers are those of `sentencepiece_model.proto`.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from avhubert.checkpoints.avista.config import SpecialTokens, read_object
from avhubert.checkpoints.pickles import printable
from avhubert.constants import NUM_SPECIALS, SPECIAL_SYMBOLS
from avhubert.data.tokenizer import SPACE, Tokenizer
from avhubert.errors import CheckpointError, DataError

TOKENIZER_JSON = "tokenizer.json"
LARGEST_SCORE = 1e30  # of a piece, in size
_UNIGRAM = 1  # TrainerSpec.ModelType
_ABSENT = -1  # id of a symbol that the model does not have


class _Kind(IntEnum):
    """SentencePiece.Type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3


class _Field(IntEnum):
    """Numbers of the fields."""

    MODEL_PIECES, MODEL_TRAINER, MODEL_NORMALIZER = 1, 2, 3
    PIECE_TEXT, PIECE_SCORE, PIECE_KIND = 1, 2, 3
    TRAINER_MODEL, TRAINER_SIZE, TRAINER_UNK, TRAINER_BOS, TRAINER_EOS, TRAINER_PAD = 3, 4, 40, 41, 42, 43
    NORMALIZER_NAME, NORMALIZER_MAP, NORMALIZER_PREFIX, NORMALIZER_SPACES, NORMALIZER_ESCAPE = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class ConvertedTokenizer:
    """A tokenizer in our order of ids.

    Attributes:
        tokenizer: reads the SentencePiece model.
        order: for each of our ids, the id of the same symbol in the folder.
    """

    tokenizer: Tokenizer
    order: tuple[int, ...]


@dataclass(frozen=True)
class _Unigram:
    """What is used of a `tokenizer.json`.

    Attributes:
        pieces: text and score of each id of the vocabulary.
        unknown: the id of the unknown symbol.
        charsmap: SentencePiece's precompiled normalisation; empty: none.
        prefix: whether a space is put before a text.
        added: text and id of the symbols beside the vocabulary, or in it.
    """

    pieces: list[tuple[str, float]]
    unknown: int
    charsmap: bytes
    prefix: bool
    added: dict[str, int]


def read_tokenizer(path: Path, special: SpecialTokens, vocab_size: int) -> ConvertedTokenizer:
    """Read a `tokenizer.json`.

    Args:
        path: the file.
        special: the ids of the special symbols that the model's configuration names.
        vocab_size: number of symbols of the model.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or does not fit the model.
    """
    if not path.is_file():
        raise CheckpointError(f"{path.parent} is a recognizer without its {path.name}: copy that file there", path=path)
    unigram = _Reader(path).read()
    symbols = [special.bos, special.pad, special.eos, unigram.unknown]
    for name, identifier in zip(SPECIAL_SYMBOLS, symbols, strict=True):
        if unigram.added.get(name, identifier) != identifier:
            raise _error(path, f"'{name}' has the id {unigram.added[name]}, in config.json {identifier}")
    extra = sorted(identifier for identifier in unigram.added.values() if identifier >= len(unigram.pieces))
    unknown = [name for name, identifier in unigram.added.items() if identifier in extra and identifier not in symbols]
    if unknown:
        raise _error(path, f"the added symbol '{printable(unknown[0], 40)}' is not supported")
    total = max([len(unigram.pieces) - 1, *symbols]) + 1
    if total != vocab_size or len({*range(len(unigram.pieces)), *symbols}) != total:
        raise _error(
            path,
            f"it has {len({*range(len(unigram.pieces)), *symbols})} symbols, the model {vocab_size}: they do not "
            "belong together; copy both from the same repository",
        )
    order = (*symbols, *(identifier for identifier in range(len(unigram.pieces)) if identifier not in symbols))
    try:
        tokenizer = Tokenizer(_serialized(unigram, symbols))
    except DataError as error:
        raise _error(path, f"its vocabulary is not one of SentencePiece ({error})") from error
    assert tokenizer.vocab_size == len(order) == vocab_size
    return ConvertedTokenizer(tokenizer, order)


class _Reader:
    """Checks the parts of a `tokenizer.json`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = read_object(path)

    def read(self) -> _Unigram:
        """The parts that are used. CheckpointError if one is missing or of a kind that SentencePiece does not have."""
        model = self._content.get("model")
        kind = model.get("type") if isinstance(model, dict) else None
        if not isinstance(model, dict) or kind != "Unigram":
            raise _error(self._path, f"its model has the type {kind!r}; only 'Unigram' is read")
        if model.get("byte_fallback"):
            raise _error(self._path, "its model has byte_fallback, which is not supported")
        pieces = self._pieces(model.get("vocab"))
        unknown = model.get("unk_id")
        if type(unknown) is not int or not 0 <= unknown < len(pieces):
            raise _error(self._path, f"unk_id={unknown!r} is not an id of its vocabulary")
        return _Unigram(pieces, unknown, self._charsmap(), self._prefix(), self._added())

    def _pieces(self, vocabulary: Any) -> list[tuple[str, float]]:
        pieces = []
        for number, entry in enumerate(vocabulary if isinstance(vocabulary, list) else []):
            if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and entry[0]):
                raise _error(self._path, f"entry {number} of its vocabulary is not a piece and its score")
            if type(entry[1]) not in (int, float) or not abs(entry[1]) < LARGEST_SCORE:
                raise _error(self._path, f"the score of entry {number} of its vocabulary is not a number")
            if entry[0].encode(errors="replace").decode() != entry[0]:
                raise _error(self._path, f"entry {number} of its vocabulary is not text")
            pieces.append((entry[0], float(entry[1])))
        if len({piece for piece, _ in pieces}) < len(pieces):
            raise _error(self._path, "its vocabulary has a piece twice")
        return pieces

    def _added(self) -> dict[str, int]:
        added = {}
        tokens = self._content.get("added_tokens") or []
        for token in tokens if isinstance(tokens, list) else []:
            name, identifier = (token.get("content"), token.get("id")) if isinstance(token, dict) else (None, None)
            if not isinstance(name, str) or type(identifier) is not int or identifier < 0:
                raise _error(self._path, "an added symbol has no name and id")
            added[name] = identifier
        return added

    def _charsmap(self) -> bytes:
        normalizer = self._content.get("normalizer")
        charsmap = b""
        for step in _steps(normalizer, "normalizers") if normalizer else []:
            kind, content = step.get("type"), step.get("precompiled_charsmap")
            if kind == "Precompiled" and isinstance(content, str) and not charsmap:
                try:
                    charsmap = base64.b64decode(content, validate=True)
                except ValueError as error:
                    raise _error(self._path, "its precompiled_charsmap is damaged") from error
            elif not (kind in ("Strip", "Nmt") or _is_space_replacement(step)):
                raise _error(self._path, f"it normalises text by {kind!r}, which is not supported")
        return charsmap

    def _prefix(self) -> bool:
        """Whether a space is put before a text."""
        steps = _steps(self._content.get("pre_tokenizer"), "pretokenizers")
        steps = [step for step in steps if step.get("type") != "WhitespaceSplit"]
        if len(steps) != 1 or steps[0].get("type") != "Metaspace" or steps[0].get("replacement", SPACE) != SPACE:
            kinds = ", ".join(repr(step.get("type")) for step in steps)
            raise _error(self._path, f"it splits text by {kinds}; only 'Metaspace' with '{SPACE}' is supported")
        return steps[0].get("prepend_scheme") != "never" and steps[0].get("add_prefix_space") is not False


def _steps(value: Any, key: str) -> list[dict[str, Any]]:
    """The steps of a `Sequence` (its list has the name `key`), or the single step; {} for what is no step."""
    step = value if isinstance(value, dict) else {}
    steps = step.get(key) if step.get("type") == "Sequence" else [step]
    return [item if isinstance(item, dict) else {} for item in (steps if isinstance(steps, list) else [None])]


def _is_space_replacement(step: dict[str, Any]) -> bool:
    """Whether a step of normalisation makes one space of several, which SentencePiece does too."""
    if step.get("type") != "Replace" or step.get("content") not in (" ", SPACE):
        return False
    pattern = step.get("pattern")
    return isinstance(pattern, dict) and pattern.get("Regex") == " {2,}"


def _error(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(f"{path}: {problem}", path=path)


# --------------------------------------------------------------------------- the protocol buffer
def _serialized(unigram: _Unigram, symbols: Sequence[int]) -> bytes:
    """The SentencePiece model; special symbols inside the vocabulary are control symbols."""
    specials = set(symbols[: NUM_SPECIALS - 1])
    pieces = []
    for identifier, (piece, score) in enumerate(unigram.pieces):
        unknown = identifier == unigram.unknown
        kind = _Kind.UNKNOWN if unknown else _Kind.CONTROL if identifier in specials else _Kind.NORMAL
        body = (
            _text(_Field.PIECE_TEXT, piece.encode()) + _float(_Field.PIECE_SCORE, score) + _int(_Field.PIECE_KIND, kind)
        )
        pieces.append(_text(_Field.MODEL_PIECES, body))
    trainer = _int(_Field.TRAINER_MODEL, _UNIGRAM) + _int(_Field.TRAINER_SIZE, len(unigram.pieces))
    trainer += _int(_Field.TRAINER_UNK, unigram.unknown)
    for field in (_Field.TRAINER_BOS, _Field.TRAINER_EOS, _Field.TRAINER_PAD):
        trainer += _int(field, _ABSENT)
    normalizer = _text(_Field.NORMALIZER_NAME, b"precompiled" if unigram.charsmap else b"identity")
    normalizer += _text(_Field.NORMALIZER_MAP, unigram.charsmap) + _int(_Field.NORMALIZER_PREFIX, unigram.prefix)
    normalizer += _int(_Field.NORMALIZER_SPACES, True) + _int(_Field.NORMALIZER_ESCAPE, True)
    return b"".join([*pieces, _text(_Field.MODEL_TRAINER, trainer), _text(_Field.MODEL_NORMALIZER, normalizer)])


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers have ten bytes
    groups = []
    while True:
        groups.append(value & 0x7F)
        value >>= 7
        if not value:
            return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)
