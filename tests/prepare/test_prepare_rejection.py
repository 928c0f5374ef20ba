"""Unusable clips are rejected for the right reason; too many rejections are an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data

from avhubert.cli.app import main
from avhubert.corpora.sources import SourceClip
from avhubert.data.manifest import read_manifest
from avhubert.data.video import write_video
from avhubert.errors import DataError, MediaError
from avhubert.prepare.clip import prepare_clip
from avhubert.prepare.pipeline import prepare
from avhubert.prepare.rejection import FrameMonitor, check_clip

ASTRONAUT = skimage.data.astronaut()
BLACK = np.zeros_like(ASTRONAUT)
SECOND = 16_000


def moving(count: int) -> list[np.ndarray]:
    return [np.roll(ASTRONAUT, i % 7, 1) for i in range(count)]


def write_clip(path: Path, frames: list[np.ndarray]) -> SourceClip:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, audio=np.zeros(len(frames) * 640, np.int16))
    return SourceClip(path.stem, path, "")


@pytest.mark.parametrize(
    ("frames", "options", "reason"),
    [
        (moving(20) + [BLACK] * 10, {}, "the video is black (in 33 % of the frames)"),
        ([BLACK] * 10, {}, "the video is black (in 100 % of the frames)"),
        (moving(10) + [ASTRONAUT] * 30, {}, "the video is frozen (for 1.2 s)"),
        (moving(30), {"max_seconds": 1.0}, "too long (more than 1 s)"),
        (moving(4), {}, "too short (4 frames)"),
        (moving(30), {}, ""),
        (moving(20) + [BLACK] * 4, {}, ""),
    ],
)
def test_reasons(tmp_path: Path, frames: list[np.ndarray], options: dict, reason: str) -> None:
    done = prepare_clip(write_clip(tmp_path / "clip.mp4", frames), tmp_path / "dst", **options)
    assert (done.rejection.reason if done.rejection else "") == reason
    assert (tmp_path / "dst" / "video" / "clip.mp4").is_file() == (reason == "")
    assert done.frames == (0 if reason else len(frames))


def test_face_share_and_length_difference_are_checked() -> None:
    monitor = FrameMonitor(100, frames=50, longest_frozen=1)
    check_clip(monitor, 0.8, 2.2)
    with pytest.raises(MediaError, match=r"face in too few frames \(79 %\)"):
        check_clip(monitor, 0.79, 2.0)
    with pytest.raises(MediaError, match=r"differ in length \(-0\.25 s\)"):
        check_clip(monitor, 1.0, 1.75)


def test_frame_monitor_stops_an_endless_video() -> None:
    def endless():
        while True:
            yield ASTRONAUT

    monitor = FrameMonitor(6)
    with pytest.raises(MediaError, match=r"too long \(more than 0\.24 s\)"):
        list(monitor.watch(endless()))
    assert monitor.frames == 6
    assert not monitor.finished


def test_too_many_rejections_fail_the_command(tmp_path: Path, capsys) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    for number in range(3):
        write_clip(src / f"black{number}.mp4", [BLACK] * 6)
    write_clip(src / "short.mp4", moving(2))
    for number in range(2):
        write_clip(src / f"good{number}.mp4", moving(8))
    arguments = ["prepare", "folder", str(src), str(dst), "--workers", "1", "--vocab-size", "8"]
    assert main(arguments) == 1
    message = capsys.readouterr().err
    assert "4 of 6 inputs were rejected, more than the share 0.5" in message
    assert "most often (3 times): the video is black" in message
    assert "Traceback" not in message
    assert not (dst / "train.tsv").exists()
    assert len((dst / "rejected.tsv").read_text().splitlines()) == 4
    report = (dst / "report.html").read_text()
    assert "the video is black" in report
    assert "too short (2 frames)" in report
    assert main([*arguments, "--max-rejected", "0.7"]) == 0
    assert len(read_manifest(dst / "train.tsv")) == 2
    with pytest.raises(DataError, match=r"more than the share 0\.6"):
        prepare("folder", src, dst, workers=1, max_rejected=0.6)


@pytest.mark.parametrize(("option", "value"), [("--max-rejected", "1.5"), ("--max-seconds", "0")])
def test_a_share_or_length_out_of_range_is_an_error(tmp_path: Path, capsys, option: str, value: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["prepare", "folder", str(tmp_path), str(tmp_path / "dst"), option, value])
    assert stopped.value.code == 2
    assert f"{value} is not a" in capsys.readouterr().err
