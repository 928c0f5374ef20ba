"""Random variation of training clips: speed, images, voice."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from avhubert.config import compose
from avhubert.config.schema import FinetuneDataConfig
from avhubert.constants import SAMPLE_RATE
from avhubert.data.audio import resample, write_wav
from avhubert.data.augment import Augmentation
from avhubert.data.dataset import ClipDataset
from avhubert.data.filterbank import VoiceChange, audio_features, filterbank
from avhubert.data.manifest import Clip
from avhubert.data.variation import (
    ImageChange,
    change_images,
    change_speed_of_frames,
    change_speed_of_samples,
    frames_at_speed,
)
from avhubert.data.video import write_video
from avhubert.errors import ConfigError

pytestmark = pytest.mark.quick

VARIED = {
    "vary_speed": 0.2,
    "vary_formants": 0.2,
    "vary_tone": 6.0,
    "vary_scale": 0.1,
    "vary_rotation": 10.0,
    "vary_light": 0.3,
    "vary_sharpness": 0.5,
}


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    times = np.arange(int(SAMPLE_RATE * seconds)) / SAMPLE_RATE
    return np.rint(8000 * np.sin(2 * np.pi * hertz * times)).astype(np.int16)


def strongest(samples: np.ndarray) -> float:
    """The frequency with the most energy, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * SAMPLE_RATE / len(samples))


def square(size: int = 96, half: int = 16) -> np.ndarray:
    """A white square in the middle of a black frame, uint8 [2, size, size]."""
    frames = np.zeros((2, size, size), np.uint8)
    frames[:, size // 2 - half : size // 2 + half, size // 2 - half : size // 2 + half] = 255
    return frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    """A clip of one second."""
    folder: Path = tmp_path_factory.mktemp("clip")
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (12, 12)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    write_video(folder / "clip.mp4", [np.roll(base, 3 * t, axis=1) for t in range(25)])
    write_wav(folder / "clip.wav", (rng.standard_normal(SAMPLE_RATE) * 2000).astype(np.int16))
    return Clip("clip", folder / "clip.mp4", folder / "clip.wav", 25, SAMPLE_RATE)


# --------------------------------------------------------------------------- speed
def test_faster_audio_is_shorter_and_higher() -> None:
    faster = change_speed_of_samples(tone(1000), 1.25)
    assert len(faster) == pytest.approx(SAMPLE_RATE / 1.25, abs=2)
    assert strongest(faster) == pytest.approx(1250, abs=5)


def test_resampling_keeps_duration_and_pitch() -> None:
    samples = tone(500)[::2]  # 8 kHz
    resampled = resample(samples, 8000)
    assert len(resampled) == pytest.approx(SAMPLE_RATE, abs=40)
    assert strongest(resampled) == pytest.approx(500, abs=2)


@pytest.mark.parametrize(("speed", "expected"), [(2.0, [1, 3, 5, 7]), (0.5, [0, 0, 1, 1, 2, 2, 3, 3])])
def test_frames_are_those_nearest_in_time(speed: float, expected: list[int]) -> None:
    count = 8 if speed > 1 else 4
    frames = np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    assert change_speed_of_frames(frames, speed)[:, 0, 0].tolist() == expected
    assert frames_at_speed(count, speed) == len(expected)


def test_speed_keeps_one_frame_at_least() -> None:
    assert change_speed_of_frames(np.zeros((1, 4, 4), np.uint8), 1.9).shape == (1, 4, 4)


# --------------------------------------------------------------------------- images
def test_without_change_images_stay_the_same() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 96, 96)).astype(np.uint8)
    assert np.array_equal(change_images(frames, ImageChange()), frames)


def test_scale_enlarges_around_the_middle() -> None:
    large = change_images(square(), ImageChange(scale=1.5))
    assert (large[0] > 127).sum() == pytest.approx(48**2, rel=0.03)
    rows, columns = np.nonzero(large[0] > 127)
    assert rows.mean() == pytest.approx(47.5, abs=0.1)
    assert columns.mean() == pytest.approx(47.5, abs=0.1)


def test_rotation_is_clockwise() -> None:
    frames = np.zeros((1, 96, 96), np.uint8)
    frames[0, 10:20, 44:52] = 255  # above the middle
    rows, columns = np.nonzero(change_images(frames, ImageChange(degrees=90))[0] > 127)
    assert rows.mean() == pytest.approx(47.5, abs=0.5)
    assert columns.mean() == pytest.approx(95 - 14.5, abs=0.5)


