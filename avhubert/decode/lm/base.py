"""The interface between a language model and the beam search."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from avhubert.constants import BOS, EOS, PAD, SPECIAL_SYMBOLS
from avhubert.data.tokenizer import Tokenizer
from avhubert.errors import ConfigError


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


def missing_extra(error: ImportError) -> ConfigError:
    return ConfigError(f"language models need {error.name}: pip install 'avhubert[lm]'")
