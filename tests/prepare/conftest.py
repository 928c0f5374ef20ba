"""Thirty files as people have them: phones, cameras, screen recordings, and things that only look like videos."""

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
TURN_RIGHT = (0, 1, -1, 0)  # a display matrix: the stored picture is to be turned by 90°

# name → words of the reason for which it is left out; '' for what is used. Clips of several faces have one more each.
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
    pictures: Iterable[np.ndarray],
    sound: np.ndarray | None,
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
    """RGB pictures and int16 16 kHz mono sound in any container and codec."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.pix_fmt = form
        if times is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 90_000)
        voice = None
        if sound is not None:
            voice = out.add_stream(audio_codec, rate=audio_rate)
            voice.layout = layout
        for index, picture in enumerate(pictures):
            if index == 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format=form)
            if times is not None:
                frame.pts, frame.time_base = round(float(times[index]) * 90_000), Fraction(1, 90_000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if voice is not None and sound is not None:
            resampler = av.AudioResampler(voice.codec_context.format.name, layout, audio_rate)
            fifo = av.AudioFifo()
            for place in range(0, len(sound), 1024):
                frame = av.AudioFrame.from_ndarray(sound[None, place : place + 1024], format="s16", layout="mono")
                frame.sample_rate, frame.pts = 16_000, place
                for made in resampler.resample(frame):
                    made.pts = None
                    fifo.write(made)
            size, done = voice.codec_context.frame_size or 1024, round(delay * audio_rate)
            while (made := fifo.read(size, partial=True)) is not None:
                made.pts, made.time_base, made.sample_rate = done, Fraction(1, audio_rate), audio_rate
                done += made.samples
                out.mux(voice.encode(made))
            out.mux(voice.encode())
    if turned:
        turn(path)


def turn(path: Path) -> None:
    """Write 'turn me to the right' into the display matrix of an mp4, as phones do."""
    content = path.read_bytes()
    fixed = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = (value << 16 & 0xFFFFFFFF for value in TURN_RIGHT)
    # the film's own matrix comes first, then the picture track's
    at = content.index(fixed, content.index(fixed) + 1)
    path.write_bytes(content[:at] + struct.pack(">9I", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[at + 36 :])


def loop(source: Path, path: Path, seconds: float) -> None:
    """`source` again and again without encoding, until it lasts `seconds`."""
    with av.open(str(source)) as first, av.open(str(path), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in first.streams}
        kept = [
            (packet.stream.index, bytes(packet), packet.pts, packet.dts, packet.duration, packet.is_keyframe)
            for packet in first.demux()
            if packet.dts is not None
        ]
        bases = {stream.index: stream.time_base for stream in first.streams}
        lasts = max((pts + duration) * bases[index] for index, _, pts, _, duration, _ in kept)
        before = dict.fromkeys(streams, -(1 << 40))
        for number in range(int(np.ceil(seconds / float(lasts)))):
            for index, content, pts, dts, duration, key in kept:
                shift = round(number * lasts / bases[index])
                if dts + shift <= before[index]:  # sound that reaches into the next round
                    continue
                before[index] = dts + shift
                packet = av.Packet(content)
                packet.pts, packet.dts, packet.duration = pts + shift, dts + shift, duration
                packet.time_base, packet.is_keyframe, packet.stream = bases[index], key, streams[index]
                out.mux(packet)


def make(root: Path, talks: list[tuple[np.ndarray, np.ndarray]], long_seconds: float) -> None:
    """The thirty files of `EXPECTED` under `root`, from two people's pictures [T, 224, 224, 3] and sound [640 T]."""
    (pictures, sound), (other, _) = talks
    count = len(pictures)
    wall = np.random.default_rng(1).normal(90, 6, (count, 224, 224, 3)).astype(np.uint8)  # a camera's noise
    names = iter(EXPECTED)

    def path() -> Path:
        return root / next(names)

    def sampled(rate: float) -> np.ndarray:
        return pictures[np.minimum((np.arange(int(count / 25 * rate)) / rate * 25).astype(int), count - 1)]

    write(path(), pictures, sound)
    write(path(), np.rot90(pictures, 1, (1, 2)), sound, turned=True)
    write(path(), sampled(60_000 / 1001), sound, rate=Fraction(60_000, 1001))
    gaps = np.random.default_rng(0).uniform(0.02, 0.06, 4 * count)
    times = np.cumsum(gaps) - gaps[0]
    times = times[times < count / 25 - 0.03]
    write(path(), pictures[np.minimum((times * 25).astype(int), count - 1)], sound, times)
    both = min(count, len(other))
    write(path(), np.concatenate([pictures[:both], other[:both]], 2), sound[: both * 640])
    write(path(), [*pictures[: count // 2], *wall[count // 2 :]], sound)
    write(path(), [*pictures[: count - 25], *[np.zeros_like(wall[0])] * 25], sound)
    write(path(), pictures, sound, audio_rate=8_000)
    write(path(), pictures, None)
    with av.open(str(path()), "w", format="image2", options={"update": "1"}) as out:  # a png renamed mp4
        stream = out.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = 224, 224, "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(pictures[0], format="rgb24")))
        out.mux(stream.encode())
    path().write_bytes(b"")
    whole = (root / "01 plain.mp4").read_bytes()
    path().write_bytes(whole[: len(whole) // 2])
    write(path(), pictures, sound)
    write(path(), pictures, sound, audio_codec="ac3", audio_rate=48_000, layout="5.1")
    write(path(), pictures, sound, codec="libvpx-vp9", audio_codec="libopus", audio_rate=48_000,
          options={"cpu-used": "8", "deadline": "realtime"})  # fmt: skip
    write(path(), pictures, sound, codec="mpeg4", audio_codec="mp3", audio_rate=44_100, layout="stereo")
    write(path(), pictures, sound, codec="mjpeg", form="yuvj422p", audio_codec="pcm_s16be", audio_rate=44_100)
    write(path(), pictures, sound, options={"x264-params": "tff=1"})
    write(path(), pictures, sound, codec="libx265", form="yuv420p10le", options={"x265-params": "log-level=none"})
    write(path(), sampled(24), sound, rate=Fraction(24))
    write(path(), pictures[:, ::2, ::2], sound)
    write(path(), np.pad(pictures, ((0, 0), (0, 0), (160, 160), (0, 0)), constant_values=60), sound)
    write(path(), wall, sound)
    write(path(), [pictures[0]] * count, sound)
    write(path(), pictures, np.pad(sound, (0, 16_000)))
    write(path(), pictures[:4], sound[: 4 * 640])
    path().write_text("my holiday, by email\n")
    with av.open(str(path()), "w") as out:
        voice = out.add_stream("aac", rate=16_000)
        voice.layout = "mono"
        for place in range(0, len(sound), 1024):
            frame = av.AudioFrame.from_ndarray(sound[None, place : place + 1024], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, place
            out.mux(voice.encode(frame))
        out.mux(voice.encode())
    write(path(), pictures, sound[3_200:], audio_codec="pcm_s16le", delay=0.2)
    loop(root / "01 plain.mp4", path(), long_seconds)


@dataclass(frozen=True)
class Messy:
    """The folder; name → words of the reason, '' for what is used; how long the last file is."""

    folder: Path
    expected: dict[str, str]
    long_seconds: float


@pytest.fixture(scope="session")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Messy:
    root = tmp_path_factory.mktemp("messy")
    make_corpus(root / "corpus", 4, speakers=2, seed=9)
    talks = []
    for path in sorted((root / "corpus").rglob("*.mp4"))[:2]:
        pictures, sound = np.stack(list(read_frames(path))), read_audio(path)
        talks.append((pictures, np.pad(sound, (0, len(pictures) * 640))[: len(pictures) * 640]))
    (root / "src").mkdir()
    make(root / "src", talks, LONG_SECONDS)
    return Messy(root / "src", EXPECTED, LONG_SECONDS)
