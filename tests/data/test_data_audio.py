"""Audio: filterbank and mixing equal the published values; audio is aligned by the timestamps of its container."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from python_speech_features import logfbank

from avhubert.data.audio import read_audio, write_wav
from avhubert.data.filterbank import audio_features, filterbank, normalise, stack_frames
from avhubert.data.noise import mix
from avhubert.errors import MediaError

pytestmark = pytest.mark.quick


def noise(count: int, seed: int = 0, level: float = 3000) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(count) * level).clip(-32768, 32767).astype(np.int16)


CASES = ("full32000", "odd30001", "short100", "exact400", "n401", "zeros8000", "loud_clipped32000")


@pytest.mark.parametrize("case", CASES)
def test_golden_filterbank_stacking_and_normalisation(golden, case: str) -> None:
    arrays = np.load(golden("audio_features.npz"))
    samples = arrays[f"{case}:wav"]
    features = filterbank(samples)
    assert features.dtype == torch.float64
    np.testing.assert_allclose(features, arrays[f"{case}:logfbank26_f64"], rtol=0, atol=1e-12)
    stacked = stack_frames(features.float())
    np.testing.assert_allclose(stacked, arrays[f"{case}:stack4_f32"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(audio_features(samples), arrays[f"{case}:stack4_layernorm"], rtol=0, atol=1e-6)


def test_golden_alignment_with_video(golden) -> None:
    arrays = np.load(golden("av_alignment.npz"))
    wav = np.load(golden("audio_features.npz"))
    compared = 0
    for name in arrays:
        match = re.fullmatch(r"audio_(\d+)samples_video(\d+)(_layernorm)?", name)
        assert match
        count, frames = int(match[1]), int(match[2])
        source = "odd30001:wav" if count == 30001 else "full32000:wav"
        samples = wav[source][:count]
        expected = arrays[name] if match[3] else normalise(torch.from_numpy(arrays[name])).numpy()
        features = audio_features(samples, frames)
        assert features.shape == (frames, 104)
        np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5)
        compared += 1
    assert compared == 10


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4000), st.integers(0, 2**31), st.sampled_from([1.0, 300.0, 32768.0]))
def test_filterbank_equals_python_speech_features(count: int, seed: int, level: float) -> None:
    samples = noise(count, seed, level)
    expected = logfbank(samples, samplerate=16000)
    np.testing.assert_allclose(filterbank(samples), expected, rtol=0, atol=1e-11)


def test_filterbank_computed_in_blocks_equals_one_block() -> None:
    samples = noise(5000 * 160)
    whole = filterbank(samples)
    part = filterbank(samples[: 4200 * 160])
    torch.testing.assert_close(whole[:4190], part[:4190], rtol=0, atol=1e-12)


def test_golden_mixtures(golden) -> None:
    arrays, draws = np.load(golden("add_noise.npz")), json.loads(golden("add_noise.json").read_text(encoding="utf-8"))
    noises = [arrays["noise_long"], arrays["noise_short"], arrays["noise_eq"]]
    by_name = dict(zip(("long", "short", "eq"), noises, strict=True))
    compared = 0
    for name in arrays:
        match = re.fullmatch(r"mix_(clean|clean_loud)_(long|short|eq)_snr(-?\d+)", name)
        if match:
            mixed = mix(arrays[match[1]], [by_name[match[2]]], int(match[3]))
        elif name.startswith("mix_"):
            draw = draws[name.removeprefix("mix_")]
            mixed = mix(arrays["clean"], [noises[i] for i in draw["noise_index"]], draw.get("snr", 0))
        else:
            continue
        np.testing.assert_array_equal(mixed, arrays[name], err_msg=name)
        compared += 1
    assert compared == 14


@pytest.mark.parametrize("snr", [-5, 0, 10])
def test_mixture_has_the_requested_snr(snr: int) -> None:
    speech, other = noise(16000, 0), noise(7000, 1, 500)
    added = mix(speech, [other], snr).astype(np.float64) - speech
    measured = 20 * np.log10(np.sqrt(np.mean(speech.astype(np.float64) ** 2)) / np.sqrt(np.mean(added**2)))
    assert measured == pytest.approx(snr, abs=0.01)


def test_silent_noise_or_silent_speech_leaves_the_speech_unchanged() -> None:
    speech, silence = noise(1000), np.zeros(300, np.int16)
    np.testing.assert_array_equal(mix(speech, [silence], 0), speech)
    np.testing.assert_array_equal(mix(np.zeros(1000, np.int16), [noise(300)], 0), np.zeros(1000))


def write(
    path: Path,
    samples: np.ndarray,
    codec: str,
    rate: int = 16000,
    layout: str = "mono",
    starts: tuple[tuple[float, int, int], ...] = (),
    video_from: float | None = None,
) -> Path:
    """Encode int16 [N] (the same in every channel); `starts`: (time, first, last) of segments of the samples."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = layout
        stream.time_base = Fraction(1, rate)
        if video_from is not None:
            video = container.add_stream("mpeg4", rate=25)
            video.width = video.height = 32
            for index in range(25):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 9 * index, np.uint8), "rgb24")
                frame.pts, frame.time_base = index + round(video_from * 25), Fraction(1, 25)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        for time, first, last in starts or ((0.0, 0, len(samples)),):
            channels = 2 if layout == "stereo" else 1
            for begin in range(first, last, 1024):
                interleaved = np.repeat(samples[begin : min(begin + 1024, last)], channels)[None]
                frame = av.AudioFrame.from_ndarray(interleaved, "s16", layout)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = round(time * rate) + begin - first
                for packet in stream.encode(frame):
                    container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def tone(seconds: float, rate: int, clicks: tuple[float, ...] = ()) -> np.ndarray:
    """A quiet hum with a burst of 5 ms at each of `clicks` (seconds)."""
    time = np.arange(round(seconds * rate)) / rate
    signal = 300 * np.sin(2 * np.pi * 200 * time)
    for click in clicks:
        burst = (time >= click) & (time < click + 0.005)
        signal[burst] += 15000 * np.sin(2 * np.pi * 1000 * (time[burst] - click))
    return signal.astype(np.int16)


