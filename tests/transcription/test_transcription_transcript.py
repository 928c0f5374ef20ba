"""Transcripts as text, captions and JSON."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avhubert.errors import ConfigError
from avhubert.transcription.captions import CAPTION_SECONDS, LINE_WIDTH, caption_lines, captions, text_width
from avhubert.transcription.transcript import Segment, Transcript, Word, render

pytestmark = pytest.mark.quick

SAID = Transcript(
    "bin blue",
    [
        Segment(0.0, 3.5, "bin", -0.1, "av", (1.0, 2.0, 3.0, 4.0), (Word("bin", 0.5, 1.0, 0.9, 0),)),
        Segment(3.5, 4.0, "", -0.1),
        Segment(3.5, 3725.25, "blue", -0.2),
    ],
    "av",
    "audio and lips are both there",
    ["dark"],
)


def test_formats() -> None:
    assert render(SAID, "txt") == "bin blue\n"
    assert render(SAID, "srt").splitlines()[4:7] == ["2", "00:00:03,500 --> 01:02:05,250", "blue"]
    assert render(SAID, "vtt").startswith("WEBVTT\n\n1\n00:00:00.000 --> 00:00:03.500\nbin\n")


def test_json_has_segments_words_times_confidence_and_box() -> None:
    found = json.loads(render(SAID, "json"))
    assert list(found) == ["text", "segments", "modality", "reason", "warnings", "words"]
    assert found["segments"][0] == {
        "start": 0.0, "end": 3.5, "text": "bin", "score": -0.1, "modality": "av", "box": [1.0, 2.0, 3.0, 4.0],
    }  # fmt: skip
    assert found["words"] == [{"text": "bin", "start": 0.5, "end": 1.0, "confidence": 0.9, "segment": 0}]


def test_a_long_segment_is_several_captions() -> None:
    words = tuple(Word(f"word{i}", 0.4 * i, 0.4 * i + 0.3, 1.0, 0) for i in range(40))
    long = Segment(0.0, 16.0, " ".join(word.text for word in words), -1.0, words=words)
    found = captions([long])
    assert " ".join(caption.text for caption in found) == long.text
    assert all(caption.end - caption.start <= CAPTION_SECONDS for caption in found)
    assert all(len(caption_lines(caption.text)) <= 2 for caption in found)
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))


def test_a_long_caption_has_a_line_break_near_its_middle() -> None:
    text = "the quick brown fox jumps over the lazy dog and runs away"
    assert caption_lines(text) == ["the quick brown fox jumps over", "the lazy dog and runs away"]
    assert caption_lines("the quick brown fox") == ["the quick brown fox"]
    transcript = Transcript(text, [Segment(0.0, 4.0, text, -1.0)], "a")
    for form in ("srt", "vtt"):
        assert "4" + "\nthe quick brown fox jumps over\nthe lazy dog and runs away\n" in render(
            transcript, form
        ).replace("4,000", "4").replace("4.000", "4")
    assert render(transcript, "txt") == text + "\n"


@given(st.lists(st.integers(1, 42), min_size=1, max_size=60), st.booleans())
def test_no_caption_has_more_than_two_lines_of_42_characters(lengths: list[int], timed: bool) -> None:
    texts = ["x" * length for length in lengths]
    words = tuple(Word(text, 0.3 * i, 0.3 * i + 0.3, 1.0, 0) for i, text in enumerate(texts))
    segment = Segment(0.0, 0.3 * len(texts), " ".join(texts), -1.0, words=words if timed else ())
    found = captions([segment])
    assert " ".join(caption.text for caption in found) == segment.text
    for caption in found:
        lines = caption_lines(caption.text)
        assert len(lines) <= 2
        assert max(map(len, lines)) <= LINE_WIDTH
    assert found[0].start == pytest.approx(0)
    assert found[-1].end == pytest.approx(segment.end)
    assert all(a.end <= b.start + 1e-9 for a, b in itertools.pairwise(found))


def test_a_text_without_spaces_is_divided_between_characters() -> None:
    text = "今天天气很好" * 15  # 180 columns
    found = captions([Segment(0.0, 9.0, text, -1.0, words=(Word(text, 0.0, 9.0, 1.0, 0),))])
    assert "".join(caption.text for caption in found) == text
    assert [len(caption_lines(caption.text)) for caption in found] == [2, 2, 1]
    assert all(text_width(line) <= LINE_WIDTH for caption in found for line in caption_lines(caption.text))
    assert found[0].end == pytest.approx(9.0 * 42 / 90)
    assert text_width("ที่นี่") == 2  # vowels and tones are above the consonants


def test_markup_of_webvtt_is_escaped() -> None:
    transcript = Transcript("", [Segment(0.0, 1.0, "a <b> & c", -1.0)], "a")
    assert "a &lt;b&gt; &amp; c" in render(transcript, "vtt")
    assert "a <b> & c" in render(transcript, "srt")


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown format 'docx'; known: txt, srt, vtt, json"):
        render(SAID, "docx")
