"""Sentences to say: six-slot commands with the word classes of the GRID corpus (Cooke et al. 2006), 51 words; sentences
of a small grammar over more than 1000 words; commands in Russian.
"""

from __future__ import annotations

import numpy as np

from avhubert.corpora.synthetic import words as lists
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
KINDS = ("grid", "sentences")
LANGUAGES = {"en": KINDS, "ru": ("grid",)}  # and the kinds of text there are in each


def check(kind: str, language: str = "en") -> None:
    """ConfigError for an unknown `kind` of text or language, or one that there is not in the other."""
    if kind not in KINDS:
        raise ConfigError(one_of("text", kind, KINDS))
    if language not in LANGUAGES:
        raise ConfigError(one_of("language", language, LANGUAGES))
    if kind not in LANGUAGES[language]:
        raise ConfigError(f"there is no text '{kind}' in '{language}', only {', '.join(LANGUAGES[language])}")


def sentence(rng: np.random.Generator, kind: str = "grid", language: str = "en") -> list[str]:
    """Draw one sentence, its words in lower case. ConfigError as `check` says."""
    check(kind, language)
    if kind == "sentences":
        return _Speaker(rng).sentence()
    slots = {"en": GRID, "ru": lists.RUSSIAN}[language]
    return [words[rng.integers(len(words))] for words in slots]


def spoken(word: str) -> str:
    """How to write `word` so that the synthesiser says it: letters by their names (a capital, and A as in "eight")."""
    if len(word) > 1:
        return word
    return "eh" if word == "a" else word.upper()


def vocabulary() -> set[str]:
    """Every word that a sentence of kind 'sentences' may have."""
    plain = (
        *(lists.NOUNS, lists.VERBS, lists.ADJECTIVES, lists.NAMES, lists.ADVERBS, lists.PREPOSITIONS, lists.NUMBERS),
        *(lists.CONJUNCTIONS, lists.MODALS, lists.DETERMINERS, lists.MANY, lists.PRONOUNS),
    )
    return {*(word for words in plain for word in words), *map(plural, lists.NOUNS), *map(past, lists.VERBS)}


def plural(noun: str) -> str:
    """Of a noun in the list."""
    return f"{noun}s"


def past(verb: str) -> str:
    """Of a verb in the list."""
    return lists.IRREGULAR.get(verb) or (f"{verb}d" if verb.endswith("e") else f"{verb}ed")


class _Speaker:
    """Draws phrases of the grammar: (adverb) subject predicate object (place) (conjunction and another clause)."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def _one(self, words: tuple[str, ...]) -> str:
        return words[self._rng.integers(len(words))]

    def _maybe(self, chance: float) -> bool:
        return bool(self._rng.random() < chance)

    def sentence(self) -> list[str]:
        found = [self._one(lists.ADVERBS)] if self._maybe(0.15) else []
        found += self._clause()
        if self._maybe(0.15):
            found += [self._one(lists.CONJUNCTIONS), *self._clause()]
        return found

    def _clause(self) -> list[str]:
        found = [self._one(lists.PRONOUNS)] if self._maybe(0.15) else self._things()
        if self._maybe(0.4):
            found += [self._one(lists.MODALS), self._one(lists.VERBS)]
        else:
            found.append(past(self._one(lists.VERBS)))
        found += self._things()
        if self._maybe(0.3):
            found += [self._one(lists.PREPOSITIONS), *self._things()]
        return found

    def _things(self) -> list[str]:
        draw = self._rng.random()
        if draw < 0.15:
            return [self._one(lists.NAMES)]
        adjective = [self._one(lists.ADJECTIVES)] if self._maybe(0.4) else []
        if draw < 0.4:
            first = self._one(lists.NUMBERS if self._maybe(0.4) else lists.MANY)
            return [first, *adjective, plural(self._one(lists.NOUNS))]
        return [self._one(lists.DETERMINERS), *adjective, self._one(lists.NOUNS)]
