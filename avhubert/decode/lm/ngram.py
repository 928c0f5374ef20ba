"""N-gram language models, read with KenLM."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from avhubert.constants import BOS, LOG_ZERO, PAD
from avhubert.data.tokenizer import Tokenizer
from avhubert.decode.lm.base import Fusion, LanguageModel, missing_extra
from avhubert.devices import to_device, to_host
from avhubert.encoding import placeholder_message
from avhubert.errors import ConfigError

LN10 = math.log(10)
CACHED_CONTEXTS = 20_000  # contexts whose distributions are cached; each takes V floats


class NGramModel(LanguageModel):
    """An ARPA file or KenLM binary over the recognizer's symbols or, if it lacks any of them, over words."""

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
        except (OSError, RuntimeError, ValueError) as error:  # ValueError: KenLM quotes bytes that are no text
            raise ConfigError(
                placeholder_message(source)
                or f"{source} is neither an ARPA file nor a KenLM binary; make one with `avhubert lm` or KenLM's lmplz"
            ) from error
        super().__init__(str(source), tokenizer, self.model)
        self._words = [None if token in (BOS, PAD) else symbol for token, symbol in enumerate(tokenizer.symbols)]
        self._cache: dict[tuple[int, ...], Tensor] = {}

    def score(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """Log-probability of each text, its end included."""
        if self.missing:
            sentences = [self.tokenizer.decode(text) for text in texts]
        else:
            sentences = [" ".join(self.tokenizer.symbols[token] for token in self.text_tokens(text)) for text in texts]
        return [LN10 * self.model.score(sentence) for sentence in sentences]

    def next_log_probabilities(self, text: Sequence[int]) -> Tensor:
        """Log-probability of every symbol after a text (without `</s>`), float [V] on the CPU.

        `<s>` and `<pad>` have probability 0.
        """
        context = tuple(text[max(0, len(text) - self.model.order + 1) :])
        at_start = len(text) < self.model.order - 1
        key = (-1, *context) if at_start else context
        if key not in self._cache:
            if len(self._cache) >= CACHED_CONTEXTS:
                self._cache.clear()
            state, after = self.kenlm.State(), self.kenlm.State()
            if at_start:
                self.model.BeginSentenceWrite(state)
            else:
                self.model.NullContextWrite(state)
            for token in context:
                self.model.BaseScore(state, self.tokenizer.symbols[token], after)
                state, after = after, state
            self._cache[key] = LN10 * torch.tensor(
                [LOG_ZERO if word is None else self.model.BaseScore(state, word, after) for word in self._words]
            )
        return self._cache[key]

    def _fusion(self, utterances: int, beams: int, device: torch.device) -> Fusion:
        return _NGramFusion(self)


class _NGramFusion(Fusion):
    """KenLM computes on the CPU: texts are read from the device, and log-probabilities are moved to it."""

    def __init__(self, model: NGramModel) -> None:
        self.model = model

    def log_probabilities(self, tokens: Tensor) -> Tensor:
        texts = to_host(tokens[..., 1:]).flatten(0, 1).tolist()
        rows = torch.stack([self.model.next_log_probabilities(text) for text in texts])
        return to_device(rows.view(*tokens.shape[:2], -1), tokens.device)
