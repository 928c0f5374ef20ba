"""Language models: n-grams (KenLM) and any causal language model of Hugging Face transformers.

Fused token by token into the search (shallow fusion), where the model's vocabulary is the recognizer's, or scoring
whole texts (rescoring), with any vocabulary. Shapes: B utterances, K beams, L tokens, V symbols. Logarithms are
natural.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avhubert.constants import BOS, EOS, LOG_ZERO, PAD, SPECIAL_SYMBOLS, UNK
from avhubert.data.manifest import read_manifest
from avhubert.data.text import normalise_text
from avhubert.data.tokenizer import Tokenizer
from avhubert.data.transcripts import read_transcripts
from avhubert.errors import ConfigError, DataError
from avhubert.files import atomic_path, output_directory

LN10 = math.log(10)
MAX_CONTEXTS = 20_000  # of an n-gram whose rows are kept; V floats each


# --------------------------------------------------------------------------- what a search asks
class Fusion(ABC):
    """A language model's side of one search: B utterances of K beams each, as they go on."""

    @abstractmethod
    def logs(self, tokens: Tensor) -> Tensor:
        """log p of each next symbol, float [B, K, V]; tokens int [B, K, L] begin with `</s>`. Asked once a step."""

    def reorder(self, beams: Tensor) -> None:
        """Beams int [B·K]: row i goes on from row beams[i]."""
        return

    def keep(self, utterances: Tensor) -> None:
        """Drop all utterances but these, int [B']."""
        return


class LanguageModel(ABC):
    """A language model beside a recognizer's tokenizer; `missing` are the symbols that it does not know."""

    def __init__(self, source: str, tokenizer: Tokenizer, known: Any) -> None:
        self.source = source
        self.tokenizer = tokenizer
        self.missing = [symbol for symbol in tokenizer.symbols[len(SPECIAL_SYMBOLS) :] if symbol not in known]

    def fusion(self, utterances: int, beams: int, device: torch.device) -> Fusion:
        """For one search. ConfigError if the vocabulary is not the recognizer's."""
        if self.missing:
            of = self.tokenizer.vocab_size - len(SPECIAL_SYMBOLS)
            raise ConfigError(
                f"language model {self.source} has another vocabulary than the recognizer (it lacks "
                f"{len(self.missing)} of {of} symbols, such as '{self.missing[0]}') and cannot be fused token by "
                "token; set decode.lm_use=rescoring"
            )
        return self._fusion(utterances, beams, device)

    @abstractmethod
    def _fusion(self, utterances: int, beams: int, device: torch.device) -> Fusion: ...

    @abstractmethod
    def score(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """log p of each text, end included, given as the recognizer's tokens (with or without `</s>`)."""

    def pieces(self, text: Sequence[int]) -> list[int]:
        """The tokens that a language model is shown."""
        return [token for token in text if token not in (BOS, PAD, EOS)]


@functools.lru_cache(maxsize=2)
def load_language_model(source: str, tokenizer: Tokenizer | None) -> LanguageModel:
    """The n-gram in file `source`, or the Hugging Face model in a folder or of a name.

    Raises ConfigError: the recognizer has no tokenizer, `source` is none of these or damaged, or the extra is missing.
    """
    if tokenizer is None:
        raise ConfigError(f"language model {source} needs the recognizer's tokenizer, and this recognizer has none")
    return NGram(source, tokenizer) if Path(source).is_file() else Causal(source, tokenizer)


def _missing_extra(error: ImportError) -> ConfigError:
    return ConfigError(f"language models need {error.name}: pip install 'avhubert[lm]'")


# --------------------------------------------------------------------------- n-grams
class NGram(LanguageModel):
    """An ARPA file or KenLM binary over the recognizer's pieces or, where these are missing in it, over words."""

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        try:
            import kenlm
        except ImportError as error:
            raise _missing_extra(error) from error
        self.kenlm = kenlm
        config = kenlm.Config()
        config.show_progress = False
        config.arpa_complain = kenlm.ARPALoadComplain.NONE
        try:
            self.model = kenlm.Model(str(source), config)
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f"{source} is neither an ARPA file nor a KenLM binary; make one with `avhubert lm` or KenLM's lmplz"
            ) from error
        super().__init__(str(source), tokenizer, self.model)
        self.words = [None if token in (BOS, PAD) else symbol for token, symbol in enumerate(tokenizer.symbols)]
        self.rows: dict[tuple[int, ...], Tensor] = {}  # context → log p of every symbol

    def score(self, texts: Sequence[Sequence[int]]) -> list[float]:
        if self.missing:
            shown = [self.tokenizer.decode(text) for text in texts]
        else:
            shown = [" ".join(self.tokenizer.symbols[token] for token in self.pieces(text)) for text in texts]
        return [LN10 * self.model.score(text) for text in shown]

    def row(self, text: Sequence[int]) -> Tensor:
        """log p of every symbol after a text (without `</s>`), float [V]; `<s>` and `<pad>` never come."""
        context = tuple(text[max(0, len(text) - self.model.order + 1) :])
        begins = len(text) < self.model.order - 1
        key = (-1, *context) if begins else context
        if key not in self.rows:
            if len(self.rows) >= MAX_CONTEXTS:
                self.rows.clear()
            state, after = self.kenlm.State(), self.kenlm.State()
            if begins:
                self.model.BeginSentenceWrite(state)
            else:
                self.model.NullContextWrite(state)
            for token in context:
                self.model.BaseScore(state, self.tokenizer.symbols[token], after)
                state, after = after, state
            self.rows[key] = LN10 * torch.tensor(
                [LOG_ZERO if word is None else self.model.BaseScore(state, word, after) for word in self.words]
            )
        return self.rows[key]

    def _fusion(self, utterances: int, beams: int, device: torch.device) -> Fusion:
        return _NGramFusion(self)


