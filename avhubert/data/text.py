"""Text normalisation and the SentencePiece tokenizer, whose model file alone decides the token ids.

Ids: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, then the model's pieces in file order without its own specials.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from avhubert.errors import DataError

BOS, PAD, EOS, UNK = range(4)
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
SPACE = "▁"  # how a piece writes the space before a word


def normalise_text(text: str) -> str:
    """Lower case, single spaces, none at the ends."""
    return " ".join(text.lower().split())


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
        self.symbols: list[str] = [*SPECIALS, *(processor.IdToPiece(i) for i in own)]
        self._ours = [UNK] * len(processor)  # the model's ids → ours
        for position, identifier in enumerate(own):
            self._ours[identifier] = len(SPECIALS) + position

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