def click_times(samples: np.ndarray) -> list[float]:
    loud = np.flatnonzero(np.abs(samples.astype(int)) > 5000)
    return [loud[0] / 16000, *(loud[1:][np.diff(loud) > 800] / 16000)]


def test_16_khz_wav_is_read_bit_for_bit(tmp_path) -> None:
    samples = noise(12345)
    write_wav(tmp_path / "a.wav", samples)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), samples)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", 0.25, 0.5), samples[4000:8000])
    (tmp_path / "a.wav").rename(tmp_path / "a.bin")  # without the fast path for .wav
    np.testing.assert_array_equal(read_audio(tmp_path / "a.bin"), samples)


def test_wav_bytes_depend_on_the_samples_only(tmp_path) -> None:
    for name in ("a.wav", "b.wav"):
        write_wav(tmp_path / name, noise(500))
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout"),
    [
        ("a.mp4", "aac", 16000, "mono"),
        ("a.mp4", "aac", 44100, "stereo"),
        ("a.mkv", "aac", 48000, "mono"),
        ("a.webm", "libopus", 48000, "stereo"),
        ("a.mp3", "libmp3lame", 22050, "mono"),
        ("a.flac", "flac", 8000, "mono"),
        ("a.wav", "pcm_s16le", 44100, "stereo"),
    ],
)
def test_audio_timing_is_preserved(tmp_path, name: str, codec: str, rate: int, layout: str) -> None:
    """Priming and resampling do not shift the audio (a codec's pre-echo may start a burst up to 3 ms early)."""
    clicks = (0.1, 0.5, 0.9)
    samples = read_audio(write(tmp_path / name, tone(1.2, rate, clicks), codec, rate, layout))
    assert click_times(samples) == pytest.approx(clicks, abs=0.004)
    assert 1.2 * 16000 - 5 <= len(samples) <= 1.2 * 16000 + 2400  # codecs pad their last packet


@pytest.mark.parametrize("layout", ["5.1", "7.1", "stereo"])
def test_any_channel_layout_is_read(tmp_path, layout: str) -> None:
    channels = {"stereo": 2, "5.1": 6, "7.1": 8}[layout]
    with av.open(str(tmp_path / "a.flac"), "w") as out:
        stream = out.add_stream("flac", rate=96000, layout=layout)
        interleaved = np.repeat(tone(1.0, 96000, (0.4,)), channels)[None]
        frame = av.AudioFrame.from_ndarray(interleaved, "s16", layout)
        frame.sample_rate = 96000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    samples = read_audio(tmp_path / "a.flac")
    assert abs(len(samples) - 16000) <= 5
    assert click_times(samples) == pytest.approx([0.4], abs=0.004)