class _NGramFusion(Fusion):
    def __init__(self, model: NGram) -> None:
        self.model = model

    def logs(self, tokens: Tensor) -> Tensor:
        rows = [self.model.row(text) for text in tokens[..., 1:].flatten(0, 1).tolist()]
        return torch.stack(rows).view(*tokens.shape[:2], -1).to(tokens.device)


# --------------------------------------------------------------------------- Hugging Face
class Causal(LanguageModel):
    """A causal language model with its tokenizer: a folder that `save_pretrained` wrote, or a name on the hub."""

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        try:
            import transformers
        except ImportError as error:
            raise _missing_extra(error) from error
        try:
            self.model = transformers.AutoModelForCausalLM.from_pretrained(source).eval()
            self.own: Any = transformers.AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"language model {source} is neither an n-gram file nor a causal language model with its tokenizer "
                f"that transformers can load ({reason[:200]}); check the path or name"
            ) from error
        self.start: int | None = self.own.bos_token_id if self.own.bos_token_id is not None else self.own.eos_token_id
        self.end: int | None = self.own.eos_token_id
        if self.start is None or self.end is None:
            raise ConfigError(
                f"the tokenizer of language model {source} names no end of a text (eos_token), so no text can be "
                "scored with it; set it there"
            )
        vocabulary = self.own.get_vocab()
        super().__init__(source, tokenizer, vocabulary)
        self.longest = int(getattr(self.model.config, "max_position_embeddings", 0) or 1 << 20)
        # our ids → its ids; -1: it has no such symbol
        special = {EOS: self.end, UNK: -1 if self.own.unk_token_id is None else self.own.unk_token_id}
        ids = [special.get(i, vocabulary.get(symbol, -1)) for i, symbol in enumerate(tokenizer.symbols)]
        ids[BOS] = ids[PAD] = -1
        self.ids = torch.tensor(ids)

    @torch.inference_mode()
    def score(self, texts: Sequence[Sequence[int]]) -> list[float]:
        return [self._score(self._shown(text)) for text in texts]

    def _shown(self, text: Sequence[int]) -> list[int]:
        assert self.start is not None
        assert self.end is not None
        if self.missing:
            body = self.own.encode(self.tokenizer.decode(text), add_special_tokens=False)
        else:
            body = [max(int(self.ids[token]), 0) for token in self.pieces(text)]
        return [self.start, *body, self.end]

    def _score(self, ids: list[int]) -> float:
        total = 0.0
        half = max(self.longest // 2, 1)
        done = 1  # tokens scored so far; the first is given
        while done < len(ids):  # a text longer than the model's positions: half of them are context
            first = max(0, done - half) if len(ids) - 1 > self.longest else 0
            piece = torch.tensor([ids[first : first + self.longest + 1]], device=self.model.device)
            logs = self.model(piece[:, :-1]).logits[0].float().log_softmax(-1)
            each = logs.gather(1, piece[0, 1:, None])[done - first - 1 :]
            total += float(each.sum())
            done += len(each)
        return total

    def _fusion(self, utterances: int, beams: int, device: torch.device) -> Fusion:
        self.model.to(device)
        return _CausalFusion(self, beams, device)


class _CausalFusion(Fusion):
    """Keys and values of the tokens so far are kept; where the model's positions run out, half of them go."""

    def __init__(self, model: Causal, beams: int, device: torch.device) -> None:
        self.model = model
        self.beams = beams
        self.ids = model.ids.to(device)
        self.cache: Any = None
        self.held = 0

    def logs(self, tokens: Tensor) -> Tensor:
        b, k, length = tokens.shape
        ids = self.ids[tokens].clamp(min=0)
        assert self.model.start is not None
        ids[..., 0] = self.model.start
        newest = ids[..., -1:]
        if self.held >= self.model.longest:
            self.cache, self.held = None, 0
            newest = ids[..., max(0, length - max(self.model.longest // 2, 1)) :]
        out = self.model.model(newest.flatten(0, 1), past_key_values=self.cache, use_cache=True)
        self.cache = out.past_key_values
        self.held += newest.shape[2]
        logs = out.logits[:, -1].float().log_softmax(-1)[:, self.ids.clamp(min=0)]
        return logs.masked_fill(self.ids < 0, LOG_ZERO).view(b, k, -1)

    def reorder(self, beams: Tensor) -> None:
        self.cache.batch_select_indices(beams)

    def keep(self, utterances: Tensor) -> None:
        rows = utterances[:, None] * self.beams + torch.arange(self.beams, device=utterances.device)
        self.cache.batch_select_indices(rows.flatten())


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


def train_ngram(data: str | Path, out: str | Path, order: int = 4, split: str = "train") -> dict[str, Any]:
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
