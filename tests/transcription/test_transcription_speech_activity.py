"""Speech activity: speech is found, also in noise; music, noise, tones, applause and silence are not speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from avhubert.data.audio import write_wav
from avhubert.data.noise import mix
from avhubert.data.video import write_video
from avhubert.errors import ConfigError
from avhubert.model.recognizer import Recognizer
from avhubert.transcription import speech_activity
from avhubert.transcription.batch import BatchOptions, MediaFile, transcribe_files
from avhubert.transcription.pipeline import Transcription, transcribe
from avhubert.transcription.speech_activity import STEP, WEIGHTS, speech_probability, voiced_frames

Talk = tuple[np.ndarray, np.ndarray]
SECONDS = 8
TIME = np.arange(SECONDS * 16_000) / 16_000


def noise(seconds: int = SECONDS) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(seconds * 16_000)


def applause() -> np.ndarray:
    rng = np.random.default_rng(1)
    claps = np.zeros(len(TIME))
    for start in rng.integers(0, len(TIME) - 400, 80 * SECONDS):
        claps[start : start + 400] += rng.standard_normal(400) * np.exp(-np.arange(400) / 60)
    return claps


def music() -> np.ndarray:
    rng = np.random.default_rng(2)
    beat = np.arange(4_000) / 16_000
    chords = 220 * 2 ** (rng.integers(0, 25, (4 * SECONDS, 3)) / 12)
    notes = [
        sum(np.sin(2 * np.pi * note * overtone * beat) / overtone for note in chord for overtone in range(1, 6))
        for chord in chords
    ]
    return np.concatenate([note * np.exp(-6 * beat) for note in notes])


def loud(sound: np.ndarray) -> np.ndarray:
    """The sound as int16 with a peak of 8000."""
    return (8000 * sound / max(np.abs(sound).max(), 1e-9)).astype(np.int16)


SOUNDS = {
    "music": music(),
    "a tone": np.sin(2 * np.pi * 440 * TIME),
    "hum": sum(np.sin(2 * np.pi * 50 * n * TIME) / n for n in range(1, 9)),
    "a siren": np.sin(2 * np.pi * np.cumsum(700 + 300 * np.sin(2 * np.pi * 0.4 * TIME)) / 16_000),
    "white noise": noise(),
    "noise in bursts": noise() * (np.sin(2 * np.pi * 0.7 * TIME) > 0),
    "applause": applause(),
    "silence": np.zeros(len(TIME)),
}


# --------------------------------------------------------------------------- the detector
def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _convolution(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """Convolution of x [C, T], padded by 1, and ReLU."""
    padded = np.pad(x, ((0, 0), (1, 1)))
    columns = [padded[:, start : start + 3] for start in range(0, x.shape[1], stride)]
    return np.maximum(np.stack([np.einsum("oct,ct->o", weight, column) + bias for column in columns], 1), 0)


def step_by_step(samples: np.ndarray) -> np.ndarray:
    """Probability of each step, from one step after the other, as the network's authors describe it."""
    w = load_file(WEIGHTS)
    hidden, cell, context, result = np.zeros(128), np.zeros(128), np.zeros(64), []
    for start in range(0, len(samples), STEP):
        step = np.concatenate([context, samples[start : start + STEP] / 32768])
        context = step[-64:]
        padded = np.pad(step, (0, 64), mode="reflect")
        pieces = np.stack([padded[i : i + 256] for i in range(0, len(padded) - 255, 128)])
        spectrum = pieces @ w["stft_conv.weight"][:, 0].T
        x = np.hypot(spectrum[:, :129], spectrum[:, 129:]).T
        for number, stride in ((1, 1), (2, 2), (3, 2), (4, 1)):
            x = _convolution(x, w[f"conv{number}.weight"], w[f"conv{number}.bias"], stride)
        gates = (
            w["lstm_cell.weight_ih"] @ x[:, 0] + w["lstm_cell.bias_ih"]
            + w["lstm_cell.weight_hh"] @ hidden + w["lstm_cell.bias_hh"]
        )  # fmt: skip
        i, f, g, o = np.split(gates, 4)
        cell = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(g)
        hidden = _sigmoid(o) * np.tanh(cell)
        result.append(_sigmoid(w["final_conv.weight"][0, :, 0] @ np.maximum(hidden, 0) + w["final_conv.bias"][0]))
    return np.array(result)


