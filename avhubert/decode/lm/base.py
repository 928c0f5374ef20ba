"""Base classes of language models: shallow fusion in a beam search, and scores of whole texts.

Shapes: B utterances, K beams, L tokens, V symbols. Logarithms are natural.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence

import torch
from torch import Tensor

from avhubert.constants import BOS, EOS, PAD, SPECIAL_SYMBOLS
from avhubert.data.tokenizer import Tokenizer
from avhubert.errors import ConfigError


class Fusion(ABC):
    """State of a language model during one beam search of B utterances with K beams each (shallow fusion)."""

    @abstractmethod
    def log_probabilities(self, tokens: Tensor) -> Tensor:
        """Log-probability of each next symbol, float [B, K, V]; called once per step.

        Args:
            tokens: int [B, K, L], the texts so far, beginning with the decoder's start symbol.
        """

    def reorder(self, beams: Tensor) -> None:
        """Row i continues row beams[i]; beams int [B·K]."""
        return

    def keep(self, utterances: Tensor) -> None:
        """Drop all utterances but these, int [B']."""
        return


class LanguageModel(ABC):
    """A language model that scores texts of a recognizer.

    Attributes:
        source: where it was loaded from.
        tokenizer: of the recognizer.
        missing: symbols of the tokenizer that the model's vocabulary lacks; without any, the model can be fused.
    """

    def __init__(self, source: str, tokenizer: Tokenizer, vocabulary: Container[str]) -> None:
        self.source = source
        self.tokenizer = tokenizer
        self.missing = [symbol for symbol in tokenizer.symbols[len(SPECIAL_SYMBOLS) :] if symbol not in vocabulary]

    def to(self, device: torch.device) -> None:
        """Move the model to the device on which it shall compute, if it has a choice."""
        return

    def fusion(self, utterances: int, beams: int, device: torch.device) -> Fusion:
        """The model's state for a search of `utterances` with `beams` each, on `device`.

        Raises:
            ConfigError: the vocabulary differs from the recognizer's.
        """
        if self.missing:
            total = self.tokenizer.vocab_size - len(SPECIAL_SYMBOLS)
            raise ConfigError(
                f"language model {self.source} has another vocabulary than the recognizer (it lacks "
                f"{len(self.missing)} of {total} symbols, such as '{self.missing[0]}') and cannot be fused token by "
                "token; set decode.lm_use=rescoring"
            )
        return self._fusion(utterances, beams, device)

    @abstractmethod
    def _fusion(self, utterances: int, beams: int, device: torch.device) -> Fusion: ...

    @abstractmethod
    def score(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """Log-probability of each text, its end included.

        Args:
            texts: tokens of the recognizer, with or without `</s>`.
        """

    def text_tokens(self, text: Sequence[int]) -> list[int]:
        """The tokens of a text without `<s>`, `<pad>` and `</s>`."""
        return [token for token in text if token not in (BOS, PAD, EOS)]


def missing_extra(error: ImportError) -> ConfigError:
    """The error for a library that is not installed."""
    return ConfigError(f"language models need {error.name}: pip install 'avhubert[lm]'")
