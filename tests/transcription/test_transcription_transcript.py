"""Transcripts as text, captions and JSON."""

from __future__ import annotations

import itertools
import json

import pytest

from avhubert.errors import ConfigError
from avhubert.transcription.captions import CAPTION_CHARACTERS, CAPTION_SECONDS, captions
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
    assert all(len(caption.text) <= CAPTION_CHARACTERS for caption in found)
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown format 'docx'; known: txt, srt, vtt, json"):
        render(SAID, "docx")
