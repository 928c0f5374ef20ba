"""The model inside the package: its name, where its files are, and what it is for.

A small recognizer of GRID commands, so that the first command works without another file. The folder also has the
sample clip of `avhubert transcribe --sample`.
"""

from __future__ import annotations

import logging
from pathlib import Path

from avhubert.config.command_defaults import BUILTIN_MODEL

DIRECTORY = Path(__file__).resolve().parents[1] / "builtin"
SAMPLE = DIRECTORY / "sample.mp4"  # a synthetic speaker; made by scripts/make_sample.py, as is its transcript
# names the vocabulary (a test compares it with the model's) and what to use instead
NOTE = (
    "the built-in model knows 51 words: bin lay place set, blue green red white, at by in with, the letters without w, "
    "zero to nine, again now please soon; for other speech give another model (docs/how-to/built-in-model.md)"
)

_log = logging.getLogger(__name__)


def resolve(source: str | Path) -> str | Path:
    """The directory of the built-in model for its name, `builtin`; anything else as it is.

    The name takes precedence over a path; a folder of the same name is given as `./builtin`.
    """
    return DIRECTORY if source == BUILTIN_MODEL else source


def note(source: str | Path) -> str:
    """What the built-in model knows, if `source` is its name; else ''."""
    return NOTE if source == BUILTIN_MODEL else ""


def log_use(source: str | Path) -> None:
    """Log what the built-in model knows, if `source` is its name."""
    if text := note(source):
        _log.info(text)


def sample_text() -> str:
    """The sentence of the sample clip."""
    return SAMPLE.with_suffix(".txt").read_text(encoding="utf-8").strip()
