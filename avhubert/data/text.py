"""Text normalisation for training and scoring."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable

from avhubert.errors import ConfigError

# scripts that put no space between words, as Unicode's names of their letters begin
UNSPACED = (
    *("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "BOPOMOFO", "YI", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"),
    *("BALINESE", "JAVANESE", "TAI", "NEW TAI LUE"),
)


def normalise_text(text: str) -> str:
    """Lower case, one way to write each character (NFKC), single spaces, none at the ends."""
    lower = unicodedata.normalize("NFKC", text).lower()
    return " ".join(unicodedata.normalize("NFKC", lower).split())


def without_punctuation(text: str) -> str:
    """`normalise_text` without punctuation and symbols, save apostrophes and hyphens inside a word."""
    text = normalise_text(text).replace("’", "'")
    kept = []
    for at, char in enumerate(text):
        inside = char in "'-" and text[at - 1 : at].isalnum() and text[at + 1 : at + 2].isalnum()
        kept.append(char if inside or unicodedata.category(char)[0] not in "PS" else " ")
    return normalise_text("".join(kept))


def english_text(text: str) -> str:
    """Whisper's English normaliser (Radford et al., 2022, appendix C): numbers, contractions, spelling, fillers."""
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise ConfigError("normaliser 'english' needs whisper-normalizer; `pip install 'avhubert[english]'`") from error
    global _english
    _english = _english or EnglishTextNormalizer()
    return normalise_text(_english(text))


_english: Callable[[str], str] | None = None


# what references and hypotheses are made of before they are compared, by name
NORMALISERS: dict[str, Callable[[str], str]] = {
    "basic": normalise_text,
    "plain": without_punctuation,
    "english": english_text,
}


def normaliser(name: str) -> Callable[[str], str]:
    """The normaliser of that name; ConfigError names the valid ones."""
    if name not in NORMALISERS:
        raise ConfigError(f"there is no text normaliser '{name}'; choose one of {', '.join(NORMALISERS)}")
    return NORMALISERS[name]


def is_unspaced(texts: Iterable[str]) -> bool:
    """Whether most letters are of a script without spaces between words: its errors are counted in characters.

    Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan and a few more; Korean has spaces.
    """
    letters = Counter(char for text in texts for char in text if unicodedata.category(char)[0] in "LM")
    names = {char: unicodedata.name(char, "") for char in letters}
    unspaced = sum(count for char, count in letters.items() if names[char].startswith(tuple(f"{s} " for s in UNSPACED)))
    return 2 * unspaced > letters.total()