def test_all_steps_at_once_equal_one_step_after_the_other(talk: Talk) -> None:
    samples = talk[1][: 40 * STEP]
    steps = step_by_step(samples)
    frames = len(samples) // 640
    expected = [steps[frame * 640 // STEP : (frame * 640 + 639) // STEP + 1].max() for frame in range(frames)]
    assert speech_probability(samples, frames) == pytest.approx(np.array(expected), abs=1e-4)
    assert steps.max() > 0.9


@pytest.mark.parametrize("name", SOUNDS)
def test_a_sound_without_speech_has_no_voice(name: str) -> None:
    assert not voiced_frames(loud(SOUNDS[name]), 25 * SECONDS).any()


@pytest.mark.parametrize("snr", [None, 10, 0])
@pytest.mark.parametrize("background", ["white noise", "music", "applause"])
def test_speech_is_found_in_noise(talk: Talk, background: str, snr: float | None) -> None:
    sound = talk[1]
    frames = len(sound) // 640
    if snr is not None:
        sound = mix(sound, [np.resize(loud(SOUNDS[background]), len(sound))], snr)
    level = np.square(talk[1].astype(float)).reshape(frames, -1).mean(1)
    assert voiced_frames(sound, frames)[level > level.max() / 300].all()


def test_probability_of_frames_after_the_last_sample_is_zero(talk: Talk) -> None:
    sound = talk[1][: 30 * 640]
    assert not speech_probability(sound, 60)[32:].any()
    assert speech_probability(sound[:0], 5).tolist() == [0.0] * 5
    assert len(speech_probability(sound[:100], 1)) == 1


# --------------------------------------------------------------------------- recordings
def test_music_is_not_read_and_a_warning_says_why(recognizer: Recognizer, tmp_path: Path) -> None:
    write_wav(tmp_path / "music.wav", loud(music()))
    found = transcribe(tmp_path / "music.wav", recognizer)
    assert (found.text, found.segments) == ("", [])
    assert found.warnings == [
        "no speech was found in the audio",
        f"{SECONDS} s of music or noise without speech were not read; if somebody speaks there, read all (--vad off)",
    ]
    assert transcribe(tmp_path / "music.wav", recognizer, vad="off").segments


def test_only_the_speech_between_music_and_applause_is_read(talk: Talk, recognizer: Recognizer, tmp_path: Path) -> None:
    speech = talk[1]
    write_wav(tmp_path / "show.wav", np.concatenate([loud(music()), speech, loud(applause())]))
    found = transcribe(tmp_path / "show.wav", recognizer)
    end = SECONDS + len(speech) / 16_000
    assert len(found.segments) == 1
    assert SECONDS - 1.5 < found.segments[0].start < SECONDS + 0.3
    assert end - 0.3 < found.segments[0].end < end + 1.5
    assert any("s of music or noise without speech were not read" in warning for warning in found.warnings)


def test_a_quiet_voice_after_loud_music_is_read(talk: Talk, recognizer: Recognizer, tmp_path: Path) -> None:
    quiet = (talk[1] / 60).astype(np.int16)
    pause = (5 * noise(3)).astype(np.int16)
    write_wav(tmp_path / "quiet.wav", np.concatenate([3 * loud(music()), pause, quiet, pause]))
    found = transcribe(tmp_path / "quiet.wav", recognizer)
    assert len(found.segments) == 1
    assert found.segments[0].start < SECONDS + 3.3
    assert found.segments[0].end > SECONDS + 3 + len(quiet) / 16_000 - 0.3


def test_lips_are_read_where_the_audio_has_no_speech(talk: Talk, recognizer: Recognizer, tmp_path: Path) -> None:
    pictures, sound = talk
    for name in ("white noise", "silence"):
        write_video(tmp_path / "talk.mp4", pictures, audio=np.resize(loud(SOUNDS[name]), len(sound)))
        found = transcribe(tmp_path / "talk.mp4", recognizer)
        assert found.modality == "v"
        assert found.reason.startswith("without the audio: ")
        assert found.segments
        assert transcribe(tmp_path / "talk.mp4", recognizer, "av").segments


def test_lip_reading_does_not_use_the_detector(
    talk: Talk, recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, sound = talk
    write_video(tmp_path / "talk.mp4", pictures, audio=sound)
    read = transcribe(tmp_path / "talk.mp4", recognizer, "v")
    monkeypatch.setattr(speech_activity, "speech_probability", None)
    assert transcribe(tmp_path / "talk.mp4", recognizer, "v") == read
    assert transcribe(tmp_path / "talk.mp4", recognizer, vad="off").segments


def test_speech_is_read_as_without_the_detector(talk: Talk, recognizer: Recognizer, tmp_path: Path) -> None:
    pictures, sound = talk
    pause = np.zeros(40 * 640, np.int16)
    write_video(
        tmp_path / "talk.mp4",
        [*pictures, *np.repeat(pictures[-1:], 40, 0)] * 2,
        audio=np.tile(np.concatenate([sound, pause]), 2),
    )
    for modality in ("a", "av"):
        read, all_read = (transcribe(tmp_path / "talk.mp4", recognizer, modality, vad=vad) for vad in ("auto", "off"))
        assert read == all_read


def test_the_option_reaches_the_transcription(recognizer: Recognizer, tmp_path: Path) -> None:
    write_wav(tmp_path / "music.wav", loud(music()))
    file = MediaFile(tmp_path / "music.wav", Path("music.wav"))
    (found,) = transcribe_files([file], recognizer, BatchOptions(vad="off"))
    assert found.transcripts[0].transcript.segments
    with pytest.raises(ConfigError, match="unknown speech detection 'on'; known: auto, off"):
        Transcription(file.path, recognizer, vad="on")
