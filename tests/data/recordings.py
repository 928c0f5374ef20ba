"""Small recordings that tests generate: any container, codecs, channels, times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def speech(seconds: float, rate: int = 16_000) -> np.ndarray:
    """int16 [N]: a tone whose level changes like that of speech, with a little noise."""
    time = np.arange(round(seconds * rate)) / rate
    tone = 6000 * np.sin(2 * np.pi * 200 * time) * np.maximum(0, np.sin(2 * np.pi * 2 * time))
    return (tone + 20 * np.random.default_rng(0).standard_normal(len(time))).astype(np.int16)


def moving(index: int, width: int = 160, height: int = 64) -> np.ndarray:
    """uint8 [H, W, 3]: frame `index` of a video that moves; white up to a column that grows by one each frame."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, : index % width] = 255
    return frame


def still(index: int, width: int = 160, height: int = 64) -> np.ndarray:
    """uint8 [H, W, 3]: the same gray frame for each index."""
    return np.full((height, width, 3), 90, np.uint8)


class Recording:
    """A media file that is written stream by stream and frame by frame."""

    def __init__(self, path: Path, form: str | None = None, **options: str) -> None:
        self.path = path
        self.container = av.open(str(path), "w", format=form, options=options)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *error: object) -> None:
        self.container.close()

    def audio_stream(self, codec: str = "aac", rate: int = 16_000, layout: str = "mono") -> av.AudioStream:
        stream = self.container.add_stream(codec, rate=rate)
        stream.layout = layout
        return stream

    def video_stream(self, codec: str = "mpeg4", width: int = 160, height: int = 64, **options: str) -> av.VideoStream:
        stream = self.container.add_stream(codec, rate=25, options={"g": "25", **options})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        return stream

    def write_audio(self, stream: av.AudioStream, samples: np.ndarray, start: float = 0.0, last: bool = True) -> None:
        """Write int16 [N] or [N, channels]."""
        rate = stream.rate
        layout = stream.layout.name
        for first in range(0, len(samples), 1024):
            block = np.ascontiguousarray(samples[first : first + 1024]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(block, "s16", layout)
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = round(start * rate) + first
            self.container.mux(stream.encode(frame))
        if last:
            self.container.mux(stream.encode(None))

    def write_video(self, stream: av.VideoStream, frames: list[np.ndarray], start: float = 0.0) -> None:
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base, frame.pts = Fraction(1, 25), index + round(25 * start)
            self.container.mux(stream.encode(frame))
        self.container.mux(stream.encode(None))

    def write_both(self, audio: av.AudioStream, video: av.VideoStream, seconds: float, start: float = 0.0) -> None:
        """Speech and a moving video, interleaved."""
        samples = speech(seconds, audio.rate)
        if audio.layout.nb_channels == 2:
            samples = np.stack([samples, samples], 1)
        step = audio.rate // 25
        for index in range(round(25 * seconds)):
            frame = av.VideoFrame.from_ndarray(moving(index), format="rgb24")
            frame.time_base, frame.pts = Fraction(1, 25), index + round(25 * start)
            self.container.mux(video.encode(frame))
            if index % 25 == 0:
                part = samples[index * step : (index + 25) * step]
                self.write_audio(audio, part, start + index / 25, last=False)
        self.container.mux(video.encode(None))
        self.container.mux(audio.encode(None))


def audio_file(path: Path, samples: np.ndarray, codec: str, rate: int = 16_000, layout: str = "mono") -> Path:
    """Write a file with one audio stream."""
    with Recording(path) as recording:
        recording.write_audio(recording.audio_stream(codec, rate, layout), samples)
    return path


def break_packets(path: Path, numbers: range | None = None, kind: str = "audio") -> None:
    """Overwrite packets of a stream of an mp4 file, by default all, with bytes that cannot be decoded."""
    with av.open(str(path)) as container:
        packets = [
            (packet.pos, packet.size)
            for packet in container.demux(**{kind: 0})
            if packet.size and packet.pos is not None
        ]
    content = bytearray(path.read_bytes())
    for position, size in packets if numbers is None else [packets[number] for number in numbers]:
        content[position : position + size] = b"\xff" * size
    path.write_bytes(content)
