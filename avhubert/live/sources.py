"""Where live frames and samples come from: a file in real time, a pipe, a camera, a stream of the network."""

from __future__ import annotations

import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import numpy as np

from avhubert import platforms
from avhubert.constants import SAMPLE_RATE
from avhubert.data.media import open_container
from avhubert.data.orientation import Orientation, stretched_width
from avhubert.errors import ConfigError, MediaError
from avhubert.live.records import AudioBlock, VideoFrame

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "http", "https")  # that --url accepts
WAITING = 250  # frames and blocks that wait at most for the recogniser
OPEN_SECONDS, READ_SECONDS = 15.0, 20.0  # within which a network stream must answer
PIPE = "the pipe"  # in messages
Item = VideoFrame | AudioBlock


@dataclass
class Counts:
    """What was lost on the way.

    Attributes:
        damaged: Packets that could not be decoded.
        dropped: Frames that were not read because the recogniser was too slow.
    """

    damaged: int = 0
    dropped: int = 0


def open_file(path: Path) -> av.container.InputContainer:
    """Open a local media file.

    Raises:
        MediaError: It is not a video or audio file.
    """
    try:
        return open_container(path)
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"{path} cannot be read: {error.strerror or error}", path=path) from error


def open_pipe(stream: IO[bytes] | None = None) -> av.container.InputContainer:
    """Open the media that another program writes to the standard input.

    Raises:
        MediaError: It is not video or audio in a container that can be read without seeking.
    """
    source: Any = sys.stdin.buffer if stream is None else stream
    try:
        container: av.container.InputContainer = av.open(source, mode="r")
        return container
    except (av.FFmpegError, OSError) as error:
        raise _unsuitable(error) from error


def _unsuitable(error: av.FFmpegError | OSError) -> MediaError:
    return MediaError(
        f"{PIPE} has no video or audio that can be read without seeking ({error.strerror or error}); "
        "let ffmpeg write matroska: ffmpeg … -f matroska - | avhubert live -"
    )


def open_url(url: str) -> av.container.InputContainer:
    """Open a stream of the network.

    Raises:
        ConfigError: The address is of another kind.
        MediaError: It cannot be opened.
    """
    scheme = url.partition("://")[0].lower()
    if scheme not in SCHEMES or "://" not in url:
        raise ConfigError(f"--url needs an address that begins with one of {', '.join(SCHEMES)} and ://, not '{url}'")
    options = {"rtsp_transport": "tcp"} if scheme.startswith("rtsp") else {}
    try:
        container: av.container.InputContainer = av.open(
            url, mode="r", options=options, timeout=(OPEN_SECONDS, READ_SECONDS)
        )
        return container
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"{url} cannot be opened: {error.strerror or error}") from error


