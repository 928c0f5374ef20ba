"""Cuts long videos without a transcript: between scenes, and where the audio is quietest."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from avhubert.constants import SAMPLE_RATE
from avhubert.data.audio import read_audio
from avhubert.data.video import probe, thumbnails
from avhubert.errors import ConfigError, MediaError
from avhubert.files import cache_directory, write_text
from avhubert.report import progress

_log = logging.getLogger(__name__)

LONGEST_SECONDS = 15.0  # longer videos are cut between scenes, and longer scenes …
SHORTEST_SECONDS = 5.0  # … into pieces of at least this length …
WINDOW_SECONDS = 0.2  # … where a window of this length is quietest
THUMBNAIL = 32  # pixels; width and height of the frames in which scene changes are detected
SCENE_CHANGE = 12.0  # mean change in gray levels between two frames that can be a scene change …
SCENE_RATIO = 4.0  # … if it also exceeds the usual change by this factor
CACHE_VERSION = 1  # increase it when the above changes, so that cached cuts are not reused
BLOCK_SECONDS = 600  # of audio that is read at once
LEVELS_PER_SECOND = 25

Cut = tuple[float, float | None]  # start and end in seconds; None: until the end of the video


def cut_long_videos(videos: Sequence[Path]) -> dict[Path, list[Cut]]:
    """`cut` of each long video, several in parallel; cached in the user's cache folder, since it reads whole videos.

    Videos that cannot be read are not in the result: preparation reports the reason.
    """
    long_videos = [video for video in videos if _is_long(video)]
    if not long_videos:
        return {}
    cuts = {}
    cut_one = functools.partial(_cached_cut, cache=_cache())
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress() as bar:  # decoding releases the interpreter lock
        task = bar.add_task("cutting long videos", total=len(long_videos), unit="videos")
        for video, pieces in zip(long_videos, pool.map(cut_one, long_videos), strict=True):
            bar.advance(task)
            if pieces is not None:
                cuts[video] = pieces
    return cuts


def _is_long(video: Path) -> bool:
    try:
        media = probe(video)
    except MediaError:
        return False
    return media.has_video and media.duration_seconds > LONGEST_SECONDS


def _cache() -> Path | None:
    """The folder of the cache; None if it cannot be used."""
    try:
        return cache_directory("cuts")
    except ConfigError as error:
        _log.warning("%s; until then, long videos are cut again in every run", error)
        return None


def _cached_cut(video: Path, cache: Path | None) -> list[Cut] | None:
    if cache is None:
        return _cut_or_none(video)
    try:
        status = video.stat()
    except OSError:
        return None
    key = f"{CACHE_VERSION} {video.resolve()} {status.st_size} {status.st_mtime_ns}"
    cached = cache / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):  # missing, or damaged
        return [(start, end) for start, end in json.loads(cached.read_text(encoding="utf-8"))]
    pieces = _cut_or_none(video)
    if pieces is not None:
        with contextlib.suppress(OSError):  # a full disk: the next run cuts again
            write_text(cached, json.dumps(pieces))
    return pieces


def _cut_or_none(video: Path) -> list[Cut] | None:
    try:
        return cut(video)
    except MediaError:
        return None


def cut(video: Path) -> list[Cut]:
    """(start, end) in seconds of the pieces of a long video; the end of the last one is None.

    A video is cut at every scene change. A scene of more than 15 s is also cut where its audio is quietest, into
    pieces of 5 to 15 s. Memory: a few frames and 25 numbers per second.

    Raises:
        MediaError: The video or its audio cannot be read.
    """
    media = probe(video)
    scenes, length = _scenes(video)
    power = _audio_power(video, max(length, media.duration_seconds)) if media.has_audio else np.zeros(0)
    starts: list[float] = []
    for start, end in itertools.pairwise([*scenes, length]):
        starts.append(start)
        while end - starts[-1] > LONGEST_SECONDS:
            # the rest of the scene must not be too short either
            latest = min(starts[-1] + LONGEST_SECONDS, end - SHORTEST_SECONDS)
            first, last = (round(time * LEVELS_PER_SECOND) for time in (starts[-1] + SHORTEST_SECONDS, latest))
            candidates = power[first : last + 1]
            quietest = first + int(candidates.argmin()) if len(candidates) else last
            starts.append(quietest / LEVELS_PER_SECOND)
    return list(zip(starts, [*starts[1:], None], strict=True))


def _scenes(video: Path) -> tuple[list[float], float]:
    """Start times of the scenes in seconds, the first 0, and the length of the video.

    At a scene change most of the frame changes at once, by much more than between the frames just before.
    """
    starts, last_time, usual_change = [0.0], 0.0, 0.0
    previous: np.ndarray | None = None
    for time, thumbnail in thumbnails(video, THUMBNAIL):
        current = thumbnail.astype(np.int16)
        if previous is not None:
            change = float(np.abs(current - previous).mean())
            if change > SCENE_CHANGE + SCENE_RATIO * usual_change and time > starts[-1]:
                starts.append(round(time, 3))
            else:
                usual_change += (change - usual_change) / LEVELS_PER_SECOND
        previous, last_time = current, time
    return starts, last_time + 1 / LEVELS_PER_SECOND


def _audio_power(video: Path, seconds: float) -> np.ndarray:
    """Power of the audio, mean over 0.2 s, 25 numbers per second."""
    step = SAMPLE_RATE // LEVELS_PER_SECOND
    blocks: list[np.ndarray] = []
    start = 0
    while start < seconds:
        try:
            samples = read_audio(video, start, start + BLOCK_SECONDS).astype(np.float32)
        except MediaError:
            if not blocks:
                raise
            break  # the audio ends before the video
        samples = samples[: len(samples) // step * step]
        blocks.append(np.square(samples).reshape(-1, step).mean(1))
        start += BLOCK_SECONDS
    width = round(WINDOW_SECONDS * LEVELS_PER_SECOND)
    return np.convolve(np.concatenate(blocks), np.ones(width) / width, "same")
