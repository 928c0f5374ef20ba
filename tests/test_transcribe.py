"""Windows and formats of transcripts; whole files are transcribed in test_demo."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avhubert.errors import CheckpointError
from avhubert.transcribe import Segment, Transcript, Word, render, transcribe, windows

SAID = Transcript(
    "bin blue",
    [Segment(0.0, 3.5, "bin", -0.1), Segment(3.5, 3725.25, "blue", -0.2)],
    [Word("bin", 0.5, 1.0, 0.9, 0)],
    "av",
)


@given(st.integers(1, 3000), st.booleans(), st.integers(0, 2**31))
def test_windows_cover_everything_once(frames: int, sound: bool, seed: int) -> None:
    samples = np.random.default_rng(seed).integers(-999, 999, frames * 640 // 2).astype(np.int16) if sound else None
    found = windows(samples, frames)
    assert found[0][0] == 0
    assert found[-1][1] == frames
    assert all(a[1] == b[0] for a, b in itertools.pairwise(found))
    assert all(0 < end - start <= 375 for start, end in found)


def test_a_cut_falls_into_a_pause() -> None:
    samples = np.random.default_rng(0).integers(-9999, 9999, 500 * 640).astype(np.int16)
    samples[300 * 640 : 310 * 640] = 0
    (_, cut), _ = windows(samples, 500)
    assert 300 <= cut < 310


def test_formats() -> None:
    assert render(SAID, "txt") == "bin blue\n"
    assert render(SAID, "srt").splitlines()[4:7] == ["2", "00:00:03,500 --> 01:02:05,250", "blue"]
    assert render(SAID, "vtt").startswith("WEBVTT\n\n1\n00:00:00.000 --> 00:00:03.500\nbin\n")
    assert json.loads(render(SAID, "json"))["segments"][1]["text"] == "blue"


def test_no_model_is_named() -> None:
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        transcribe("x.mp4", "nowhere")
