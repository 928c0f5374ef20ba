"""An upload is opened with care: only as a video or sound file, no longer than allowed, by what is really in it."""

from __future__ import annotations

import multiprocessing
import resource
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

import av

from avhubert.data.media import open_container
from avhubert.errors import AvhubertError, CheckpointError, MediaError
from avhubert.serve.limits import Refused

if TYPE_CHECKING:
    from avhubert.model.recognizer import Recognizer
    from avhubert.transcription.transcript import Transcript

# FFmpeg also reads lists of other files and addresses, which an upload must not make the server open
FORMATS = (
    "aac", "aiff", "amr", "asf", "avi", "caf", "flac", "flv", "m4v", "matroska", "mov", "mp3", "mpeg", "mpegts", "mxf",
    "ogg", "w64", "wav", "webm",
)  # fmt: skip
OPTIONS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
MOST_PIXELS = 4096 * 2304  # of a picture
MOST_FPS = 250
SLACK_SECONDS = 1.0  # containers round
MOST_BYTES = 1_500_000_000  # of memory, to check a file
POLL_SECONDS = 0.1
COVER = av.stream.Disposition.attached_pic  # a song's picture


class Stopped(Exception):
    """The job was given up while it ran."""


class Checker:
    """`check` in a process of its own with little memory: a file made to break its reader breaks only that.

    To be used by one thread.
    """

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def check(self, path: Path, max_seconds: float, stop: threading.Event) -> None:
        """Refused as `check` says; Stopped when `stop` is set meanwhile."""
        if self._pipe is None:
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send((path, max_seconds))
            while not self._pipe.poll(POLL_SECONDS):
                if stop.is_set():
                    self.close()
                    raise Stopped
            refused = self._pipe.recv()
        except (EOFError, OSError):
            self.close()
            refused = (422, "the file cannot be read: its reader failed at it")
        if refused is not None:
            raise Refused(*refused)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_check_all, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def close(self) -> None:
        """End the process; the next `check` starts another."""
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = self._pipe = None


def _check_all(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends this process
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    while True:
        try:
            path, max_seconds = pipe.recv()
        except EOFError:
            return
        refused: tuple[int, str] | None = None
        try:
            check(path, max_seconds)
        except Refused as error:
            refused = error.status, error.sentence
        except AvhubertError as error:
            refused = 422, nameless(str(error), path)
        except MemoryError:
            refused = 413, "the file needs more memory to be read than this server gives it"
        pipe.send(refused)


def check(path: Path, max_seconds: float) -> None:
    """Read a file once, as far as allowed, keeping nothing.

    Raises:
        MediaError: not a video or sound file, or a damaged one.
        Refused: longer or larger than allowed, by its header or by what is decoded.
        MemoryError: too much is needed.
    """
    try:
        with open_container(path, OPTIONS) as container:
            pictures = [one for one in container.streams.video if not one.disposition & COVER][:1]
            streams = [*pictures, *container.streams.audio[:1]]
            if not streams:
                raise MediaError(f"{path} has neither a video nor an audio track")
            for stream in streams:
                claimed = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
                claimed = max(claimed, (container.duration or 0) / av.time_base)
                if claimed > max_seconds + SLACK_SECONDS:
                    raise _too_long(max_seconds)
            for video in pictures:
                if video.frames > max_seconds * MOST_FPS:
                    raise _too_long(max_seconds)
                _check_size(video.codec_context.width, video.codec_context.height)
                video.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
                video.codec_context.thread_count = 2
            _decode(container, streams, max_seconds)
    except av.error.MemoryError as error:
        raise MemoryError from error
    except av.error.ArgumentError as error:
        raise MediaError(f"{path} is of a kind that is not taken; send a video or sound file") from error
    except av.FFmpegError as error:
        raise MediaError(f"{path} cannot be read as a video or sound file: {error.strerror}") from error


def _decode(container: av.container.InputContainer, streams: list, max_seconds: float) -> None:
    first = (container.start_time or 0) / av.time_base
    lasted = {stream.index: 0.0 for stream in streams}
    for frame, index in _frames(container, streams):
        if isinstance(frame, av.VideoFrame):
            _check_size(frame.width, frame.height)
            lasted[index] += 1 / MOST_FPS
            shown = float((frame.duration or 0) * (frame.time_base or 0))
        else:
            lasted[index] += frame.samples / max(1, frame.sample_rate)
            shown = 0.0
        ends = shown + (frame.time - first if frame.time is not None else 0.0)
        if max(ends, lasted[index]) > max_seconds + SLACK_SECONDS:
            raise _too_long(max_seconds)


def _frames(container: av.container.InputContainer, streams: list) -> Iterator[tuple]:
    """Frames with their stream's index; damaged ones are passed over: the transcription tells of them."""
    for packet in container.demux(streams):
        try:
            for frame in packet.decode():
                yield frame, packet.stream_index
        except av.InvalidDataError:
            continue


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise Refused(413, f"its pictures of {width}×{height} are larger than the {MOST_PIXELS / 1e6:.0f} million "
                      "pixels that this server takes")  # fmt: skip


def _too_long(max_seconds: float) -> Refused:
    return Refused(413, f"the recording is longer than the {max_seconds:g} s that this server takes")


def transcribe_upload(
    path: Path,
    recognizer: Recognizer,
    modality: str,
    checker: Checker,
    max_seconds: float,
    stop: threading.Event,
) -> Transcript:
    """`avhubert.transcribe` of a file whose sender is unknown.

    Raises:
        Refused: with a status and a sentence that doesn't tell where the file lies.
        Stopped: `stop` was set meanwhile.
    """
    from avhubert.transcription.pipeline import transcribe

    try:
        checker.check(path, max_seconds, stop)
        running = transcribe(path, recognizer, modality, stream=True)
        for _ in running:
            if stop.is_set():
                raise Stopped
        found = running.transcript()
    except AvhubertError as error:
        raise refusal(error, path) from error
    return replace(found, warnings=[nameless(warning, path) for warning in found.warnings])


def refusal(error: AvhubertError, path: Path) -> Refused:
    """What went wrong with a file, for whoever sent it."""
    if isinstance(error, CheckpointError):  # a face model is damaged or gone: that is ours to mend
        return Refused(503, "the server lacks a model that this needs; its operator has to see to it")
    return Refused(422 if isinstance(error, MediaError) else 400, nameless(str(error), path))


def nameless(text: str, path: Path) -> str:
    """A sentence about a file here, for somebody elsewhere."""
    return text.replace(str(path), "the file").replace("--modality ", "modality ")
