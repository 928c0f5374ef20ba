"""Captions: segments of a transcript, divided so that each can be read while it is displayed."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from avhubert.transcription.transcript import Segment

CAPTION_SECONDS = 7.0  # longest duration of one caption
LINES = 2  # of one caption
LINE_WIDTH = 42  # characters of one line; a Chinese, Japanese or Korean character counts as two


@dataclass(frozen=True)
class Caption:
    """Text that is displayed from `start` to `end` seconds; see `caption_lines` for its lines."""

    start: float
    end: float
    text: str


def captions(segments: Sequence[Segment]) -> list[Caption]:
    """Captions of all segments that have text; long segments are divided between words."""
    result: list[Caption] = []
    for segment in segments:
        if not segment.text:
            continue
        short = segment.end - segment.start <= CAPTION_SECONDS or not segment.words
        if short and _fits(segment.text):
            result.append(Caption(segment.start, segment.end, segment.text))
        else:
            result += [_joined(words) for words in _groups(_timed_words(segment))]
    return result


def caption_lines(text: str) -> list[str]:
    """The lines of a caption: one, or two of about the same width; more only for a word that is wider than a line."""
    if text_width(text) <= LINE_WIDTH:
        return [text]
    words = text.split()
    cut = min(range(1, len(words)), key=lambda cut: _width_of_lines(words, cut), default=len(words))
    lines = [" ".join(part) for part in (words[:cut], words[cut:]) if part]
    return [piece for line in lines for piece in _pieces(line, LINE_WIDTH)]


def text_width(text: str) -> int:
    """Number of columns of a text: wide characters take two, marks above and below other characters none."""
    return sum(
        0
        if unicodedata.category(character) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )


def _width_of_lines(words: Sequence[str], cut: int) -> int:
    return max(text_width(" ".join(words[:cut])), text_width(" ".join(words[cut:])))


def _fits(text: str) -> bool:
    return len(caption_lines(text)) <= LINES


def _pieces(text: str, width: int) -> list[str]:
    """A text divided between characters into pieces of at most `width` columns."""
    pieces = [""]
    for character in text:
        if pieces[-1] and text_width(pieces[-1] + character) > width:
            pieces.append("")
        pieces[-1] += character
    return pieces


def _timed_words(segment: Segment) -> list[Caption]:
    """The words of a segment with their times.

    Without word times, the time of the segment is divided by the number of characters; so is that of a word that is
    too wide for a caption, as in languages that are written without spaces.
    """
    if not segment.words:
        return _divided(segment.start, segment.end, segment.text.split())
    result: list[Caption] = []
    for word in segment.words:
        result += _divided(word.start, word.end, _pieces(word.text, LINES * LINE_WIDTH))
    return result


def _divided(start: float, end: float, parts: Sequence[str]) -> list[Caption]:
    """The parts of a text that was said from `start` to `end` seconds, with times by their lengths."""
    ends = start + (end - start) * np.cumsum([len(part) for part in parts]) / sum(map(len, parts))
    times = [start, *ends[:-1].tolist(), end]
    return [Caption(*span, part) for span, part in zip(itertools.pairwise(times), parts, strict=True)]


def _groups(words: Sequence[Caption]) -> list[list[Caption]]:
    """Consecutive words, grouped within the limits of one caption."""
    groups: list[list[Caption]] = []
    for word in words:
        if groups:
            group = [*groups[-1], word]
            if word.end - group[0].start <= CAPTION_SECONDS and _fits(" ".join(member.text for member in group)):
                groups[-1] = group
                continue
        groups.append([word])
    return groups


def _joined(words: Sequence[Caption]) -> Caption:
    return Caption(words[0].start, words[-1].end, " ".join(word.text for word in words))
