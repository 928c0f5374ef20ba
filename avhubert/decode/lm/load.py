"""Loading of language models."""

from __future__ import annotations

import functools
from pathlib import Path

from avhubert.data.tokenizer import Tokenizer
from avhubert.decode.lm.base import LanguageModel
from avhubert.decode.lm.causal import CausalModel
from avhubert.decode.lm.ngram import NGramModel
from avhubert.errors import ConfigError


@functools.lru_cache(maxsize=2)
def load_language_model(source: str, tokenizer: Tokenizer | None) -> LanguageModel:
    """Load an n-gram file, or a causal language model from a folder or by its name on the Hugging Face Hub.

    Args:
        source: the file, folder or name.
        tokenizer: of the recognizer.

    Raises:
        ConfigError: the recognizer has no tokenizer; `source` is none of these or damaged; a library is missing.
    """
    if tokenizer is None:
        raise ConfigError(f"language model {source} needs the recognizer's tokenizer, and this recognizer has none")
    return NGramModel(source, tokenizer) if Path(source).is_file() else CausalModel(source, tokenizer)
