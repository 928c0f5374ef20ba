"""Stereo channels that are out of phase are heard; other recordings give the samples of FFmpeg's mix."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from avhubert.data.audio import read_audio
from avhubert.data.media import DamageLog
from avhubert.data.mixing import FORMATS, PhaseCorrection
from tests.data.recordings import audio_file, speech

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.flac", "flac"), ("a.wav", "pcm_s16le")])
def test_channels_that_are_out_of_phase_are_heard(tmp_path: Path, name: str, codec: str) -> None:
    left = speech(3, 48_000)
    path = audio_file(tmp_path / name, np.stack([left, -left], 1), codec, 48_000, "stereo")
    alone = read_audio(audio_file(tmp_path / f"mono-{name}", left, codec, 48_000))
    damage = DamageLog()
    samples = read_audio(path, damage=damage)
    assert abs(len(samples) - len(alone)) <= 400
    assert np.abs(samples[8000:40_000].astype(int) - alone[8000:40_000]).mean() < 60
    assert damage.sentences() == (
        "the two audio channels are out of phase; one of them is inverted, so that they do not cancel",
    )


@pytest.mark.parametrize("right", [1.0, 0.3, 0.0, -0.3])
def test_other_stereo_recordings_are_mixed_by_ffmpeg(tmp_path: Path, right: float) -> None:
    left = speech(3)
    channels = np.stack([left, (right * left).astype(np.int16)], 1)
    path = audio_file(tmp_path / "a.flac", channels, "flac", layout="stereo")
    resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
    with av.open(str(path)) as container:
        mixed = [out.to_ndarray()[0] for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    damage = DamageLog()
    assert np.array_equal(read_audio(path, damage=damage), np.concatenate(mixed))
    assert not damage


def test_only_the_part_that_is_out_of_phase_is_inverted(tmp_path: Path) -> None:
    left = speech(6)
    right = np.concatenate([left[:48_000], -left[48_000:]])
    path = audio_file(tmp_path / "a.flac", np.stack([left, right], 1), "flac", layout="stereo")
    samples = read_audio(path)
    assert np.abs(samples[:40_000].astype(int) - left[:40_000]).max() <= 1
    assert np.abs(samples[64_000:].astype(int) - left[64_000 : len(samples)]).max() <= 1


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_format_of_samples(form: str) -> None:
    wave = np.sin(np.arange(16_000) / 7)
    kind = {"d": np.float64, "f": np.float32, "s16": np.int16, "s32": np.int32, "u8": np.uint8}
    numpy_type = next(kind[name] for name in kind if form.startswith(name))
    scale, middle = (1.0, 0) if numpy_type in (np.float64, np.float32) else (np.iinfo(numpy_type).max // 3, 0)
    if numpy_type is np.uint8:
        middle = 128
    for right, inverted in ((-wave, True), (0.5 * wave, False)):
        channels = np.round(scale * np.stack([wave, right]), 12 if scale == 1.0 else 0) + middle
        samples = channels.astype(numpy_type)
        planar = form.endswith("p")
        frame = av.AudioFrame.from_ndarray(samples if planar else samples.T.reshape(1, -1), form, "stereo")
        frame.sample_rate = 16_000
        correction = PhaseCorrection()
        (mixed,) = [*correction.add(frame), *correction.flush()]
        assert correction.seconds == (1.0 if inverted else 0.0)
        second = mixed.to_ndarray()[1] if planar else mixed.to_ndarray()[0, 1::2]
        expected = samples[0] if inverted else samples[1]
        assert np.abs(second.astype(float) - expected).max() <= 1
