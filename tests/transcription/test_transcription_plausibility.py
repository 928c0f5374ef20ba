"""Warnings about text that the recognizer may have invented."""

from __future__ import annotations

import pytest

from avhubert.transcription.plausibility import implausible, longest_repetition
from avhubert.transcription.transcript import Segment, Word

pytestmark = pytest.mark.quick


def segment(text: str, confidence: float = 0.9, start: float = 0.0) -> Segment:
    words = tuple(Word(word, start + i, start + i + 1, confidence, 0) for i, word in enumerate(text.split()))
    return Segment(start, start + len(words), text, -0.1, "a", None, words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bin blue at f two now", ("", 0)),
        ("no no no no no", ("", 0)),
        ("no no no no no no", ("no", 6)),
        ("a b a b a b", ("", 0)),
        ("x a b a b a b a b y", ("a b", 4)),
        ("thank you for it thank you for it thank you for it thank you for it", ("thank you for it", 4)),
        ("", ("", 0)),
    ],
)
def test_a_phrase_that_is_repeated_too_often(text: str, expected: tuple[str, int]) -> None:
    assert longest_repetition(text.split()) == expected


def test_plausible_text_gives_no_warning() -> None:
    assert implausible([segment("bin blue at f two now"), segment("")]) == []
    assert implausible([]) == []


def test_repetition_is_reported_with_its_time() -> None:
    (warning,) = implausible([segment("bin"), segment("so so so so so so so", start=65.0)])
    assert warning == "the text repeats 'so' 7 times at 1:05; the model may have invented it"


def test_uncertain_words_are_reported_with_their_time() -> None:
    segments = [segment("bin"), segment("bin blue", 0.35, 10.0), segment("red", 0.1, 70.0), segment("", 0.0, 80.0)]
    (warning,) = implausible(segments)
    assert warning == (
        "the words of 2 of 3 segments are uncertain (mean confidence below 0.4), first at 0:10: "
        "unclear speech, or no speech"
    )
