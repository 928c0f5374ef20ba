"""`avhubert live` reads files, pipes, network streams and cameras; every wrong input is one sentence."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from avhubert.cli.app import main
from avhubert.errors import MediaError
from avhubert.live.records import AudioBlock, VideoFrame
from avhubert.live.sources import Counts, Feed, open_file, open_pipe, read_items


@pytest.fixture(scope="module")
def matroska(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The clip inside the package as a stream that can be read without seeking."""
    path = tmp_path_factory.mktemp("live") / "sample.mkv"
    with av.open(str(sample)) as source, av.open(str(path), "w") as target:
        streams = {stream: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                target.mux(packet)
    return path.read_bytes()


def run(*arguments: str, stdin: bytes = b"", path: str | None = None) -> subprocess.CompletedProcess:
    environment = {**os.environ, **({"PATH": path} if path else {})}
    return subprocess.run(
        [sys.executable, "-m", "avhubert.cli", "live", *arguments], input=stdin, capture_output=True, env=environment
    )


@pytest.mark.slow
def test_a_pipe_prints_events_and_writes_captions(matroska: bytes, tmp_path: Path) -> None:
    done = run("-", "--json-lines", "--srt", str(tmp_path / "a.srt"), stdin=matroska)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.decode().splitlines()]
    final = [event for event in events if event["kind"] == "final"]
    assert final[0]["text"].startswith("bin green at")
    assert {"text", "start", "end", "confidence"} == set(final[0]["words"][0])
    assert "bin green at" in (tmp_path / "a.srt").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the camera of Linux")
def test_a_camera_is_read_through_ffmpeg(matroska: bytes, tmp_path: Path) -> None:
    """A program in place of ffmpeg: no camera is on the machines that run the tests."""
    (tmp_path / "stream").write_bytes(matroska)
    program = tmp_path / "ffmpeg"
    program.write_text(
        f'#!/bin/sh\necho "$@" > "{tmp_path}/arguments"\nexec cat "{tmp_path}/stream"\n', encoding="utf-8"
    )
    program.chmod(0o755)
    done = run("--camera", "3", path=f"{tmp_path}:{os.environ['PATH']}")
    assert done.stdout.decode().startswith("bin green at"), done.stderr
    assert "-f v4l2 -i /dev/video3 -f alsa -i default" in (tmp_path / "arguments").read_text(encoding="utf-8")


def test_a_file_keeps_its_times(sample: Path, images: np.ndarray, samples: np.ndarray) -> None:
    counts = Counts()
    items = list(read_items(open_file(sample), "it", counts))
    frames = [item for item in items if isinstance(item, VideoFrame)]
    blocks = [item for item in items if isinstance(item, AudioBlock)]
    assert [frame.seconds for frame in frames] == pytest.approx([k / 25 for k in range(len(images))], abs=0.01)
    assert frames[0].image.shape == images[0].shape
    assert sum(len(block.samples) for block in blocks) >= len(samples) - 2000
    assert counts.damaged == 0


def test_a_stream_that_breaks_off_is_an_error_after_what_was_there(matroska: bytes) -> None:
    class Broken:
        def __init__(self) -> None:
            self.left = matroska

        def read(self, size: int) -> bytes:
            if len(self.left) < len(matroska) // 2:
                raise OSError(5, "Input/output error")
            part, self.left = self.left[: min(size, 4096)], self.left[min(size, 4096) :]
            return part

    with pytest.raises(MediaError, match=r"it broke off after \d\.\d s: "):
        list(read_items(av.open(Broken(), mode="r"), "it", Counts()))
    items = read_items(av.open(Broken(), mode="r"), "it", Counts())
    assert isinstance(next(items), (VideoFrame, AudioBlock))


def test_a_slow_reader_drops_frames_and_keeps_the_audio() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    items = [VideoFrame(image, k / 25) for k in range(400)] + [AudioBlock(np.zeros(9, np.int16), 0.0)]
    counts = Counts()
    feed = Feed(iter(items), True, counts)
    while feed._items.__length_hint__():  # until the source has been read, nothing is taken
        pass
    got = [item for batch in feed.batches() for item in batch]
    assert isinstance(got[-1], AudioBlock)
    assert counts.dropped == 401 - len(got) > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one source: --file FILE, --camera N, --url URL, or - for a pipe"),
        (["-", "--camera", "0"], "give one source: --file FILE, --camera N, --url URL, or - for a pipe"),
        (["talk.mp4"], "to read a file live, write --file talk.mp4; `-` reads a pipe"),
        (["--url", "file:///etc/passwd"], "--url needs an address that begins with one of rtsp"),
        (["--file", "missing.mp4"], "missing.mp4 cannot be read: No such file or directory"),
        (["--file", __file__], "cannot be read: Invalid data found"),
        (["--camera", "0"], "--camera needs the program ffmpeg, which is not installed"),
    ],
)
def test_wrong_sources_are_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["live", *arguments]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_captions_replace_no_file(sample: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["live", "--file", str(sample), "--srt", str(sample)]) == 2
    assert "exists; choose another name for --srt, or delete the file" in capsys.readouterr().err


def test_rubbish_in_a_pipe_is_one_sentence() -> None:
    with pytest.raises(MediaError, match="the pipe has no video or audio that can be read without seeking"):
        open_pipe(io.BytesIO(b"rubbish" * 99))
