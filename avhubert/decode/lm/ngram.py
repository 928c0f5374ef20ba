"""N-gram language models, read with KenLM."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from avhubert.constants import BOS, LOG_ZERO, PAD
from avhubert.data.tokenizer import Tokenizer
from avhubert.decode.lm.base import Fusion, LanguageModel, missing_extra
from avhubert.errors import ConfigError

LN10 = math.log(10)


MAX_CONTEXTS = 20_000  # of an n-gram whose rows are kept; V floats each


# --------------------------------------------------------------------------- n-grams
class NGram(LanguageModel):
    """An ARPA file or KenLM binary over the recognizer's pieces or, where these are missing in it, over words."""

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        try:
            import kenlm
        except ImportError as error:
            raise missing_extra(error) from error
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
