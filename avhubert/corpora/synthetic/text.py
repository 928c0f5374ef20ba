"""Sentences to say: commands of six words, sentences of a small grammar, commands in Russian.

The commands have the word classes of the GRID corpus (Cooke et al. 2006), 51 words; the grammar has more than 1000
words.
"""

from __future__ import annotations

import numpy as np

from avhubert.corpora.synthetic import words as lists
from avhubert.errors import ConfigError, one_of

# without W, as in GRID: only its name has more than one syllable
GRID: tuple[tuple[str, ...], ...] = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    tuple("abcdefghijklmnopqrstuvxyz"),
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon"),
)
KINDS = ("grid", "sentences")
LANGUAGES = {"en": KINDS, "ru": ("grid",)}  # kinds of text by language


def check(kind: str, language: str = "en") -> None:
    """ConfigError if the kind of text or the language is unknown, or the language does not have this kind."""
    if kind not in KINDS:
        raise ConfigError(one_of("text", kind, KINDS))
    if language not in LANGUAGES:
        raise ConfigError(one_of("language", language, LANGUAGES))
    if kind not in LANGUAGES[language]:
        raise ConfigError(f"there is no text '{kind}' in '{language}', only {', '.join(LANGUAGES[language])}")


def sentence(rng: np.random.Generator, kind: str = "grid", language: str = "en") -> list[str]:
    """Draw one sentence, its words in lower case. ConfigError as in `check`."""
    check(kind, language)
    if kind == "sentences":
        return _Grammar(rng).sentence()
    slots = {"en": GRID, "ru": lists.RUSSIAN}[language]
    return [words[rng.integers(len(words))] for words in slots]


def spoken(word: str) -> str:
    """The spelling of `word` for the synthesiser: letters by their names (a capital, and A as in "eight")."""
    if len(word) > 1:
        return word
    return "eh" if word == "a" else word.upper()


def vocabulary() -> set[str]:
    """Every word that a sentence of kind 'sentences' can have."""
    plain = (
        *(lists.NOUNS, lists.VERBS, lists.ADJECTIVES, lists.NAMES, lists.ADVERBS, lists.PREPOSITIONS, lists.NUMBERS),
        *(lists.CONJUNCTIONS, lists.MODALS, lists.DETERMINERS, lists.MANY, lists.PRONOUNS),
    )
    return {*(word for words in plain for word in words), *map(plural, lists.NOUNS), *map(past, lists.VERBS)}


def plural(noun: str) -> str:
    """The plural of a noun in the list."""
    return f"{noun}s"


def past(verb: str) -> str:
    """The past tense of a verb in the list."""
    return lists.IRREGULAR.get(verb) or (f"{verb}d" if verb.endswith("e") else f"{verb}ed")


class _Grammar:
    """Draws sentences: (adverb) subject predicate object (place) (conjunction and another clause)."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def _word(self, words: tuple[str, ...]) -> str:
        return words[self._rng.integers(len(words))]

    def _maybe(self, chance: float) -> bool:
        return bool(self._rng.random() < chance)

    def sentence(self) -> list[str]:
        words = [self._word(lists.ADVERBS)] if self._maybe(0.15) else []
        words += self._clause()
        if self._maybe(0.15):
            words += [self._word(lists.CONJUNCTIONS), *self._clause()]
        return words

    def _clause(self) -> list[str]:
        words = [self._word(lists.PRONOUNS)] if self._maybe(0.15) else self._noun_phrase()
        if self._maybe(0.4):
            words += [self._word(lists.MODALS), self._word(lists.VERBS)]
        else:
            words.append(past(self._word(lists.VERBS)))
        words += self._noun_phrase()
        if self._maybe(0.3):
            words += [self._word(lists.PREPOSITIONS), *self._noun_phrase()]
        return words

    def _noun_phrase(self) -> list[str]:
        draw = self._rng.random()
        if draw < 0.15:
            return [self._word(lists.NAMES)]
        adjective = [self._word(lists.ADJECTIVES)] if self._maybe(0.4) else []
        if draw < 0.4:
            first = self._word(lists.NUMBERS if self._maybe(0.4) else lists.MANY)
            return [first, *adjective, plural(self._word(lists.NOUNS))]
        return [self._word(lists.DETERMINERS), *adjective, self._word(lists.NOUNS)]
