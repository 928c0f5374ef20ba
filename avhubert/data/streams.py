"""Which of several audio or video streams of a file is read: the default one, if it has sound or moves."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from avhubert.data.media import DamageLog, FileIdentity, StreamChoice, StreamKind, file_identity, open_container
from avhubert.data.packets import NothingDecodedError, SelectStream, StreamDecoder
from avhubert.errors import MediaError

# a picture of a file rather than one of its moving streams
PICTURE = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
SECONDARY = Disposition.visual_impaired | Disposition.comment | Disposition.descriptions  # audio beside the main one

SAMPLED_PARTS = (0.05, 0.25, 0.45, 0.65, 0.85)  # of the length; where streams are compared
AUDIO_SECONDS = 4.0  # of each part
VIDEO_FRAMES = 12  # of each part
THUMBNAIL = 64  # width and height in pixels at which frames are compared
LEVEL_SECONDS = 0.025
SILENT_LEVEL = -60.0  # dB relative to full scale; a stream that is never louder is silent
SPEECH_SPREAD = 6.0  # dB; standard deviation of the level, below which a stream is steady noise rather than speech
MOVING = 0.05  # gray levels by which the frames of a moving video differ, median over pairs of frames


@dataclass(frozen=True)
class Activity:
    """What a stream contains.

    Attributes:
        rank: 0: silent or still; 1: steady noise; 2: speech-like sound or moving video.
        problem: What is wrong with it, in words; '' if nothing is.
    """

    rank: int
    problem: str = ""


def candidates(container: av.container.InputContainer, kind: StreamKind) -> list[int]:
    """Positions of the streams of a kind that can be decoded, without cover images."""
    streams: list[Any] = list(getattr(container.streams, kind))
    return [
        index
        for index, stream in enumerate(streams)
        if stream.codec_context is not None and not (kind == "video" and stream.disposition & PICTURE)
    ]


def selector(path: str | Path, kind: StreamKind, choice: StreamChoice, damage: DamageLog | None) -> SelectStream:
    """A function that chooses the stream of a file; what it chooses among several is recorded in `damage`."""

    def select(container: av.container.InputContainer) -> int:
        return select_stream(container, path, kind, choice, damage)

    return select


def select_stream(
    container: av.container.InputContainer,
    path: str | Path,
    kind: StreamKind,
    choice: StreamChoice,
    damage: DamageLog | None = None,
) -> int:
    """Position of the stream that is read among the streams of its kind.

    Raises:
        MediaError: the file has no such stream.
    """
    requested = choice.audio if kind == "audio" else choice.video
    if requested is not None:
        _check(path, kind, requested, getattr(container.streams, kind))
        return requested
    streams = candidates(container, kind)
    if not streams:
        raise MediaError(f"{path} has no {kind} track", kind=f"no {kind} track", path=path)
    if len(streams) == 1:
        return streams[0]
    defaults = tuple(_preference(getattr(container.streams, kind)[index]) for index in streams)
    index, why = _choose(file_identity(path), kind, tuple(streams), defaults)
    if damage is not None:
        damage.note(
            f"the file has {len(streams)} {kind} streams; stream {index} is read{why}; --{kind}-stream chooses another"
        )
    return index


def _check(path: str | Path, kind: StreamKind, requested: int, streams: Any) -> None:
    if not 0 <= requested < len(streams):
        number = f"{len(streams)} {kind} stream" + ("" if len(streams) == 1 else "s")
        raise MediaError(
            f"{path} has {number}; --{kind}-stream {requested} does not exist, positions start at 0",
            kind=f"no {kind} track",
            path=path,
        )
    if streams[requested].codec_context is None:
        raise MediaError(
            f"{kind} stream {requested} of {path} has a codec that cannot be decoded; convert the file with FFmpeg",
            kind=f"no {kind} track",
            path=path,
        )


def _preference(stream: Any) -> int:
    """Streams with a higher number are preferred if their activity is the same."""
    return 2 * (not stream.disposition & SECONDARY) + bool(stream.disposition & Disposition.default)


@lru_cache(maxsize=1024)
def _choose(
    identity: FileIdentity, kind: StreamKind, streams: tuple[int, ...], preference: tuple[int, ...]
) -> tuple[int, str]:
    """The stream of a file and, in words, why not another one. Decodes a few seconds of every stream."""
    path = identity[0]
    measure = _audio_activity if kind == "audio" else _video_activity
    activity = {index: measure(path, index) for index in streams}
    wish = dict(zip(streams, preference, strict=True))
    best = max(streams, key=lambda index: (activity[index].rank, wish[index], -index))
    reasons = []
    for index in streams:
        if index != best and activity[index].rank < activity[best].rank:
            reasons.append(f"stream {index} {activity[index].problem}")
        elif index < best and wish[index] < wish[best]:
            reasons.append("it is the default")
    return best, f" ({', '.join(dict.fromkeys(reasons))})" if reasons else ""


def _audio_activity(path: str, index: int) -> Activity:
    levels: list[float] = []
    for frames in _parts(path, "audio", index):
        first: Fraction | None = None
        for timed in frames:
            first = timed.time if first is None else first
            samples = _float_samples(timed.frame)
            step = max(1, round(timed.frame.sample_rate * LEVEL_SECONDS))
            for begin in range(0, len(samples), step):
                levels.append(_decibels(samples[begin : begin + step]))
            if len(levels) * LEVEL_SECONDS > AUDIO_SECONDS * len(SAMPLED_PARTS):
                break
            if timed.time is not None and first is not None and timed.time - first > AUDIO_SECONDS:
                break
    if not levels:
        return Activity(0, "cannot be decoded")
    if np.percentile(levels, 95) < SILENT_LEVEL:
        return Activity(0, "is silent")
    if np.std(np.maximum(levels, SILENT_LEVEL)) < SPEECH_SPREAD:
        return Activity(1, "has steady sound")
    return Activity(2)


def _float_samples(frame: av.AudioFrame) -> np.ndarray:
    """Mean square over the channels has the meaning of a level: float [N · C], full scale 1."""
    samples = frame.to_ndarray()
    if samples.dtype.kind == "u":
        samples = samples.astype(np.float64) - 128
        return (samples / 128).ravel()
    scale = 1.0 if samples.dtype.kind == "f" else float(np.iinfo(samples.dtype.name).max)
    return (samples.astype(np.float64) / scale).ravel()


def _decibels(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(samples)) + 1e-12))


def _video_activity(path: str, index: int) -> Activity:
    convert = VideoReformatter()
    changes: list[float] = []
    for frames in _parts(path, "video", index):
        previous = None
        for timed in islice(frames, VIDEO_FRAMES):
            image = convert.reformat(timed.frame, width=THUMBNAIL, height=THUMBNAIL, format="gray").to_ndarray()
            current = image.astype(np.int16)
            if previous is not None:
                changes.append(float(np.abs(current - previous).mean()))
            previous = current
    if not changes:
        return Activity(0, "is a single image")
    return Activity(2) if np.median(changes) >= MOVING else Activity(0, "is still")


def _parts(path: str, kind: StreamKind, index: int) -> Any:
    """Iterators over frames at several times of a stream, or one iterator if the length is unknown."""

    def select(container: av.container.InputContainer) -> int:
        return index

    with open_container(path) as container:
        seconds = Fraction(container.duration or 0, av.time_base)
    starts = (
        [Fraction(share).limit_denominator(100) * seconds for share in SAMPLED_PARTS] if seconds > 20 else [Fraction(0)]
    )
    for start in starts:
        decoder: StreamDecoder[Any] = StreamDecoder(path, kind, select)
        frames = decoder.frames(start)
        yield _without_errors(frames)
        frames.close()


def _without_errors(frames: Any) -> Any:
    with contextlib.suppress(FFmpegError, OSError, NothingDecodedError):
        yield from frames
