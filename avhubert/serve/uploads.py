"""Checks uploaded files before they are transcribed: only video and audio, within the limits, in a separate process."""

from __future__ import annotations

import errno
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import av

from avhubert import platforms
from avhubert.data.media import demux, open_container
from avhubert.data.streams import candidates
from avhubert.errors import AvhubertError, CheckpointError, MediaError
from avhubert.serve.limits import CHECK_MEMORY, DURATION_TOLERANCE, MAX_FPS, MAX_PIXELS, RequestError, too_long

# FFmpeg also reads playlists and lists of other files, which must not make the server open those
# the formats of the file extensions in `avhubert.data.discovery`
FORMATS = (
    "aac", "ac3", "aiff", "amr", "amrnb", "amrwb", "ape", "asf", "au", "avi", "caf", "dhav", "dts", "dv", "eac3",
    "flac", "flv", "gsm", "h264", "hevc", "ivf", "m4v", "matroska", "mjpeg", "mov", "mp3", "mpc", "mpc8", "mpeg",
    "mpegts", "mpegvideo", "mxf", "nsv", "nut", "ogg", "rm", "tta", "voc", "w64", "wav", "webm", "wtv", "wv",
    "yuv4mpegpipe",
)  # fmt: skip
OPTIONS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
POLL_SECONDS = 0.1
FILE_NAME = "the file"  # in messages: clients do not learn where uploads are stored


class JobCancelledError(Exception):
    """A job was cancelled while it ran."""


class Checker:
    """Calls `check` in a process with little memory, so that a malicious file can only crash that process.

    Only one thread may use it.
    """

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def check(self, path: Path, max_seconds: float, stop: threading.Event) -> None:
        """Checks a file.

        Raises:
            RequestError: The file cannot be read or exceeds a limit.
            JobCancelledError: `stop` was set meanwhile.
        """
        if self._pipe is None:
            self._start()
        assert self._pipe is not None
        error: tuple[int, str] | None
        try:
            self._pipe.send((path, max_seconds))
            while not self._pipe.poll(POLL_SECONDS):
                if stop.is_set():
                    self.close()
                    raise JobCancelledError
            error = self._pipe.recv()
        except (EOFError, OSError):
            self.close()
            error = (422, f"{FILE_NAME} cannot be read: the process that read it crashed")
        if error is not None:
            raise RequestError(*error)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other_end = context.Pipe()
        self._process = context.Process(target=_serve_checks, args=(other_end,), daemon=True)
        self._process.start()
        other_end.close()

    def close(self) -> None:
        """Ends the process; the next `check` starts another one."""
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = self._pipe = None


def _serve_checks(pipe: Connection) -> None:
    """The main loop of the process: receives paths, sends errors (status, message) or None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends this process
    platforms.limit_memory(CHECK_MEMORY)
    while True:
        try:
            path, max_seconds = pipe.recv()
        except EOFError:
            return
        error: RequestError | None = None
        try:
            check(path, max_seconds)
        except RequestError as raised:
            error = raised
        except AvhubertError as raised:
            error = request_error(raised, path)
        except MemoryError:
            error = RequestError(413, "reading the file needs more memory than this server allows")
        pipe.send(None if error is None else (error.status, error.message))


def check(path: Path, max_seconds: float) -> None:
    """Decodes a file once, up to the limit, and keeps nothing.

    Raises:
        MediaError: It is not a video or audio file, or damaged.
        RequestError: It exceeds a limit, by its header or by what is decoded.
        MemoryError: Decoding it needs too much memory.
    """
    try:
        with open_container(path, OPTIONS) as container:
            videos = [container.streams.video[index] for index in candidates(container, "video")]
            streams = [*videos, *(container.streams.audio[index] for index in candidates(container, "audio"))]
            if not streams:
                raise MediaError(f"{path} has neither a video nor an audio track", path=path)
            _check_header(container, streams, max_seconds)
            for video in videos:
                video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
                video.codec_context.thread_count = 2
            _decode(container, streams, max_seconds)
    except av.error.MemoryError as error:
        raise MemoryError from error
    except av.FFmpegError as error:
        if error.errno == errno.EINVAL:  # by number: the name of the class depends on PyAV's version
            message = f"{path} has a format that is not accepted; send a video or audio file"
            raise MediaError(message, path=path) from error
        raise MediaError(f"{path} cannot be read as a video or audio file: {error.strerror}", path=path) from error


def _check_header(container: av.container.InputContainer, streams: list[Any], max_seconds: float) -> None:
    for stream in streams:
        seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        seconds = max(seconds, (container.duration or 0) / av.time_base)
        if seconds > max_seconds + DURATION_TOLERANCE:
            raise too_long(max_seconds)
        if stream.type == "video":
            if stream.frames > max_seconds * MAX_FPS:
                raise too_long(max_seconds)
            _check_size(stream.codec_context.width, stream.codec_context.height)


def _decode(container: av.container.InputContainer, streams: list[Any], max_seconds: float) -> None:
    first = (container.start_time or 0) / av.time_base
    decoded = {stream.index: 0.0 for stream in streams}  # seconds
    for frame, index in _frames(container, streams):
        if isinstance(frame, av.VideoFrame):
            _check_size(frame.width, frame.height)
            decoded[index] += 1 / MAX_FPS
            duration = float((frame.duration or 0) * (frame.time_base or 0))
        else:
            decoded[index] += frame.samples / max(1, frame.sample_rate)
            duration = 0.0
        end = duration + (frame.time - first if frame.time is not None else 0.0)
        if max(end, decoded[index]) > max_seconds + DURATION_TOLERANCE:
            raise too_long(max_seconds)


def _frames(container: av.container.InputContainer, streams: list[Any]) -> Iterator[tuple[Any, int]]:
    """Frames and the index of their stream; damaged frames are skipped here, the transcription reports them."""
    for packet in demux(container, *streams):
        try:
            for frame in packet.decode():
                yield frame, packet.stream_index
        except av.InvalidDataError:
            continue


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise RequestError(
            413,
            f"its frames of {width}×{height} are larger than the {MAX_PIXELS / 1e6:.0f} million pixels that this "
            "server accepts",
        )


def request_error(error: AvhubertError, path: Path) -> RequestError:
    """An error of a transcription as the client receives it, without the path of the upload."""
    if isinstance(error, CheckpointError):  # a face model is missing or damaged
        return RequestError(503, "the server lacks a model that it needs; its operator must install it")
    message = error.with_path_as(FILE_NAME)
    if str(path) in message:  # an error without its path
        message = f"{FILE_NAME} cannot be transcribed"
    return RequestError(422 if isinstance(error, MediaError) else 400, message)
