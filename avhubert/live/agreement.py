"""Which words of a live hypothesis are shown: those that are probable, and on which two successive windows agree.

Local agreement: Liu, Spanakis and Niehues 2020, "Low-latency sequence-to-sequence speech recognition and translation by
partial hypothesis selection", § 3.3.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from difflib import SequenceMatcher

from avhubert.live.records import LiveWord

MIN_CONFIDENCE = 0.6  # of a word that is shown before its utterance ends; chosen with benchmarks/bench_live.py
GUARD_SECONDS = 0.08  # words that end so shortly before the end of a window may be only their beginning


class Agreement:
    """The words of one utterance that are shown.

    Attributes:
        shown: The words that are shown.
        retracted: Number of words that were shown and taken back.
    """

    def __init__(self) -> None:
        self.shown: tuple[LiveWord, ...] = ()
        self.retracted = 0
        self._previous: tuple[LiveWord, ...] = ()

    def update(self, words: Sequence[LiveWord], end: float) -> bool:
        """Take the words of the next window, which ends at `end` seconds; whether other words are shown now."""
        current = tuple(word for word in words if word.end <= end - GUARD_SECONDS)
        agreed = tuple(
            word
            for word, _ in itertools.takewhile(
                lambda pair: pair[0].text == pair[1].text and min(word.confidence for word in pair) >= MIN_CONFIDENCE,
                zip(current, self._previous, strict=False),
            )
        )
        self._previous = current
        shorter = len(agreed) < len(self.shown) and _texts(agreed) == _texts(self.shown[: len(agreed)])
        if shorter:  # the windows differ after that; what is shown stays until they agree on something else
            return False
        changed = _texts(agreed) != _texts(self.shown)
        if changed:
            self.retracted += retracted_words(self.shown, agreed)
            self.shown = agreed
        return changed

    def finish(self, words: Sequence[LiveWord]) -> None:
        """Take the final words of the utterance."""
        self.retracted += retracted_words(self.shown, words)
        self.shown = tuple(words)


def retracted_words(before: Sequence[LiveWord], after: Sequence[LiveWord]) -> int:
    """How many words of a text are missing or different in the text that replaces it."""
    matcher = SequenceMatcher(a=_texts(before), b=_texts(after), autojunk=False)
    return len(before) - sum(block.size for block in matcher.get_matching_blocks())


def _texts(words: Sequence[LiveWord]) -> list[str]:
    return [word.text for word in words]
