"""SentencePiece tokenizer and its special symbols."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from avhubert.constants import BOS, EOS, PAD, SPECIAL_SYMBOLS, UNK
from avhubert.data.text import normalise_form, normalise_text
from avhubert.encoding import is_lfs_pointer, lfs_message
from avhubert.errors import DataError
from avhubert.files import read_bytes

SPACE = "▁"  # stands for the space before a word in a piece
MAX_UNKNOWN = 0.001  # maximum share of characters that are unknown to the tokenizer
LARGEST_BYTES = 256 << 20  # of a SentencePiece model; those of large vocabularies have 5 MB
MAX_LISTED = 10  # characters listed in a message


class Tokenizer:
    """Text to token ids and back.

    Args:
        model: a serialized SentencePiece model, or the path of one.

    Attributes:
        symbols: the symbol of each id; the special symbols have the ids 0 to 3.
        serialized: the serialized SentencePiece model.
        lower_case: whether texts are encoded in lower case; not where the vocabulary has capital letters, which those
            of this package never have.

    Raises:
        DataError: the file cannot be read or is not a SentencePiece model.
    """

    def __init__(self, model: bytes | str | Path) -> None:
        name = "the tokenizer" if isinstance(model, bytes) else f"tokenizer {model}"
        try:
            self.serialized = model if isinstance(model, bytes) else read_bytes(model, LARGEST_BYTES)
        except OSError as error:
            raise DataError(f"cannot read {name}: {error.strerror}") from error
        if is_lfs_pointer(self.serialized):
            raise DataError(lfs_message(name))
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(self.serialized)
            symbols = [self._processor.IdToPiece(i) for i in range(len(self._processor))]
        except (RuntimeError, UnicodeDecodeError) as error:
            raise DataError(f"{name} is not a SentencePiece model; make it again or restore it") from error
        processor = self._processor
        pieces = [i for i in range(len(processor)) if not (processor.IsControl(i) or processor.IsUnknown(i))]
        self.symbols: list[str] = [*SPECIAL_SYMBOLS, *(symbols[i] for i in pieces)]
        self.lower_case = all(symbol == symbol.lower() for symbol in self.symbols)
        self._token_ids = [UNK] * len(processor)  # of each id of the SentencePiece model
        for position, identifier in enumerate(pieces):
            self._token_ids[identifier] = len(SPECIAL_SYMBOLS) + position

    @property
    def vocab_size(self) -> int:
        """Number of ids, special symbols included."""
        return len(self.symbols)

    def normalise(self, text: str) -> str:
        """The text as it is encoded."""
        return normalise_text(text) if self.lower_case else normalise_form(text)

    def encode(self, text: str) -> list[int]:
        """Token ids of the normalised text, without `</s>`."""
        return [self._token_ids[identifier] for identifier in self._processor.EncodeAsIds(self.normalise(text))]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; `<s>`, `<pad>` and `</s>` are left out, `<unk>` is kept."""
        pieces = [self.symbols[int(identifier)] for identifier in ids if int(identifier) not in (BOS, PAD, EOS)]
        return "".join(pieces).replace(SPACE, " ").strip()


def unknown_characters(texts: Iterable[str], tokenizer: Tokenizer, where: str) -> Counter[str]:
    """Count the characters that are unknown to a tokenizer.

    Args:
        texts: are normalised first; spaces are not counted.
        tokenizer: of the recognizer.
        where: name of the texts for the message.

    Returns:
        The count of each unknown character.

    Raises:
        DataError: more than 0.1 % of the characters are unknown: a recognizer cannot output them.
    """
    characters = Counter(char for text in texts for char in tokenizer.normalise(text) if char != " ")
    unknown = Counter({char: count for char, count in characters.items() if UNK in tokenizer.encode(char)})
    share = unknown.total() / max(1, characters.total())
    if share > MAX_UNKNOWN:
        raise DataError(
            f"{where}: {100 * share:.3g} % of the characters are unknown to the tokenizer: {list_characters(unknown)}; "
            "make a tokenizer from text of this language and alphabet (`avhubert prepare` does)"
        )
    return unknown


def list_characters(counts: Counter[str]) -> str:
    """List the most frequent characters with their code points and counts, for a message."""
    listed = [f"'{char}' (U+{ord(char):04X}, {count} times)" for char, count in counts.most_common(MAX_LISTED)]
    return ", ".join(listed) + (f" and {len(counts) - MAX_LISTED} more" if len(counts) > MAX_LISTED else "")


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """Train a unigram tokenizer that covers every character of the texts; equal texts give equal bytes.

    Args:
        texts: transcripts; they are normalised first.
        vocab_size: maximum number of ids. A small text supports fewer: see the attribute `vocab_size` of the result.

    Raises:
        DataError: all texts are empty, or they have more different characters than `vocab_size` allows.
    """
    sentences = [sentence for sentence in map(normalise_text, texts) if sentence]
    if not sentences:
        raise DataError("there is no text to make a tokenizer from; every transcript is empty")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,  # a small text supports fewer pieces
            character_coverage=1.0,
            normalization_rule_name="identity",  # the text is normalised; SentencePiece's own rules drop some joiners
            max_sentence_length=max(4192, *(len(sentence.encode()) for sentence in sentences)),  # skip none
            bos_id=BOS, pad_id=PAD, eos_id=EOS, unk_id=UNK,
            num_threads=1,  # with more threads the order of the sums, and so the result, varies
            minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        characters = len(set("".join(sentences)))
        raise DataError(
            f"no tokenizer of {vocab_size} symbols can be made from {len(sentences)} transcripts with {characters} "
            "different characters; set a larger number of symbols"
        ) from error
    return Tokenizer(model.getvalue())
