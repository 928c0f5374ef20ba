"""Audio and video stay in sync over ten minutes at every frame rate: frames show their number, tones mark times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avhubert.data.audio import read_audio
from avhubert.data.video import read_frames

MINUTES = 10
RATE = 44_100
TONES = [2.0 + 10 * i + 0.0137 * i for i in range(6 * MINUTES - 1)]  # seconds
MAX_OFFSET = 0.020  # seconds between audio and video
EIGHT = np.ones((8, 8), np.uint8)
BITS = 16  # a frame has 4 × 4 black or white squares, which are the bits of its number


def write_film(path: Path, times: np.ndarray, codec: str) -> None:
    """Write frames at `times` (seconds) that show their number, and tones of 0.2 s."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=60, options={"preset": "ultrafast", "threads": "1", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 120_000)
        audio = out.add_stream(codec, rate=RATE)
        audio.layout = "stereo"
        for number, time in enumerate(times):
            squares = np.where(number >> np.arange(BITS) & 1, 235, 16).astype(np.uint8).reshape(4, 4)
            frame = av.VideoFrame(32, 32, "yuv420p")
            for plane, values in zip(
                frame.planes, (np.kron(squares, EIGHT), *[np.full((16, 16), 128)] * 2), strict=True
            ):
                content = np.zeros((plane.height, plane.line_size), np.uint8)
                content[:, : values.shape[1]] = values
                plane.update(content.tobytes())
            frame.pts, frame.time_base = round(float(time) * 120_000), Fraction(1, 120_000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        samples = np.zeros(RATE * 60 * MINUTES, np.int16)
        for event in TONES:
            first = round(event * RATE)
            samples[first : first + RATE // 5] = 12_000 * np.sin(np.arange(RATE // 5) * 2 * np.pi * 1000 / RATE)
        step = 1024
        for start in range(0, len(samples) // step * step, step):
            part = np.repeat(samples[None, start : start + step], 2, 0)
            if codec == "aac":
                part = part.astype(np.float32) / 32768
            else:
                part = np.ascontiguousarray(part.T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(part, format="fltp" if codec == "aac" else "s16", layout="stereo")
            frame.sample_rate, frame.pts = RATE, start
            out.mux(audio.encode(frame))
        out.mux(audio.encode())


def onsets(active: np.ndarray, rate: float) -> np.ndarray:
    """Seconds at which bool [N] becomes true after 0.1 s of false."""
    index = np.flatnonzero(active)
    return index[np.diff(index, prepend=-rate) > 0.1 * rate] / rate


def times_at(rate: float | None) -> np.ndarray:
    if rate is not None:
        return np.arange(int(60 * MINUTES * rate)) / rate
    gaps = np.random.default_rng(0).uniform(1 / 60, 1 / 15, 40 * 60 * MINUTES)  # like a phone in low light
    times = np.cumsum(gaps) - gaps[0]
    return times[times < 60 * MINUTES]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [24, 29.97, 59.94, None])
def test_audio_and_video_stay_in_sync_for_ten_minutes(tmp_path: Path, rate: float | None) -> None:
    codec, ending = ("aac", "mp4") if rate != 24 else ("pcm_s16le", "mkv")
    path = tmp_path / f"film.{ending}"
    exact = None if rate is None else {29.97: 30_000 / 1001, 59.94: 60_000 / 1001}.get(rate, rate)
    times = times_at(exact)
    write_film(path, times, codec)
    powers = 1 << np.arange(BITS)
    numbers = np.array([(frame[4::8, 4::8, 0] > 127).reshape(-1) @ powers for frame in read_frames(path)])
    error = times[numbers] - np.arange(len(numbers)) / 25
    tones = onsets(np.abs(read_audio(path).astype(int)) > 3000, 16_000)
    audio_error = tones - np.array(TONES)
    print(
        f"{rate}: error of {len(numbers)} frames: median {1000 * np.median(np.abs(error)):.1f} ms, maximum "
        f"{1000 * np.abs(error).max():.1f}; of {len(tones)} tones: maximum {1000 * np.abs(audio_error).max():.1f}"
    )
    assert abs(len(numbers) - 60 * MINUTES * 25) <= 1
    assert np.abs(audio_error).max() < 0.004
    offset = np.median(np.abs(error)) + np.abs(audio_error).max()
    assert offset <= MAX_OFFSET
    # the error of the nearest source frame is at most half the distance between two of them
    assert np.abs(error[:-1]).max() <= np.diff(times).max() / 2 + 1e-4
    assert abs(error[: len(error) // 2].mean() - error[len(error) // 2 :].mean()) < 0.001  # no drift
