"""Sentences to say: six-slot commands with the word classes of the GRID corpus (Cooke et al. 2006), 51 words."""

from __future__ import annotations

import numpy as np

from avhubert.errors import ConfigError, one_of

# W is left out, as in GRID: its name alone has more than one syllable
GRID: tuple[tuple[str, ...], ...] = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    tuple("abcdefghijklmnopqrstuvxyz"),
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon"),
)
KINDS = ("grid",)


def sentence(rng: np.random.Generator, kind: str = "grid") -> list[str]:
    """Draw one sentence, its words in lower case. ConfigError for an unknown `kind` of text."""
    if kind not in KINDS:
        raise ConfigError(one_of("text", kind, KINDS))
    return [words[rng.integers(len(words))] for words in GRID]


def spoken(word: str) -> str:
    """How to write `word` so that the synthesiser says it: letters by their names (a capital, and A as in "eight")."""
    if len(word) > 1:
        return word
    return "eh" if word == "a" else word.upper()
