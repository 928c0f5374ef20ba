"""Checks whether the decoded text is plausible: repetitions and uncertain words are typical of invented text."""

from __future__ import annotations

from collections.abc import Sequence

from avhubert.transcription.transcript import Segment, clock

MIN_CONFIDENCE = 0.4  # mean word confidence of a segment; models that fit the speech reach 0.6
LONGEST_PHRASE = 6  # words of a phrase whose repetitions are counted
REPETITIONS = 4  # of a phrase, one after the other
WORD_REPETITIONS = 6  # of a single word, which people do repeat


def implausible(segments: Sequence[Segment]) -> list[str]:
    """Warnings about text that the recognizer may have invented."""
    return [warning for warning in (_repetition_warning(segments), _confidence_warning(segments)) if warning]


def _confidence_warning(segments: Sequence[Segment]) -> str:
    with_words = [segment for segment in segments if segment.words]
    uncertain = [
        segment
        for segment in with_words
        if sum(word.confidence for word in segment.words) < MIN_CONFIDENCE * len(segment.words)
    ]
    if not uncertain:
        return ""
    return (
        f"the words of {len(uncertain)} of {len(with_words)} segments are uncertain (mean confidence below "
        f"{MIN_CONFIDENCE}), first at {clock(uncertain[0].start)}: unclear speech, or no speech"
    )


def _repetition_warning(segments: Sequence[Segment]) -> str:
    for segment in segments:
        phrase, times = longest_repetition(segment.text.split())
        if phrase:
            return (
                f"the text repeats '{phrase}' {times} times at {clock(segment.start)}; the model may have invented it"
            )
    return ""


def longest_repetition(words: Sequence[str]) -> tuple[str, int]:
    """The phrase that is repeated most often, one after the other, and how often; '' and 0 if none is too often."""
    best = ("", 0)
    for length in range(1, LONGEST_PHRASE + 1):
        allowed = WORD_REPETITIONS if length == 1 else REPETITIONS
        run = 0  # words that are equal to the word `length` before them
        for index in range(length, len(words)):
            run = run + 1 if words[index] == words[index - length] else 0
            times = run // length + 1
            if times >= allowed and times > best[1]:
                best = (" ".join(words[index - length + 1 : index + 1]), times)
    return best
