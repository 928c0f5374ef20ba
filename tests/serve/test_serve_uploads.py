"""What an upload may hold: headers that promise too much, frames that are too large, a decoder process that dies."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import av
import httpx
import numpy as np
import pytest

from avhubert.data.audio import write_wav
from avhubert.data.discovery import MEDIA_EXTENSIONS
from avhubert.data.video import write_video
from avhubert.errors import MediaError
from avhubert.serve.limits import RequestError
from avhubert.serve.uploads import Checker, JobCancelledError, check
from tests.serve.conftest import Server


@pytest.fixture(scope="module")
def promising(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few frames in a file whose header promises a million."""
    path = tmp_path_factory.mktemp("promising") / "long.avi"
    with av.open(str(path), "w", format="avi") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p"
        for _ in range(5):
            out.mux(stream.encode(av.VideoFrame(64, 64, "yuvj420p")))
        out.mux(stream.encode(None))
    content = bytearray(path.read_bytes())
    million = (1_000_000).to_bytes(4, "little")
    total, length = content.index(b"avih") + 8 + 16, content.index(b"strh") + 8 + 32
    content[total : total + 4] = content[length : length + 4] = million
    path.write_bytes(content)
    return path


def test_a_header_of_a_million_frames_is_refused_at_once(promising: Path, server: Server) -> None:
    with av.open(str(promising)) as container:
        assert container.streams.video[0].frames == 1_000_000
    began = time.monotonic()
    with pytest.raises(RequestError, match="the recording is longer than the 300 s that this server accepts"):
        check(promising, 300)
    assert time.monotonic() - began < 2
    answer = httpx.post(server.address + "/v1/transcriptions", files={"file": promising.read_bytes()}, timeout=20)
    assert answer.status_code == 413
    assert answer.json() == {"error": "the recording is longer than the 20 s that this server accepts"}
    assert server.emptied()


def test_length_is_also_counted_where_the_header_hides_it(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(48_000, np.int16))
    content = bytearray((tmp_path / "a.wav").read_bytes())
    data = content.index(b"data") + 4
    content[data : data + 4] = (0).to_bytes(4, "little")  # as of a recording that was broken off
    (tmp_path / "a.wav").write_bytes(content)
    check(tmp_path / "a.wav", 5)
    with pytest.raises(RequestError, match="longer than the 1 s"):
        check(tmp_path / "a.wav", 1)


def test_large_pictures_are_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "large.mp4", [np.zeros((2400, 4096), np.uint8)])
    with pytest.raises(RequestError, match=r"its frames of 4096×2400 are larger than the 9 million pixels") as caught:
        check(tmp_path / "large.mp4", 5)
    assert caught.value.status == 413


def test_neither_video_nor_audio(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n", encoding="utf-8")
    with pytest.raises(MediaError, match="has a format that is not accepted; send a video or audio file"):
        check(tmp_path / "a.srt", 5)


def test_a_reader_that_dies_is_replaced(recording: Path) -> None:
    checker = Checker()
    checker.check(recording, 5, threading.Event())
    assert checker._process is not None
    checker._process.kill()
    checker._process.join()
    with pytest.raises(RequestError, match="the process that read it crashed") as caught:
        checker.check(recording, 5, threading.Event())
    assert caught.value.status == 422
    checker.check(recording, 5, threading.Event())
    checker.close()


def test_a_check_can_be_given_up(recording: Path) -> None:
    checker, stop = Checker(), threading.Event()
    stop.set()
    with pytest.raises(JobCancelledError):
        checker.check(recording, 5, stop)
    assert checker._process is None


CONTAINERS = {
    "mp4": ("mp4", "aac"), "mov": ("mov", "pcm_s16le"), "mkv": ("matroska", "flac"), "avi": ("avi", "pcm_s16le"),
    "ts": ("mpegts", "mp2"), "mpg": ("mpeg", "mp2"), "flv": ("flv", "aac"), "ogg": ("ogg", "flac"),
    "flac": ("flac", "flac"),
    "wav": ("wav", "pcm_s16le"), "aiff": ("aiff", "pcm_s16be"), "caf": ("caf", "pcm_s16le"), "au": ("au", "pcm_s16be"),
    "ac3": ("ac3", "ac3"), "eac3": ("eac3", "eac3"), "aac": ("adts", "aac"), "mp2": ("mp2", "mp2"),
    "w64": ("w64", "pcm_s16le"), "wv": ("wv", "wavpack"), "tta": ("tta", "tta"), "wma": ("asf", "wmav2"),
    "nut": ("nut", "flac"), "voc": ("voc", "pcm_s16le"), "rm": ("rm", "ac3"),
}  # fmt: skip


@pytest.mark.parametrize("extension", CONTAINERS)
def test_the_formats_of_the_known_extensions_are_accepted(extension: str, tmp_path: Path) -> None:
    assert f".{extension}" in MEDIA_EXTENSIONS
    form, codec = CONTAINERS[extension]
    path = tmp_path / f"talk.{extension}"
    with av.open(str(path), "w", format=form) as out:
        stream = out.add_stream(codec, rate=44_100, layout="stereo")
        stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 132_300), np.int16), format="s16", layout="stereo")
        frame.sample_rate, frame.pts = 44_100, 0
        fifo, resampler = av.AudioFifo(), av.AudioResampler(stream.format, stream.layout, 44_100)
        for converted in resampler.resample(frame):
            fifo.write(converted)
        while samples := fifo.read(stream.codec_context.frame_size or 1024):
            out.mux(stream.encode(samples))
    check(path, 10)
