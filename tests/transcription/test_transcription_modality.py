"""Which streams are read, why, and what is warned about."""

from __future__ import annotations

import numpy as np
import pytest

from avhubert.errors import ConfigError
from avhubert.transcription.modality import choose, darkness_warning, offset_warning

pytestmark = pytest.mark.quick

EVERY = ("av", "a", "v")
SPEECH, SILENCE = np.tile([-20.0, -40.0], 50), np.full(100, -90.0)
TALKING, STILL = np.full(100, 0.01), np.zeros(100)


@pytest.mark.parametrize(
    ("known", "level", "moved", "expected", "reason"),
    [
        (EVERY, SPEECH, TALKING, "av", "audio and lips are both there"),
        (EVERY, SPEECH, None, "a", "without the lips: no face was found"),
        (EVERY, SPEECH, STILL, "a", "without the lips: the mouth does not move"),
        (EVERY, SILENCE, TALKING, "v", "without the audio: the audio is silent"),
        (EVERY, None, TALKING, "v", "without the audio: there is no audio"),
        (EVERY, SILENCE, STILL, "av", "both streams are there"),
        (("av",), SPEECH, STILL, "av", "this model reads audio and lips only together"),
        (("v",), SPEECH, TALKING, "v", "without the audio: this model does not read both"),
        (("a",), SPEECH, TALKING, "a", "without the lips: this model does not read both"),
        (("v", "av"), SPEECH, STILL, "av", "both streams are there"),
    ],
)
def test_what_is_there_and_good_is_read(known, level, moved, expected, reason) -> None:
    assert choose(known, level, moved, "x.mp4") == (expected, reason)


def test_a_sound_file_has_no_face_to_look_for() -> None:
    for why in ("there is no video", "the video has ended"):
        assert choose(EVERY, SPEECH, None, "x.wav", no_video=why) == ("a", f"without the lips: {why}")


def test_a_model_that_reads_nothing_of_it_is_told() -> None:
    with pytest.raises(ConfigError, match=r"this model reads v, av, but x.wav only offers 'a'"):
        choose(("v", "av"), SPEECH, None, "x.wav")


def test_dark_pictures() -> None:
    assert darkness_warning(np.full((5, 96, 96), 90, np.uint8)) is None
    assert "dark (mean gray level 12 of 255" in (darkness_warning(np.full((5, 96, 96), 12, np.uint8)) or "")


@pytest.mark.parametrize("lag", [-12, -7, 0, 3, 7, 12])
def test_offset_between_lips_and_audio(lag: int) -> None:
    rng = np.random.default_rng(1)
    speech = np.convolve(rng.normal(0, 1, 400), np.ones(4) / 2, "same")
    samples = (1000 * 10 ** (np.repeat(speech, 640) / 3) * rng.normal(0, 1, 400 * 640)).clip(-32000, 32000)
    samples, gap = samples.astype(np.int16), np.roll(5 + speech, lag) + rng.normal(0, 0.5, 400)
    warning = offset_warning(gap, samples)
    if abs(lag) < 5:
        assert warning is None
    else:
        assert warning is not None
        assert f"{abs(lag) / 25:.2f} s {'after' if lag > 0 else 'before'} the audio" in warning
    assert offset_warning(rng.normal(0, 1, 400), samples) is None  # of another recording
    assert offset_warning(gap[:40], samples[: 40 * 640]) is None
