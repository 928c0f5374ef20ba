"""Cuts long videos without a transcript: between scenes, and where the audio is quietest."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from av.error import FFmpegError

from avhubert.config.command_defaults import STALL_SECONDS
from avhubert.constants import SAMPLE_RATE
from avhubert.data.audio import read_audio
from avhubert.data.lengths import TOLERANCE_SECONDS, content_seconds
from avhubert.data.media import AUTOMATIC, StreamChoice
from avhubert.data.shots import THUMBNAIL, ShotDetector
from avhubert.data.video import MediaInfo, probe, thumbnails
from avhubert.errors import ConfigError, MediaError
from avhubert.files import cache_directory, write_text
from avhubert.platforms import usable_cores, usable_processes
from avhubert.processes import Failure, run_in_processes
from avhubert.report import progress

_log = logging.getLogger(__name__)

LONGEST_SECONDS = 15.0  # longer videos are cut between scenes, and longer scenes …
SHORTEST_SECONDS = 5.0  # … into pieces of at least this length …
WINDOW_SECONDS = 0.2  # … where a window of this length is quietest
CACHE_VERSION = 2  # increase it when the above changes, so that cached cuts are not reused
BLOCK_SECONDS = 600  # of audio that is read at once
LEVELS_PER_SECOND = 25

Cut = tuple[float, float | None]  # start and end in seconds; None: until the end of the video


def cut_long_videos(
    videos: Sequence[Path],
    modality: str = "av",
    streams: StreamChoice = AUTOMATIC,
    stall_seconds: float = STALL_SECONDS,
) -> dict[Path, list[Cut] | Failure]:
    """`cut` of each long video, several in parallel; cached in the user's cache folder, since it reads whole videos.

    With the modality 'a' or 'any', long recordings without video are cut too; with 'a', only the audio decides.

    Videos that are short or cannot be read are not in the result: preparation reports the reason. A video at which the
    decoder crashes, or decodes nothing for `stall_seconds`, has the failure instead.
    """
    if not videos:
        return {}
    cuts = {}
    processes = usable_processes(min(usable_cores(), len(videos)))
    work = partial(cut_if_long, modality=modality, cache=_cache(), streams=streams)
    outcomes = run_in_processes(work, videos, processes, stall_seconds)
    with contextlib.closing(outcomes), progress() as bar:
        task = bar.add_task("looking for long videos to cut", total=len(videos), unit="videos")
        for video, pieces in outcomes:
            bar.advance(task)
            if pieces is not None:
                cuts[video] = pieces
    return cuts


def cut_if_long(
    video: Path, modality: str = "av", cache: Path | None = None, streams: StreamChoice = AUTOMATIC
) -> list[Cut] | None:
    """`cut` of a long video; None for a short one and for one that cannot be read."""
    try:
        media = probe(video, streams)
        if not (media.has_video or modality in ("a", "any")) or not _is_long(video, media):
            return None
        return _cached_cut(video, media.has_video and modality != "a", cache, streams)
    except MediaError:
        return None


def _is_long(video: Path, media: MediaInfo) -> bool:
    """Whether a video is longer than a clip should be; a header that says that it is short may be wrong."""
    if media.duration_seconds > LONGEST_SECONDS:
        return True
    try:
        return content_seconds(video) > LONGEST_SECONDS + TOLERANCE_SECONDS
    except (FFmpegError, OSError):
        return False


def _cache() -> Path | None:
    """The folder of the cache; None if it cannot be used."""
    try:
        return cache_directory("cuts")
    except ConfigError as error:
        _log.warning("%s; until then, long videos are cut again in every run", error)
        return None


def _cached_cut(video: Path, use_video: bool, cache: Path | None, streams: StreamChoice) -> list[Cut] | None:
    if cache is None:
        return cut(video, use_video, streams)
    try:
        status = video.stat()
    except OSError:
        return None
    key = f"{CACHE_VERSION} {video.resolve()} {status.st_size} {status.st_mtime_ns}{'' if use_video else ' audio'}"
    for kind, position in (("audio", streams.audio), ("video", streams.video)):
        key += "" if position is None else f" {kind} stream {position}"
    cached = cache / f"{hashlib.sha256(os.fsencode(key)).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):  # missing, or damaged
        return [(start, end) for start, end in json.loads(cached.read_text(encoding="utf-8"))]
    pieces = cut(video, use_video, streams)
    with contextlib.suppress(OSError):  # a full disk: the next run cuts again
        write_text(cached, json.dumps(pieces))
    return pieces


def cut(video: Path, use_video: bool = True, streams: StreamChoice = AUTOMATIC) -> list[Cut]:
    """(start, end) in seconds of the pieces of a long video; the end of the last one is None.

    A video is cut at every scene change. A scene of more than 15 s is also cut where its audio is quietest, into
    pieces of 5 to 15 s. Memory: a few frames and 25 numbers per second.

    Args:
        video: The file.
        use_video: Whether the video is read for scene changes.
        streams: Which of several streams are read.

    Raises:
        MediaError: The video or its audio cannot be read.
    """
    media = probe(video, streams)
    power = _audio_power(video, streams) if media.has_audio else np.zeros(0)
    scenes, length = _scenes(video, streams) if use_video else ([0.0], _audio_length(power, media.duration_seconds))
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


def _scenes(video: Path, streams: StreamChoice) -> tuple[list[float], float]:
    """Start times of the scenes in seconds, the first 0, and the length of the video."""
    starts, last_time = [0.0], 0.0
    detector = ShotDetector()
    for time, small in thumbnails(video, THUMBNAIL, streams):
        if detector.is_cut(small) and time > starts[-1]:
            starts.append(round(time, 3))
        last_time = time
    return starts, last_time + 1 / LEVELS_PER_SECOND


def _audio_length(power: np.ndarray, header_seconds: float) -> float:
    """Length in seconds of the audio: by the header, unless that is wrong."""
    read = len(power) / LEVELS_PER_SECOND
    return header_seconds if abs(read - header_seconds) <= TOLERANCE_SECONDS else read


def _audio_power(video: Path, streams: StreamChoice) -> np.ndarray:
    """Power of the audio, mean over 0.2 s, 25 numbers per second."""
    step = SAMPLE_RATE // LEVELS_PER_SECOND
    blocks: list[np.ndarray] = []
    start, complete = 0, True
    while complete:
        try:
            samples = read_audio(video, start, start + BLOCK_SECONDS, streams).astype(np.float32)
        except MediaError:
            if not blocks:
                raise
            break  # the audio ends with the last block
        complete = len(samples) == BLOCK_SECONDS * SAMPLE_RATE
        samples = samples[: len(samples) // step * step]
        blocks.append(np.square(samples).reshape(-1, step).mean(1))
        start += BLOCK_SECONDS
    width = round(WINDOW_SECONDS * LEVELS_PER_SECOND)
    return np.convolve(np.concatenate(blocks), np.ones(width) / width, "same")
