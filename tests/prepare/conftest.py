"""Thirty files as users have them: from phones, cameras and screen recordings, and files that are no videos."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.audio import read_audio
from avhubert.data.video import read_frames

LONG_SECONDS = float(os.environ.get("AVHUBERT_LONG_SECONDS", "180"))  # 7200 before a release
TURN_RIGHT = (0, 1, -1, 0)  # display matrix: rotate the stored frames by 90°

# words of the reason for rejection by file name; '' for usable files. Videos of several faces give more clips.
EXPECTED = {
    "01 plain.mp4": "",
    "02 portrait.mp4": "",
    "03 sixty.mp4": "",
    "04 variable.mp4": "",
    "05 two people.mp4": "",
    "06 leaves.mp4": "face in too few frames",
    "07 black second.mp4": "the video is black",
    "08 telephone.mp4": "",
    "09 mute.mp4": "no audio track",
    "10 picture.mp4": "no audio track",
    "11 empty.mp4": "cannot be read as a video",
    "12 truncated.mp4": "cannot be read as a video",
    "13 Zoë spricht – 日本.mp4": "",
    "14 surround.mkv": "",
    "15 web.webm": "",
    "16 old.avi": "",
    "17 camera.mov": "",
    "18 interlaced.mkv": "",
    "19 ten bits.mkv": "",
    "20 twenty-four.mp4": "",
    "21 small.mp4": "",
    "22 wide.mp4": "",
    "23 wall.mp4": "no face was found",
    "24 still.mp4": "the video is frozen",
    "25 sound goes on.mp4": "audio and video differ in length",
    "26 short.mp4": "too short",
    "27 text.mp4": "cannot be read as a video",
    "28 music.mp4": "no video track",
    "29 late sound.mkv": "",
    "30 long.mp4": "",
}


def write(
    path: Path,
    video_frames: Iterable[np.ndarray],
    audio: np.ndarray | None,
    times: np.ndarray | None = None,
    rate: Fraction = Fraction(25),
    codec: str = "libx264",
    form: str = "yuv420p",
    audio_codec: str = "aac",
    audio_rate: int = 16_000,
    layout: str = "mono",
    options: dict[str, str] | None = None,
    delay: float = 0.0,
    turned: bool = False,
) -> None:
    """Write RGB frames and int16 16 kHz mono audio in any container and codec."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.pix_fmt = form
        if times is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 90_000)
        voice = None
        if audio is not None:
            voice = out.add_stream(audio_codec, rate=audio_rate)
            voice.layout = layout
        for index, pixels in enumerate(video_frames):
            if index == 0:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format=form)
            if times is not None:
                frame.pts, frame.time_base = round(float(times[index]) * 90_000), Fraction(1, 90_000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if voice is not None and audio is not None:
            resampler = av.AudioResampler(voice.codec_context.format.name, layout, audio_rate)
            fifo = av.AudioFifo()
            for start in range(0, len(audio), 1024):
                frame = av.AudioFrame.from_ndarray(audio[None, start : start + 1024], format="s16", layout="mono")
                frame.sample_rate, frame.pts = 16_000, start
                for block in resampler.resample(frame):
                    block.pts = None
                    fifo.write(block)
            size, position = voice.codec_context.frame_size or 1024, round(delay * audio_rate)
            while (block := fifo.read(size, partial=True)) is not None:
                block.pts, block.time_base, block.sample_rate = position, Fraction(1, audio_rate), audio_rate
                position += block.samples
                out.mux(voice.encode(block))
            out.mux(voice.encode())
    if turned:
        turn(path)


def turn(path: Path) -> None:
    """Mark an mp4 as rotated to the right in its display matrix, as phones do."""
    content = path.read_bytes()
    fixed = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = (value << 16 & 0xFFFFFFFF for value in TURN_RIGHT)
    # the matrix of the movie comes first, then that of the video track
    at = content.index(fixed, content.index(fixed) + 1)
    path.write_bytes(content[:at] + struct.pack(">9I", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[at + 36 :])


def loop(source: Path, path: Path, seconds: float) -> None:
    """Repeat `source` without encoding, until the video lasts `seconds`."""
    with av.open(str(source)) as first, av.open(str(path), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in first.streams}
        packets = [
            (packet.stream.index, bytes(packet), packet.pts, packet.dts, packet.duration, packet.is_keyframe)
            for packet in first.demux()
            if packet.dts is not None
        ]
        bases = {stream.index: stream.time_base for stream in first.streams}
        length = max((pts + duration) * bases[index] for index, _, pts, _, duration, _ in packets)
        last_dts = dict.fromkeys(streams, -(1 << 40))
        for number in range(int(np.ceil(seconds / float(length)))):
            for index, content, pts, dts, duration, key in packets:
                shift = round(number * length / bases[index])
                if dts + shift <= last_dts[index]:  # audio that overlaps the next repetition
                    continue
                last_dts[index] = dts + shift
                packet = av.Packet(content)
                packet.pts, packet.dts, packet.duration = pts + shift, dts + shift, duration
                packet.time_base, packet.is_keyframe, packet.stream = bases[index], key, streams[index]
                out.mux(packet)


def make(root: Path, talks: list[tuple[np.ndarray, np.ndarray]], long_seconds: float) -> None:
    """The thirty files of `EXPECTED` under `root`, from two people's frames [T, 224, 224, 3] and audio [640 T]."""
    (video_frames, audio), (other, _) = talks
    count = len(video_frames)
    wall = np.random.default_rng(1).normal(90, 6, (count, 224, 224, 3)).astype(np.uint8)  # camera noise
    names = iter(EXPECTED)

    def path() -> Path:
        return root / next(names)

    def sampled(rate: float) -> np.ndarray:
        return video_frames[np.minimum((np.arange(int(count / 25 * rate)) / rate * 25).astype(int), count - 1)]

    write(path(), video_frames, audio)
    write(path(), np.rot90(video_frames, 1, (1, 2)), audio, turned=True)
    write(path(), sampled(60_000 / 1001), audio, rate=Fraction(60_000, 1001))
    intervals = np.random.default_rng(0).uniform(0.02, 0.06, 4 * count)
    times = np.cumsum(intervals) - intervals[0]
    times = times[times < count / 25 - 0.03]
    write(path(), video_frames[np.minimum((times * 25).astype(int), count - 1)], audio, times)
    shortest = min(count, len(other))
    write(path(), np.concatenate([video_frames[:shortest], other[:shortest]], 2), audio[: shortest * 640])
    write(path(), [*video_frames[: count // 2], *wall[count // 2 :]], audio)
    write(path(), [*video_frames[: count - 25], *[np.zeros_like(wall[0])] * 25], audio)
    write(path(), video_frames, audio, audio_rate=8_000)
    write(path(), video_frames, None)
    with av.open(str(path()), "w", format="image2", options={"update": "1"}) as out:  # a PNG with the suffix .mp4
        stream = out.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = 224, 224, "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(video_frames[0], format="rgb24")))
        out.mux(stream.encode())
    path().write_bytes(b"")
    content_of_plain = (root / "01 plain.mp4").read_bytes()
    path().write_bytes(content_of_plain[: len(content_of_plain) // 2])
    write(path(), video_frames, audio)
    write(path(), video_frames, audio, audio_codec="ac3", audio_rate=48_000, layout="5.1")
    write(path(), video_frames, audio, codec="libvpx-vp9", audio_codec="libopus", audio_rate=48_000,
          options={"cpu-used": "8", "deadline": "realtime"})  # fmt: skip
    write(path(), video_frames, audio, codec="mpeg4", audio_codec="mp3", audio_rate=44_100, layout="stereo")
    write(path(), video_frames, audio, codec="mjpeg", form="yuvj422p", audio_codec="pcm_s16be", audio_rate=44_100)
    write(path(), video_frames, audio, options={"x264-params": "tff=1"})
    write(path(), video_frames, audio, codec="libx265", form="yuv420p10le", options={"x265-params": "log-level=none"})
    write(path(), sampled(24), audio, rate=Fraction(24))
    write(path(), video_frames[:, ::2, ::2], audio)
    write(path(), np.pad(video_frames, ((0, 0), (0, 0), (160, 160), (0, 0)), constant_values=60), audio)
    write(path(), wall, audio)
    write(path(), [video_frames[0]] * count, audio)
    write(path(), video_frames, np.pad(audio, (0, 16_000)))
    write(path(), video_frames[:4], audio[: 4 * 640])
    path().write_text("my holiday, by email\n", encoding="utf-8")
    with av.open(str(path()), "w") as out:
        voice = out.add_stream("aac", rate=16_000)
        voice.layout = "mono"
        for start in range(0, len(audio), 1024):
            frame = av.AudioFrame.from_ndarray(audio[None, start : start + 1024], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, start
            out.mux(voice.encode(frame))
        out.mux(voice.encode())
    write(path(), video_frames, audio[3_200:], audio_codec="pcm_s16le", delay=0.2)
    loop(root / "01 plain.mp4", path(), long_seconds)


@dataclass(frozen=True)
class Messy:
    """The folder; words of the expected reason by file name, '' for usable files; length of the last file."""

    folder: Path
    expected: dict[str, str]
    long_seconds: float


@pytest.fixture(scope="session")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Messy:
    root = tmp_path_factory.mktemp("messy")
    make_corpus(root / "corpus", 4, speakers=2, seed=9)
    talks = []
    for path in sorted((root / "corpus").rglob("*.mp4"))[:2]:
        video_frames, audio = np.stack(list(read_frames(path))), read_audio(path)
        talks.append((video_frames, np.pad(audio, (0, len(video_frames) * 640))[: len(video_frames) * 640]))
    (root / "src").mkdir()
    make(root / "src", talks, LONG_SECONDS)
    return Messy(root / "src", EXPECTED, LONG_SECONDS)
