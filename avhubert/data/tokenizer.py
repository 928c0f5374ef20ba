"""SentencePiece tokenizer and its special symbols."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from avhubert.constants import BOS, EOS, PAD, SPECIAL_SYMBOLS, UNK
from avhubert.data.text import normalise_text
from avhubert.errors import DataError

SPACE = "▁"  # how a piece writes the space before a word


MAX_UNKNOWN = 0.001  # of a text's characters that a tokenizer may not know


NAMED = 10  # unknown characters listed in a sentence


class Tokenizer:
    """Text to token ids and back.

    `model` is a serialized SentencePiece model or the path of one. DataError if it is not one.
    `symbols` are all symbols by id, `serialized` the model's bytes.
    """

    def __init__(self, model: bytes | str | Path) -> None:
        where = "the tokenizer" if isinstance(model, bytes) else f"tokenizer {model}"
        try:
            self.serialized = model if isinstance(model, bytes) else Path(model).read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {where}: {error.strerror}") from error
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(self.serialized)
        except RuntimeError as error:
            raise DataError(f"{where} is not a SentencePiece model; make it again or restore it") from error
        processor = self._processor
        own = [i for i in range(len(processor)) if not (processor.IsControl(i) or processor.IsUnknown(i))]
        self.symbols: list[str] = [*SPECIAL_SYMBOLS, *(processor.IdToPiece(i) for i in own)]
        self._ours = [UNK] * len(processor)  # the model's ids → ours
        for position, identifier in enumerate(own):
            self._ours[identifier] = len(SPECIAL_SYMBOLS) + position

    @property
    def vocab_size(self) -> int:
        """Number of ids, specials included."""
        return len(self.symbols)

    def encode(self, text: str) -> list[int]:
        """Ids of the normalised text, without `</s>`."""
        return [self._ours[identifier] for identifier in self._processor.EncodeAsIds(normalise_text(text))]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; `<s>`, `<pad>` and `</s>` are left out, `<unk>` stays visible."""
        pieces = [self.symbols[int(identifier)] for identifier in ids if int(identifier) not in (BOS, PAD, EOS)]
        return "".join(pieces).replace(SPACE, " ").strip()


def unknown_characters(texts: Iterable[str], tokenizer: Tokenizer, where: str) -> Counter[str]:
    """How often each character occurs that `tokenizer` does not know, most frequent first; spaces are not counted.

    DataError, which names them, when they are over 0.1 % of the characters: a recognizer could not write them.
    `where` names the texts in the sentence.
    """
    characters = Counter(char for text in texts for char in normalise_text(text) if char != " ")
    unknown = Counter({char: count for char, count in characters.items() if UNK in tokenizer.encode(char)})
    share = unknown.total() / max(1, characters.total())
    if share > MAX_UNKNOWN:
        raise DataError(
            f"{where}: {100 * share:.3g} % of the characters are unknown to the tokenizer: {list_characters(unknown)}; "
            "make a tokenizer from text of this language and alphabet (`avhubert prepare` does)"
        )
    return unknown


def list_characters(counts: Counter[str]) -> str:
    """The most frequent characters with their code points and how often they occur."""
    shown = [f"'{char}' (U+{ord(char):04X}, {count} times)" for char, count in counts.most_common(NAMED)]
    return ", ".join(shown) + (f" and {len(counts) - NAMED} more" if len(counts) > NAMED else "")


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """A unigram tokenizer of `texts`, every character covered; the same texts give the same bytes anywhere.

    The vocabulary is the smaller of `vocab_size` and what the texts support: compare `.vocab_size`.

    Raises:
        DataError: no text at all, or more different characters than `vocab_size` has room for.
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
            max_sentence_length=max(4192, *(len(sentence.encode()) for sentence in sentences)),  # leave none out
            bos_id=BOS, pad_id=PAD, eos_id=EOS, unk_id=UNK,
            num_threads=1,  # more threads add up counts in another order
            minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        characters = len(set("".join(sentences)))
        raise DataError(
            f"no tokenizer of {vocab_size} symbols can be made from {len(sentences)} transcripts with {characters} "
            "different characters; ask for more symbols"
        ) from error
    return Tokenizer(model.getvalue())
