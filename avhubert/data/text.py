"""Text normalisation for training and scoring."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable

from avhubert.errors import ConfigError

# scripts without spaces between words: the beginnings of the Unicode names of their letters
UNSPACED = (
    *("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "BOPOMOFO", "YI", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"),
    *("BALINESE", "JAVANESE", "TAI", "NEW TAI LUE"),
)


def normalise_text(text: str) -> str:
    """Normalise text: Unicode form NFKC, lower case, single spaces, no spaces at the ends."""
    return normalise_form(unicodedata.normalize("NFKC", text).lower())


def normalise_form(text: str) -> str:
    """Normalise text but for its case: Unicode form NFKC, single spaces, no spaces at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def without_punctuation(text: str) -> str:
    """Normalise text and remove punctuation and symbols, except apostrophes and hyphens inside a word."""
    text = normalise_text(text).replace("’", "'")
    characters = []
    for index, char in enumerate(text):
        inside_word = char in "'-" and text[index - 1 : index].isalnum() and text[index + 1 : index + 2].isalnum()
        characters.append(char if inside_word or unicodedata.category(char)[0] not in "PS" else " ")
    return normalise_text("".join(characters))


def english_text(text: str) -> str:
    """Apply Whisper's English normaliser (Radford et al., 2022, appendix C): numbers, contractions, spelling, fillers.

    Raises:
        ConfigError: the package whisper-normalizer is not installed.
    """
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise ConfigError("normaliser 'english' needs whisper-normalizer: `pip install 'avhubert[english]'`") from error
    global _english
    _english = _english or EnglishTextNormalizer()
    return normalise_text(_english(text))


_english: Callable[[str], str] | None = None


# applied to references and hypotheses before they are compared; the default is config.command_defaults.NORMALISER
NORMALISERS: dict[str, Callable[[str], str]] = {
    "basic": normalise_text,
    "plain": without_punctuation,
    "english": english_text,
}


def normaliser(name: str) -> Callable[[str], str]:
    """Get a normaliser of NORMALISERS by name.

    Raises:
        ConfigError: there is no normaliser of that name.
    """
    if name not in NORMALISERS:
        raise ConfigError(f"there is no text normaliser '{name}'; choose one of {', '.join(NORMALISERS)}")
    return NORMALISERS[name]


def is_unspaced(texts: Iterable[str]) -> bool:
    """Whether most letters belong to a script without spaces between words.

    Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan and a few more have such scripts; Korean does not. The errors
    of their texts are counted in characters instead of words.
    """
    letters = Counter(char for text in texts for char in text if unicodedata.category(char)[0] in "LM")
    names = {char: unicodedata.name(char, "") for char in letters}
    unspaced = sum(count for char, count in letters.items() if names[char].startswith(tuple(f"{s} " for s in UNSPACED)))
    return 2 * unspaced > letters.total()
