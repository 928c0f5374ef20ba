"""Generated media files: healthy ones in many formats, and ways to break them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.faults import mutations

SECONDS = 1.6
RATE = 25


@dataclass(frozen=True)
class Format:
    """A container with its codecs; "" leaves a stream out."""

    suffix: str
    video: str
    audio: str


FORMATS = (
    Format(".mp4", "libx264", "aac"),
    Format(".mp4", "mpeg4", "aac"),
    Format(".mkv", "libx264", "flac"),
    Format(".avi", "mpeg4", "mp3"),
    Format(".ts", "mpeg2video", "mp2"),
    Format(".mpg", "mpeg2video", "mp2"),
    Format(".mov", "mjpeg", "pcm_s16le"),
    Format(".webm", "libvpx", "libopus"),
    Format(".mkv", "libvpx", "libopus"),
    Format(".wav", "", "pcm_s16le"),
    Format(".mp3", "", "mp3"),
    Format(".flac", "", "flac"),
    Format(".ogg", "", "libopus"),
    Format(".m4a", "", "aac"),
)


def tone(rng: random.Random, channels: int = 1) -> np.ndarray:
    """Float samples [channels, N] of a wavering tone."""
    time = np.arange(int(SECONDS * 16_000)) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * rng.uniform(200, 600) * time) * np.sin(7 * time)
    return np.tile(wave, (channels, 1)).astype(np.float32)


def write(
    path: Path,
    form: Format,
    pictures: Sequence[np.ndarray],
    samples: np.ndarray,
    rate: Fraction | int = RATE,
    first_pts: int = 0,
    options: dict[str, str] | None = None,
) -> None:
    """Write pictures [H, W, 3] and float samples; `first_pts` of the video may be negative."""
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream(form.video, rate=rate) if form.video and len(pictures) else None
        if video is not None:
            video.height, video.width = pictures[0].shape[:2]
            video.pix_fmt = "yuvj420p" if form.video == "mjpeg" else "yuv420p"
        audio = (
            container.add_stream(form.audio, rate=48_000 if form.audio == "libopus" else 16_000) if form.audio else None
        )
        for number, picture in enumerate(pictures if video is not None else ()):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = number + first_pts, 1 / Fraction(rate)
            container.mux(video.encode(frame))
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(samples, "fltp", "stereo" if len(samples) > 1 else "mono")
            frame.rate, frame.pts = 16_000, 0
            resampler = av.AudioResampler(audio.format, audio.layout, audio.rate)
            fifo = av.AudioFifo()
            for part in resampler.resample(frame):
                fifo.write(part)
            size = audio.codec_context.frame_size or 1024
            while (part := fifo.read(size) or fifo.read(size, partial=True)) is not None:
                container.mux(audio.encode(part))
        for stream in (video, audio):
            if stream is not None:
                container.mux(stream.encode(None))


# --------------------------------------------------------------------------- contents
def faces(picture: np.ndarray, count: int) -> np.ndarray:
    """A picture with `count` of the face in `picture` beside each other; 0: noise."""
    if count == 0:
        return np.random.default_rng(0).integers(0, 255, picture.shape, np.uint8)
    small = picture[:: 2 if count > 2 else 1, :: 2 if count > 2 else 1]
    rows = [np.concatenate([small] * min(3, count - start), 1) for start in range(0, count, 3)]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    joined = np.concatenate(padded, 0)
    return np.ascontiguousarray(joined[: joined.shape[0] // 2 * 2, : joined.shape[1] // 2 * 2])


def strange_samples(samples: np.ndarray, rng: random.Random) -> tuple[str, np.ndarray]:
    """Sound that is clipped, silent, very short, or not finite (in a float wav)."""
    kind = rng.choice(("clipped", "silent", "NaN", "infinite", "constant", "one sample"))
    changed = samples.copy()
    if kind == "clipped":
        changed = np.sign(changed).astype(np.float32)
    elif kind == "silent":
        changed[:] = 0
    elif kind == "constant":
        changed[:] = 1
    elif kind == "one sample":
        changed = changed[:, :1]
    else:
        changed[:, :: rng.choice((1, 7, 1000))] = np.nan if kind == "NaN" else np.inf
    return kind, changed


def float_wav(samples: np.ndarray) -> bytes:
    """A wav of 32-bit floats, which may be NaN."""
    data = samples.T.astype("<f4").tobytes()
    channels = len(samples)
    form = struct.pack("<HHIIHH", 3, channels, 16_000, 16_000 * 4 * channels, 4 * channels, 32)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


# --------------------------------------------------------------------------- damage to the bytes
def lying_header(data: bytes, rng: random.Random) -> bytes:
    """A number in the header becomes 0, huge, negative or random."""
    header = min(len(data) - 4, 2000)
    position = rng.randrange(max(1, header))
    value = rng.choice((0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, rng.getrandbits(32)))
    return data[:position] + struct.pack(rng.choice(("<I", ">I")), value) + data[position + 4 :]


def edit_list(data: bytes, rng: random.Random) -> bytes:
    """The times in an mp4's edit lists and its time scales become others."""
    changed = bytearray(data)
    for name in (b"elst", b"mvhd", b"mdhd", b"stts", b"ctts", b"stsz", b"stco", b"tkhd"):
        position = data.find(name)
        if position > 0 and rng.random() < 0.5:
            offset = position + 4 + 4 * rng.randint(1, 5)
            value = rng.choice((0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 1_000_000))
            changed[offset : offset + 4] = struct.pack(">I", value)
    return bytes(changed)


def cover_art(data: bytes, rng: random.Random) -> bytes:
    """An ID3 tag with a picture, or with a damaged one, before the file."""
    picture = rng.choice((b"\x89PNG\r\n\x1a\n" + bytes(50), b"\xff\xd8\xff\xe0" + bytes(3000), rng.randbytes(500), b""))
    body = b"\0image/png\0\x03\xff\0" + picture
    frame = b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    size = len(frame) if rng.random() < 0.7 else 0x0FFFFFFF
    return b"ID3\x03\0\0" + bytes((size >> shift) & 127 for shift in (21, 14, 7, 0)) + frame + data


DAMAGE: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    mutations.flip, mutations.flip_many, mutations.flip_many, mutations.flip_head, mutations.zeros, mutations.delete,
    mutations.insert, mutations.repeat, mutations.other_file, lying_header, lying_header, lying_header, edit_list,
    edit_list, cover_art,
)  # fmt: skip
