"""Media files can be opened with every supported release of PyAV."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import av
import numpy as np
import pytest

from avhubert.data.audio import read_audio
from avhubert.data.media import open_container
from avhubert.data.video import probe
from avhubert.errors import MediaError

pytestmark = pytest.mark.quick


def _with_latin1_title(path: Path) -> Path:
    """Write a wav with a title in Latin-1, as old recorders do."""
    title = "Café".encode("latin-1") + b"\0"
    info = b"INFOINAM" + len(title).to_bytes(4, "little") + title + b"\0" * (len(title) % 2)
    samples = (1000 * np.sin(np.arange(8000))).astype("<i2").tobytes()
    form = b"fmt " + (16).to_bytes(4, "little") + b"\1\0\1\0" + (16000).to_bytes(4, "little")
    form += (32000).to_bytes(4, "little") + b"\2\0\20\0"
    chunks = [b"LIST" + len(info).to_bytes(4, "little") + info, form, b"data" + len(samples).to_bytes(4, "little")]
    body = b"WAVE" + b"".join(chunks) + samples
    path.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    return path


@pytest.mark.parametrize("name", ["old.wave", "12:30.wave", "http:x.wave"])
def test_any_title_and_any_file_name_can_be_opened(tmp_path: Path, name: str) -> None:
    path = _with_latin1_title(tmp_path / name)
    with open_container(path) as container:
        assert len(container.streams.audio) == 1
    assert len(read_audio(path)) == 8000
    assert probe(path).has_audio


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:{port}/x.ts\n#EXT-X-ENDLIST\n"),
        ("b.mp4", "ffconcat version 1.0\nfile http://127.0.0.1:{port}/x.ts\n"),
        ("c.mp4", "ffconcat version 1.0\nfile tcp://127.0.0.1:{port}\n"),
        ("http://127.0.0.1:{port}/x.mp4", ""),
    ],
)
def test_no_file_makes_a_connection(tmp_path: Path, name: str, content: str) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        port = str(server.getsockname()[1])
        path: str | Path = name.replace("{port}", port)
        if content:
            path = tmp_path / name
            path.write_text(content.replace("{port}", port), encoding="utf-8")
        for read in (probe, read_audio):
            with pytest.raises(MediaError):
                read(path)
        with pytest.raises(BlockingIOError):  # nobody has connected
            server.accept()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
@pytest.mark.parametrize("name", ["pipe.wav", "pipe.mp4"])
def test_a_pipe_is_an_error_and_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(MediaError, match="it is not a file"):
        probe(tmp_path / name)
    with pytest.raises(MediaError, match="there is no such file"):
        read_audio(tmp_path / name)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        open_container(tmp_path / "nothing.mp4")


def test_text_file_is_an_ffmpeg_error(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello", encoding="utf-8")
    with pytest.raises(av.FFmpegError):
        open_container(tmp_path / "text.mp4")
