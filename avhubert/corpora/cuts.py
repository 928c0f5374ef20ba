"""Cuts long videos between scenes and where the audio is quietest."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from avhubert.constants import SAMPLE_RATE
from avhubert.data.audio import read_audio
from avhubert.data.video import probe, thumbnails
from avhubert.errors import MediaError
from avhubert.files import cache_directory, write_text
from avhubert.report import progress

LONGEST_SECONDS = 15.0  # a video without transcript that lasts longer is cut between scenes, and a longer scene …

SHORTEST_SECONDS = 5.0  # … into pieces of this length and more …

WINDOW_SECONDS = 0.2  # … where this long a stretch is quietest

THUMBNAIL = 32  # pixels of the side of the pictures in which scenes are told apart

SCENE_CHANGE = 12.0  # mean change in gray levels from frame to frame that may be a new scene …

SCENE_RATIO = 4.0  # … if it exceeds what is usual so many times as well

CUTTING = 1  # counts up when the above changes, so that cuts in the cache are made again

BLOCK_SECONDS = 600  # of sound that is looked at in one go

LEVELS_PER_SECOND = 25


# --------------------------------------------------------------------------- long videos
def cuts(videos: Sequence[Path]) -> dict[Path, list[tuple[float, float | None]]]:
    """`cut` of each video that is long, several at a time; kept in the user's cache, since it reads the whole video.

    Videos that cannot be read are not in it: preparation will say why.
    """
    long = [video for video in videos if _is_long(video)]
    if not long:
        return {}
    found = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress() as bar:  # decoding needs no interpreter
        task = bar.add_task("cutting long videos", total=len(long), unit="videos")
        for video, pieces in zip(long, pool.map(_kept_cut, long), strict=True):
            bar.advance(task)
            if pieces is not None:
                found[video] = pieces
    return found


def _is_long(video: Path) -> bool:
    try:
        media = probe(video)
    except MediaError:
        return False
    return media.has_video and media.duration_seconds > LONGEST_SECONDS


def _kept_cut(video: Path) -> list[tuple[float, float | None]] | None:
    status = video.stat()
    name = hashlib.sha256(f"{CUTTING} {video.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    kept = cache_directory("cuts") / f"{name[:32]}.json"
    if kept.is_file():
        return [(start, end) for start, end in json.loads(kept.read_text(encoding="utf-8"))]
    try:
        pieces = cut(video)
    except MediaError:
        return None
    write_text(kept, json.dumps(pieces))
    return pieces


def cut(video: Path) -> list[tuple[float, float | None]]:
    """(start, end) in seconds of the pieces of a long video; the last one's end is None.

    Cut at every change of scene; a scene of more than 15 s also where its sound is quietest, into pieces of 5 to 15 s.
    Memory is that of a few frames and 25 figures a second.

    Raises:
        MediaError: the video or its sound can't be read.
    """
    media = probe(video)
    scenes, length = _scenes(video)
    quiet = _quietness(video, max(length, media.duration_seconds)) if media.has_audio else np.zeros(0)
    starts: list[float] = []
    for start, end in itertools.pairwise([*scenes, length]):
        starts.append(start)
        while end - starts[-1] > LONGEST_SECONDS:
            # what is left over must not be too short either
            latest = min(starts[-1] + LONGEST_SECONDS, end - SHORTEST_SECONDS)
            first, last = (round(time * LEVELS_PER_SECOND) for time in (starts[-1] + SHORTEST_SECONDS, latest))
            part = quiet[first : last + 1]
            at = first + int(part.argmin()) if len(part) else last
            starts.append(at / LEVELS_PER_SECOND)
    return list(zip(starts, [*starts[1:], None], strict=True))


def _scenes(video: Path) -> tuple[list[float], float]:
    """Seconds at which scenes begin, the first at 0, and the video's length.

    A new scene changes most of the picture at once: by far more than the frames just before it did.
    """
    begins, last, usual = [0.0], 0.0, 0.0
    before: np.ndarray | None = None
    for time, picture in thumbnails(video, THUMBNAIL):
        now = picture.astype(np.int16)
        if before is not None:
            change = float(np.abs(now - before).mean())
            if change > SCENE_CHANGE + SCENE_RATIO * usual and time > begins[-1]:
                begins.append(round(time, 3))
            else:
                usual += (change - usual) / LEVELS_PER_SECOND
        before, last = now, time
    return begins, last + 1 / LEVELS_PER_SECOND


def _quietness(video: Path, seconds: float) -> np.ndarray:
    """Power of the sound, mean over 0.2 s, 25 figures a second."""
    step = SAMPLE_RATE // LEVELS_PER_SECOND
    levels: list[np.ndarray] = []
    start = 0
    while start < seconds:
        try:
            samples = read_audio(video, start, start + BLOCK_SECONDS).astype(np.float32)
        except MediaError:
            if not levels:
                raise
            break  # the sound ends before the picture
        samples = samples[: len(samples) // step * step]
        levels.append(np.square(samples).reshape(-1, step).mean(1))
        start += BLOCK_SECONDS
    width = round(WINDOW_SECONDS * LEVELS_PER_SECOND)
    return np.convolve(np.concatenate(levels), np.ones(width) / width, "same")