class Camera:
    """A camera and the default microphone, read by the program ffmpeg."""

    def __init__(self, number: int) -> None:
        """Start the program.

        Raises:
            ConfigError: ffmpeg is not installed, or cameras are not supported on this system.
        """
        arguments = platforms.camera_arguments(number)
        if arguments is None:
            raise ConfigError(
                "--camera is supported on Linux and macOS; elsewhere use: ffmpeg … -f matroska - | avhubert live -"
            )
        program = shutil.which("ffmpeg")
        if program is None:
            raise ConfigError(
                "--camera needs the program ffmpeg, which is not installed; install it, or use --file or --url"
            )
        output = ("-c:v", "mjpeg", "-q:v", "3", "-c:a", "pcm_s16le", "-ar", str(SAMPLE_RATE), "-ac", "1")
        self._process = subprocess.Popen(
            [program, "-hide_banner", "-loglevel", "error", *arguments, *output, "-f", "matroska", "-"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self._number = number

    def container(self) -> av.container.InputContainer:
        """The container that the program writes.

        Raises:
            MediaError: The camera delivers nothing.
        """
        try:
            return open_pipe(self._process.stdout)
        except MediaError as error:
            self.close()
            raise MediaError(f"camera {self._number} delivers nothing; the message of ffmpeg above says why") from error

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait()


def read_items(container: av.container.InputContainer, name: str, counts: Counts) -> Iterator[Item]:
    """Frames and samples of the first video and audio stream, in the order of the container.

    Args:
        container: The media.
        name: What it is called in messages.
        counts: Counts what is damaged.

    Raises:
        MediaError: It has neither video nor audio, or breaks off.
    """
    streams: list[Any] = [*container.streams.video[:1], *container.streams.audio[:1]]
    if not streams:
        raise MediaError(f"{name} has neither a video nor an audio stream")
    if container.streams.video:
        container.streams.video[0].thread_type = "SLICE"  # frame threads would delay each frame
    audio = _AudioBlocks()
    last = 0.0
    try:
        for packet in container.demux(streams):
            try:
                frames: list[Any] = list(packet.decode())
            except av.InvalidDataError:
                counts.damaged += 1
                continue
            for frame in frames:
                for item in audio.of(frame) if packet.stream.type == "audio" else _images(frame, packet.stream):
                    last = item.seconds or last
                    yield item
    except (av.FFmpegError, OSError) as error:
        if name == PIPE and not last:
            raise _unsuitable(error) from error
        raise MediaError(f"{name} broke off after {last:.1f} s: {error.strerror or error}") from error
    finally:
        container.close()


class _AudioBlocks:
    """Resamples audio frames to 16 kHz mono and keeps their times."""

    def __init__(self) -> None:
        self._format: tuple[str, str, int] | None = None
        self._resampler: Any = None
        self._time = Fraction(0)  # of the next sample

    def of(self, frame: av.AudioFrame) -> Iterator[AudioBlock]:
        current = (frame.format.name, frame.layout.name, frame.sample_rate)
        if current != self._format:
            self._format = current
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        if frame.pts is not None and frame.time_base is not None:
            self._time = frame.pts * frame.time_base
        start = float(self._time)
        self._time += Fraction(frame.samples, frame.sample_rate)
        frame.pts = None  # with timestamps the resampler would insert or drop samples
        parts = [output.to_ndarray()[0] for output in self._resampler.resample(frame)]
        if parts:
            yield AudioBlock(np.concatenate(parts), start)


def _images(frame: av.VideoFrame, stream: Any) -> Iterator[VideoFrame]:
    if frame.time is None:
        return
    width = stretched_width(frame.width, stream.sample_aspect_ratio)
    image = frame.reformat(width=width, format="rgb24").to_ndarray()
    yield VideoFrame(Orientation.of(frame).apply(image), float(frame.time))


def in_real_time(items: Iterator[Item]) -> Iterator[Item]:
    """The items of a file, each when a camera would deliver it."""
    begun: float | None = None
    for item in items:
        seconds = item.seconds or 0.0
        seconds += len(item.samples) / SAMPLE_RATE if isinstance(item, AudioBlock) else 0.0
        if begun is None:
            begun = time.monotonic() - seconds
        time.sleep(max(0.0, begun + seconds - time.monotonic()))
        yield item


class Feed:
    """Reads a source in a thread of its own, so that it is never waited for, and never waits if `drop` is set."""

    def __init__(self, items: Iterator[Item], drop: bool, counts: Counts) -> None:
        """Start to read.

        Args:
            items: The source.
            drop: Whether frames are dropped when the recogniser is behind; if not, the source waits.
            counts: Counts what is dropped.
        """
        self._items = items
        self._drop = drop
        self._counts = counts
        self._queue: queue.Queue[Item | None] = queue.Queue(WAITING)
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="live source", daemon=True).start()

    def _run(self) -> None:
        try:
            for item in self._items:
                if self._drop and isinstance(item, VideoFrame) and self._queue.qsize() > WAITING // 2:
                    self._counts.dropped += 1
                    continue
                self._queue.put(item)
        except BaseException as error:
            self._error = error
        self._queue.put(None)

    def batches(self) -> Iterator[list[Item]]:
        """What has arrived, again and again until the source ends.

        Raises:
            MediaError: The source broke off.
        """
        while True:
            batch: list[Item] = []
            item = self._queue.get()
            while item is not None:
                batch.append(item)
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batch:
                yield batch
            if item is None:
                break
        if self._error is not None:
            raise self._error