@pytest.mark.parametrize(
    ("name", "codec", "rate"), [("a.mp4", "aac", 44100), ("a.mkv", "aac", 48000), ("a.flac", "flac", 8000)]
)
def test_part_of_a_file_has_the_timing_of_the_whole(tmp_path, name: str, codec: str, rate: int) -> None:
    clicks = (0.5, 3.1, 4.2, 5.5)
    path = write(tmp_path / name, tone(6.0, rate, clicks), codec, rate, video_from=0.0 if name == "a.mkv" else None)
    part = read_audio(path, 3.0, 5.0)
    assert len(part) == 32000
    assert click_times(part) == pytest.approx([0.1, 1.2], abs=0.004)
    with pytest.raises(MediaError, match=r"is empty from 9\.00 s on"):
        read_audio(path, 9.0)


def test_track_that_starts_late_is_padded(tmp_path) -> None:
    samples = tone(1.0, 16000, (0.1,))
    late = write(tmp_path / "late.mkv", samples, "pcm_s16le", starts=((0.4, 0, 16000),), video_from=0.0)
    padded = read_audio(late)
    assert click_times(padded) == pytest.approx([0.5], abs=0.002)
    assert not padded[:6300].any()


def test_times_are_relative_to_the_container_start(tmp_path) -> None:
    """A transport stream starts at 1.4 s; times of video and audio are relative to its earliest stream."""
    samples = tone(1.0, 48000, (0.1,))
    path = write(tmp_path / "a.ts", samples, "aac", 48000, starts=((0.4, 0, 48000),), video_from=0.0)
    assert click_times(read_audio(path)) == pytest.approx([0.5], abs=0.003)


def test_gap_in_the_timestamps_is_filled_with_zeros(tmp_path) -> None:
    samples = tone(1.0, 16000, (0.1, 0.6))
    path = write(tmp_path / "gap.mkv", samples, "pcm_s16le", starts=((0.0, 0, 8192), (1.0, 8192, 16000)))
    filled = read_audio(path)
    assert click_times(filled) == pytest.approx([0.1, 0.6 + 1.0 - 8192 / 16000], abs=0.002)
    assert not filled[8200:15990].any()


@pytest.mark.parametrize("name", ["50%: a b.wav", "ünï.mp4", "http:x.mkv"])
def test_unusual_file_names_are_read(tmp_path, name: str) -> None:
    codec = {".wav": "pcm_s16le", ".mp4": "aac", ".mkv": "aac"}[Path(name).suffix]
    plain = write(tmp_path / f"plain{Path(name).suffix}", tone(0.5, 16000), codec)
    plain.rename(tmp_path / name)
    assert len(read_audio(tmp_path / name)) >= 8000


def test_missing_file_is_an_error(tmp_path) -> None:
    with pytest.raises(MediaError, match=r"a\.mp4: there is no such file"):
        read_audio(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match="there is no such file"):
        read_audio(tmp_path)


@pytest.mark.parametrize("name", ["a.mp4", "a.wav"])
def test_file_that_is_not_media_is_an_error(tmp_path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is not audio" * 100)
    with pytest.raises(MediaError, match=f"cannot read the audio of .*{name}: Invalid data"):
        read_audio(tmp_path / name)


def test_missing_audio_track_is_an_error(tmp_path) -> None:
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match=r"silent\.mp4 has no audio track"):
        read_audio(path)


def test_timestamps_that_span_many_hours_are_an_error(tmp_path) -> None:
    path = write(tmp_path / "a.mkv", tone(1.0, 16000), "pcm_s16le", starts=((0.0, 0, 8192), (4e6, 8192, 16000)))
    with pytest.raises(MediaError, match=r"the audio of .*a\.mkv lasts 1111 hours according to its timestamps"):
        read_audio(path)


def test_empty_track_is_an_error(tmp_path) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(0, np.int16))
    with pytest.raises(MediaError, match=r"the audio track of .*a\.wav is empty"):
        read_audio(tmp_path / "a.wav")


def test_invalid_start_or_end_is_an_error(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.ones(16_000, np.int16))
    for start, end in ((-1.0, None), (2.0, 1.0), (0.5, 0.5)):
        with pytest.raises(MediaError, match=f"from {start} s to {end} s: the start must be at least 0"):
            read_audio(tmp_path / "a.wav", start, end)