def test_lower_resolution_removes_fine_structure() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (1, 96, 48))
    assert change_images(stripes, ImageChange(sharpness=0.5)).std() < 0.1 * stripes.std()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (ImageChange(brightness=0.2), [51, 179, 255]),
        (ImageChange(contrast=0.5), [64, 128, 191]),
        (ImageChange(gamma=2.0), [0, 64, 255]),
    ],
)
def test_light(change: ImageChange, expected: list[int]) -> None:
    frames = np.array([[[0, 128, 255]]], np.uint8)
    assert change_images(frames, change)[0, 0].tolist() == pytest.approx(expected, abs=1)


# --------------------------------------------------------------------------- voice
def test_formants_move_by_the_factor() -> None:
    change = VoiceChange(1.25, np.zeros(26))
    assert torch.equal(filterbank(tone(1000), change)[3:-3].argmax(1), filterbank(tone(1250))[3:-3].argmax(1))
    change = dataclasses.replace(change, formants=0.8)
    assert torch.equal(filterbank(tone(1250), change)[3:-3].argmax(1), filterbank(tone(1000))[3:-3].argmax(1))


def test_gains_are_in_decibels() -> None:
    gains = np.linspace(-5, 5, 26)
    difference = filterbank(tone(800), VoiceChange(1.0, gains)) - filterbank(tone(800))
    assert torch.allclose(difference, torch.from_numpy(gains * np.log(10) / 10).expand_as(difference))


def test_no_change_of_the_voice_is_exact() -> None:
    samples = tone(700)
    assert torch.equal(audio_features(samples, change=VoiceChange(1.0, np.zeros(26))), audio_features(samples))


# --------------------------------------------------------------------------- choice
@pytest.mark.parametrize("name", VARIED)
def test_each_key_changes_training_clips_only(clip: Clip, name: str) -> None:
    plain = ClipDataset([clip], FinetuneDataConfig(dir="x", augment=False), training=True, seed=1)
    config = FinetuneDataConfig(dir="x", augment=False, **{name: VARIED[name]})
    varied = ClipDataset([clip], config, training=True, seed=1)
    before, first, second = plain.load(0), varied.load(0, 0), varied.load(0, 1)
    streams = {"vary_speed": ["audio", "video"], "vary_formants": ["audio"], "vary_tone": ["audio"]}.get(
        name, ["video"]
    )
    for stream in ("audio", "video"):
        x, y, z = (getattr(example, stream) for example in (before, first, second))
        assert len(y) == first.frames
        assert torch.equal(x, y) == (stream not in streams)
        assert torch.equal(y, z) == (stream not in streams)
        assert torch.equal(getattr(varied.load(0, 0), stream), y)
    evaluated = ClipDataset([clip], config, training=False, seed=1).load(0)
    assert torch.equal(evaluated.audio, before.audio)
    assert torch.equal(evaluated.video, before.video)


def test_speed_of_a_clip_without_video_is_the_same(clip: Clip) -> None:
    both = FinetuneDataConfig(dir="x", vary_speed=0.3)
    audio_only = dataclasses.replace(both, modalities="a")
    lengths = {
        tuple(ClipDataset([clip], config, training=True, seed=1).load(0, epoch).frames for epoch in range(6))
        for config in (both, audio_only)
    }
    assert len(lengths) == 1
    assert len(set(*lengths)) > 1


def test_drawn_values_have_both_signs_and_stay_in_range() -> None:
    augmentation = Augmentation(FinetuneDataConfig(dir="x", **VARIED), training=True, seed=3)
    speeds = np.array([augmentation.speed(0, epoch) for epoch in range(300)])
    assert 1 / 1.2 <= speeds.min() < 0.87
    assert 1.15 < speeds.max() <= 1.2
    images = [augmentation.images(0, epoch) for epoch in range(300)]
    degrees = [image.degrees for image in images if image]
    assert -10 <= min(degrees) < -9
    assert 9 < max(degrees) <= 10
    assert all(0.5 <= image.sharpness <= 1 for image in images if image)
    voices = [augmentation.voice(0, epoch) for epoch in range(300)]
    assert max(np.abs(voice.gains).max() for voice in voices if voice) <= 6


@pytest.mark.parametrize("value", ["-0.1", "0.95"])
def test_a_relative_change_must_leave_something(value: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.vary_speed=.* must be between 0 and 0\.9"):
        compose("finetune", "tiny", ["run_dir=x", "data.dir=x", "model.pretrained=x", f"data.vary_speed={value}"])
