"""Training of n-gram language models on transcripts, and ARPA files.

Interpolated Kneser-Ney smoothing (Kneser & Ney, 1995; Chen & Goodman, 1998).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avhubert.config.command_defaults import NGRAM_ORDER
from avhubert.constants import SPECIAL_SYMBOLS
from avhubert.data.manifest import read_manifest
from avhubert.data.text import normalise_text
from avhubert.data.tokenizer import Tokenizer
from avhubert.data.transcripts import read_transcripts
from avhubert.errors import DataError
from avhubert.files import atomic_path, output_directory

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
FALLBACK_DISCOUNT = 0.5  # where no n-gram of an order occurs exactly once, or none exactly twice
ARPA_ZERO = -99  # log10 of probability 0 in ARPA files

Gram = tuple[str, ...]


@dataclass
class Entry:
    """An n-gram's probability after its context, and the weight of the lower order after the n-gram as a context."""

    probability: float
    backoff: float = 1.0


Table = dict[Gram, Entry]


@dataclass(frozen=True)
class TrainedNGram:
    """A trained language model: its ARPA file, the size of the training text, and the n-grams of each order."""

    path: Path
    texts: int
    tokens: int
    ngrams: tuple[int, ...]

    def values(self) -> dict[str, object]:
        """Names and values, for printing."""
        sizes = {f"{order}-grams": count for order, count in enumerate(self.ngrams, 1)}
        return {"language model": str(self.path), "texts": self.texts, "tokens": self.tokens, **sizes}


def train_ngram(data: str | Path, out: str | Path, order: int = NGRAM_ORDER, split: str = "train") -> TrainedNGram:
    """Train an n-gram model on a data directory's transcripts, over its tokenizer's symbols.

    Args:
        data: the data directory.
        out: ARPA file to write.
        order: longest n-gram.
        split: whose transcripts are used.

    Raises:
        DataError: the split, its transcripts or the tokenizer is missing; the transcripts are empty.
        ConfigError: `out` cannot be written.
    """
    data = Path(data)
    tokenizer = Tokenizer(data / "tokenizer.model")
    clips = read_manifest(data / f"{split}.tsv")
    texts = [normalise_text(text) for text in read_transcripts(data / f"{split}.wrd", clips)]
    sentences = [[tokenizer.symbols[token] for token in tokenizer.encode(text)] for text in texts if text]
    if not sentences:
        raise DataError(f"{data / f'{split}.wrd'} holds no text; a language model needs transcripts to learn from")
    tables = estimate(sentences, tokenizer.symbols[len(SPECIAL_SYMBOLS) :], order)
    write_arpa(tables, out)
    return TrainedNGram(Path(out), len(sentences), sum(map(len, sentences)), tuple(map(len, tables)))


# --------------------------------------------------------------------------- estimation
def estimate(texts: Iterable[Sequence[str]], vocabulary: Sequence[str], order: int) -> list[Table]:
    """The interpolated Kneser-Ney model of `texts` over `vocabulary`, `</s>` and `<unk>`.

    Returns:
        A table for each order 1 … `order`, fewer if no text is long enough.
    """
    raw = _count_ngrams(texts, order)
    words = dict.fromkeys([*vocabulary, END, UNKNOWN])
    tables: list[Table] = []
    for n, occurrences in enumerate(raw, 1):
        counts = occurrences if n == len(raw) else _continuation_counts(occurrences, raw[n])
        context_counts, backoffs = _context_statistics(counts)
        lower: dict[Gram, float]
        if n == 1:
            lower = {(word,): 1 / len(words) for word in words}
        else:
            lower = {gram: tables[-1][gram[1:]].probability for gram in counts}
            for context, weight in backoffs.items():
                tables[-1][context].backoff = weight
        discount = _discount(counts)
        table = {
            gram: Entry(max(counts[gram] - discount, 0) / context_counts[gram[:-1]] + backoffs[gram[:-1]] * probability)
            for gram, probability in lower.items()
        }
        if n == 1:
            table[(START,)] = Entry(0.0)
        tables.append(table)
    return tables


def _count_ngrams(texts: Iterable[Sequence[str]], order: int) -> list[Counter[Gram]]:
    """Occurrences of the n-grams of each order, up to the longest that occurs; `<s>` alone is not counted."""
    counts: list[Counter[Gram]] = [Counter() for _ in range(order)]
    for text in texts:
        padded = (START, *text, END)
        for n in range(1, order + 1):
            counts[n - 1].update(padded[i : i + n] for i in range(len(padded) - n + 1))
    del counts[0][(START,)]
    return [counter for counter in counts if counter]


def _continuation_counts(counts: Counter[Gram], longer: Counter[Gram]) -> Counter[Gram]:
    """In how many contexts each n-gram occurs; at the start of a text, where there is one context, how often.

    Args:
        counts: occurrences of the n-grams.
        longer: occurrences of the n-grams that are one symbol longer.
    """
    contexts = Counter(gram[1:] for gram in longer)
    return contexts + Counter({gram: count for gram, count in counts.items() if gram[0] == START})


def _discount(counts: Mapping[Gram, int]) -> float:
    """The absolute discount n1 / (n1 + 2 n2) of an order, nk being the number of n-grams counted k times."""
    once, twice = (sum(count == times for count in counts.values()) for times in (1, 2))
    return once / (once + 2 * twice) if once and twice else FALLBACK_DISCOUNT


def _context_statistics(counts: Mapping[Gram, int]) -> tuple[dict[Gram, int], dict[Gram, float]]:
    """For each context: the sum of its n-grams' counts, and the probability mass that discounting leaves."""
    totals: dict[Gram, int] = defaultdict(int)
    followers: Counter[Gram] = Counter()
    for gram, count in counts.items():
        totals[gram[:-1]] += count
        followers[gram[:-1]] += 1
    discount = _discount(counts)
    return totals, {context: discount * followers[context] / totals[context] for context in totals}


# --------------------------------------------------------------------------- ARPA
def write_arpa(tables: Sequence[Table], path: str | Path) -> None:
    """Write the tables of `estimate` as an ARPA file.

    Raises:
        ConfigError: the file cannot be written.
    """
    output_directory(Path(path).parent)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write("\\data\\\n" + "".join(f"ngram {n}={len(table)}\n" for n, table in enumerate(tables, 1)))
        for n, table in enumerate(tables, 1):
            file.write(f"\n\\{n}-grams:\n")
            for gram, entry in sorted(table.items(), key=lambda item: item[0]):
                backoff = f"\t{math.log10(entry.backoff):.7f}" if n < len(tables) else ""
                log_p = math.log10(entry.probability) if entry.probability else ARPA_ZERO
                file.write(f"{log_p:.7f}\t{' '.join(gram)}{backoff}\n")
        file.write("\n\\end\\\n")
