"""Trains n-gram language models on transcripts (interpolated Kneser-Ney) and writes ARPA files."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from avhubert.config.defaults import NGRAM_ORDER
from avhubert.constants import SPECIAL_SYMBOLS
from avhubert.data.manifest import read_manifest
from avhubert.data.text import normalise_text
from avhubert.data.tokenizer import Tokenizer
from avhubert.data.transcripts import read_transcripts
from avhubert.errors import DataError
from avhubert.files import atomic_path, output_directory


# --------------------------------------------------------------------------- making an n-gram
def estimate(texts: Iterable[Sequence[str]], vocabulary: Sequence[str], order: int) -> list[dict[tuple, list[float]]]:
    """Interpolated Kneser-Ney (Kneser & Ney, 1995; Chen & Goodman, 1998) over `vocabulary` with `</s>` and `<unk>`.

    Per order 1 … `order` (less where no text is so long): n-gram → [p, weight of what backs off to it]. One discount
    per order, n1 / (n1 + 2 n2) of its counts.
    """
    raw: list[Counter] = [Counter() for _ in range(order)]
    for text in texts:
        padded = ("<s>", *text, "</s>")
        for n in range(1, order + 1):
            raw[n - 1].update(padded[i : i + n] for i in range(len(padded) - n + 1))
    del raw[0][("<s>",)]
    raw = [counts for counts in raw if counts]
    known = [*dict.fromkeys([*vocabulary, "</s>", "<unk>"])]
    tables: list[dict[tuple, list[float]]] = []
    for n, counts in enumerate(raw, 1):
        if n < len(raw):  # in how many contexts an n-gram is seen; at a text's start, how often
            counts = Counter(gram[1:] for gram in raw[n]) + Counter({g: c for g, c in counts.items() if g[0] == "<s>"})
        once, twice = (sum(count == times for count in counts.values()) for times in (1, 2))
        discount = once / (once + 2 * twice) if once and twice else 0.5
        total: dict[tuple, int] = defaultdict(int)
        follow: Counter = Counter()
        for gram, count in counts.items():
            total[gram[:-1]] += count
            follow[gram[:-1]] += 1
        spare = {context: discount * follow[context] / total[context] for context in total}
        if n == 1:
            below = {(word,): 1 / len(known) for word in known}
        else:
            below = {gram: tables[-1][gram[1:]][0] for gram in counts}
            for context, share in spare.items():
                tables[-1][context][1] = share
        table = {
            gram: [max(counts[gram] - discount, 0) / total[gram[:-1]] + spare[gram[:-1]] * p, 1.0]
            for gram, p in below.items()
        }
        if n == 1:
            table[("<s>",)] = [0.0, 1.0]
        tables.append(table)
    return tables


def train_ngram(data: str | Path, out: str | Path, order: int = NGRAM_ORDER, split: str = "train") -> dict[str, Any]:
    """Write the n-gram of a data directory's transcripts, in its tokenizer's pieces, as ARPA file `out`.

    Returns what to say of it. Raises DataError: no such split, transcripts or tokenizer; no text.
    """
    data = Path(data)
    tokenizer = Tokenizer(data / "tokenizer.model")
    clips = read_manifest(data / f"{split}.tsv")
    texts = [normalise_text(text) for text in read_transcripts(data / f"{split}.wrd", clips)]
    spoken = [[tokenizer.symbols[token] for token in tokenizer.encode(text)] for text in texts if text]
    if not spoken:
        raise DataError(f"{data / f'{split}.wrd'} holds no text; a language model needs transcripts to learn from")
    tables = estimate(spoken, tokenizer.symbols[len(SPECIAL_SYMBOLS) :], order)
    write_arpa(tables, out)
    sizes = {f"{n}-grams": len(table) for n, table in enumerate(tables, 1)}
    return {"language model": str(out), "texts": len(spoken), "tokens": sum(map(len, spoken)), **sizes}


def write_arpa(tables: Sequence[dict[tuple, list[float]]], path: str | Path) -> None:
    """Write what `estimate` gave in the ARPA format. ConfigError if the place cannot be written."""
    output_directory(Path(path).parent)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("\\data\\\n" + "".join(f"ngram {n}={len(table)}\n" for n, table in enumerate(tables, 1)))
        for n, table in enumerate(tables, 1):
            file.write(f"\n\\{n}-grams:\n")
            for gram, (p, weight) in sorted(table.items()):
                backoff = f"\t{math.log10(weight):.7f}" if n < len(tables) else ""
                file.write(f"{math.log10(p) if p else -99:.7f}\t{' '.join(gram)}{backoff}\n")
        file.write("\n\\end\\\n")
