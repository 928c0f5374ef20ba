"""Loads a language model of any supported kind."""

from __future__ import annotations

import functools
from pathlib import Path

from avhubert.data.tokenizer import Tokenizer
from avhubert.decode.lm.base import LanguageModel
from avhubert.decode.lm.causal import Causal
from avhubert.decode.lm.ngram import NGram
from avhubert.errors import ConfigError


@functools.lru_cache(maxsize=2)
def load_language_model(source: str, tokenizer: Tokenizer | None) -> LanguageModel:
    """The n-gram in file `source`, or the Hugging Face model in a folder or of a name.

    Raises ConfigError: the recognizer has no tokenizer, `source` is none of these or damaged, or the extra is missing.
    """
    if tokenizer is None:
        raise ConfigError(f"language model {source} needs the recognizer's tokenizer, and this recognizer has none")
    return NGram(source, tokenizer) if Path(source).is_file() else Causal(source, tokenizer)
