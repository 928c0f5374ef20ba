"""Fonts for captions that are drawn into a video: one that has the characters of the text, and what is missing."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

_log = logging.getLogger(__name__)

# scripts by the first word of their characters' Unicode names; others are reported by that word
SCRIPTS = {
    "CJK": "Chinese",
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
    "HANGUL": "Korean",
    "DEVANAGARI": "Devanagari (Hindi)",
    "SYMBOLS": "symbols",
}
PACKAGES = {"Chinese": "fonts-noto-cjk", "Japanese": "fonts-noto-cjk", "Korean": "fonts-noto-cjk"}
PACKAGE = "fonts-noto-core"  # Debian package with most other scripts
# scripts whose letters take other shapes beside each other, which Pillow draws with the libraries Raqm and FriBiDi only
SHAPED = ("ARABIC", "SYRIAC", "HEBREW", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "TAMIL", "TELUGU", "KANNADA",
          "MALAYALAM", "SINHALA", "KHMER", "MYANMAR")  # fmt: skip
PREFERRED = ("bold", "sans", "noto")  # in names of files, later ones are more important


def default_font() -> Path:
    """DejaVu Sans Bold, which Matplotlib includes: Latin, Greek, Cyrillic, Arabic and other letters."""
    from matplotlib import get_data_path

    return Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"


def caption_font(text: str) -> Path:
    """The default font if it has all characters of the text, else the font of this computer that has the most."""
    wanted = _characters(text)
    best, missing = default_font(), wanted - characters_of(default_font())
    if not missing:
        return best
    for path in system_fonts():
        lacking = wanted - characters_of(path)
        if len(lacking) < len(missing):
            best, missing = path, lacking
        if not missing:
            break
    return best


def font_warnings(texts: Iterable[str]) -> list[str]:
    """Warnings about characters that no font of this computer has, and about letters that cannot be joined."""
    warnings = []
    missing: set[int] = set()
    scripts: set[str] = set()
    for text in texts:
        missing |= _characters(text) - characters_of(caption_font(text))
        scripts |= {_script(character) for character in map(chr, _characters(text))}
    if missing:
        names = sorted({SCRIPTS.get(script, script.capitalize()) for script in map(_script, map(chr, missing))})
        packages = sorted({PACKAGES.get(name, PACKAGE) for name in names})
        warnings.append(
            f"no font of this computer has the characters of {_listed(names)}: they are boxes in the video; install a "
            f"Noto font (https://fonts.google.com/noto; Debian, Ubuntu: {' '.join(packages)})"
        )
    shaped = sorted(SCRIPTS.get(script, script.capitalize()) for script in scripts & set(SHAPED))
    if shaped and not _can_shape():
        warnings.append(
            f"the letters of {_listed(shaped)} are drawn unconnected and in the wrong order, because Pillow finds no "
            "FriBiDi on this computer; install it (Debian, Ubuntu: libfribidi0; macOS: brew install fribidi)"
        )
    return warnings


@lru_cache(maxsize=4096)
def characters_of(font: Path) -> frozenset[int]:
    """Code points of the characters of a font; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(str(font)).get_charmap())
    except (OSError, RuntimeError, ValueError) as error:
        _log.debug("the font %s cannot be read: %s", font, error)
        return frozenset()


@lru_cache(maxsize=1)
def system_fonts() -> Sequence[Path]:
    """The fonts of this computer: sans serif and bold ones of the Noto family first."""
    from matplotlib.font_manager import findSystemFonts

    def order(path: Path) -> tuple[int, str]:
        name = path.name.lower()
        weights = sum(2**index for index, word in enumerate(PREFERRED) if word in name)
        return (-weights, str(path))

    return tuple(sorted(map(Path, findSystemFonts()), key=order))


def _characters(text: str) -> set[int]:
    """Code points that a font must have: all but spaces and control and format characters."""
    return {ord(character) for character in text if unicodedata.category(character)[0] not in "ZC"}


def _script(character: str) -> str:
    if unicodedata.category(character)[0] not in "LMN":
        return "SYMBOLS"
    return unicodedata.name(character, "UNKNOWN").split(" ")[0].split("-")[0]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _can_shape() -> bool:
    from PIL import features

    return bool(features.check("raqm"))
