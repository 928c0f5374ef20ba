"""Captions: segments of a transcript, divided so that each can be read while it is displayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avhubert.transcription.transcript import Segment, Word

CAPTION_SECONDS = 7.0  # longest duration of one caption
CAPTION_CHARACTERS = 84  # two lines of 42


@dataclass(frozen=True)
class Caption:
    """Text that is displayed from `start` to `end` seconds, at most two lines."""

    start: float
    end: float
    text: str


def captions(segments: Sequence[Segment]) -> list[Caption]:
    """Captions of all segments that have text; long segments are divided between words."""
    result: list[Caption] = []
    for segment in segments:
        if not segment.text:
            continue
        short = segment.end - segment.start <= CAPTION_SECONDS and len(segment.text) <= CAPTION_CHARACTERS
        if short or not segment.words:
            result.append(Caption(segment.start, segment.end, segment.text))
        else:
            result += [_caption(words) for words in _groups(segment.words)]
    return result


def _groups(words: Sequence[Word]) -> list[list[Word]]:
    """Consecutive words, grouped within the limits of one caption."""
    groups: list[list[Word]] = []
    for word in words:
        if groups:
            group = groups[-1]
            length = sum(len(earlier.text) + 1 for earlier in group) + len(word.text)
            if length <= CAPTION_CHARACTERS and word.end - group[0].start <= CAPTION_SECONDS:
                group.append(word)
                continue
        groups.append([word])
    return groups


def _caption(words: Sequence[Word]) -> Caption:
    return Caption(words[0].start, words[-1].end, " ".join(word.text for word in words))
