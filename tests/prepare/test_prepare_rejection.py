"""Unusable clips are rejected for the right reason; too many rejections are an error."""

from __future__ import annotations

import itertools
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
from avhubert.prepare.rejection import FrameMonitor, check_audio, check_lengths, check_video

ASTRONAUT = skimage.data.astronaut()
BLACK = np.zeros_like(ASTRONAUT)
SECOND = 16_000


def moving(count: int) -> list[np.ndarray]:
    return [np.roll(ASTRONAUT, i % 7, 1) for i in range(count)]


def write_clip(path: Path, frames: list[np.ndarray]) -> SourceClip:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, audio=np.zeros(len(frames) * 640, np.int16))
    return SourceClip(path.stem, path, "")


def watched(frames: list[np.ndarray]) -> FrameMonitor:
    monitor = FrameMonitor(1000)
    assert sum(1 for _ in monitor.watch(frames)) == monitor.frames == len(frames)
    return monitor


def at_rest(count: int) -> list[np.ndarray]:
    """A still person: the mean change between frames is 0.01 gray levels, and no two frames are equal."""
    rng = np.random.default_rng(0)
    frames = [ASTRONAUT.copy()]
    while len(frames) < count:
        frame = frames[-1].copy()
        rows, columns = rng.integers(0, 512, (2, 2621))
        frame[rows, columns] ^= 1
        frames.append(frame)
    return frames


@pytest.mark.parametrize(
    ("frames", "options", "reason"),
    [
        (moving(20) + [BLACK] * 10, {}, "the video is black (in 33 % of the frames)"),
        ([BLACK] * 10, {}, "the video is black (in 100 % of the frames)"),
        (moving(10) + [ASTRONAUT] * 30, {}, "the video is frozen (for 1.2 s)"),
        (moving(40) + [ASTRONAUT] * 35, {}, ""),
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


def test_a_person_at_rest_is_not_frozen() -> None:
    frames = at_rest(40)
    changes = [np.abs(b.astype(int) - a).mean() for a, b in itertools.pairwise(frames)]
    assert 0.009 < np.mean(changes) < 0.011
    for before in (0, 35, 60):  # throughout, and for 1.6 s of a clip
        assert watched(moving(before) + frames).problem() is None
    one_pixel = [ASTRONAUT.copy() for _ in range(40)]
    for number, frame in enumerate(one_pixel):
        frame[101, 303, 0] = number  # not among the pixels that are compared first
    assert watched(one_pixel).problem() is None


def test_equal_frames_in_half_of_the_clip_are_frozen() -> None:
    assert str(watched([ASTRONAUT] * 40).problem()) == "the video is frozen (for 1.6 s)"
    assert str(watched(moving(35) + [ASTRONAUT] * 40).problem()) == "the video is frozen (for 1.6 s)"
    assert watched(moving(45) + [ASTRONAUT] * 40).problem() is None
    assert watched([ASTRONAUT] * 24).problem() is None  # less than a second
    hitches = [*([ASTRONAUT] * 20), *moving(7)[1:], *([ASTRONAUT] * 20)]
    assert str(watched(hitches).problem()) == "the video is frozen (for 1.6 s)"
    slow_camera = [frame for frame in moving(30) for _ in range(5)]
    assert watched(slow_camera).problem() is None
    with pytest.raises(MediaError, match=r"frozen \(for 1\.6 s\)"):
        check_video(watched([ASTRONAUT] * 40), 1.0)


def test_an_encoder_that_refines_a_frozen_frame_does_not_hide_it() -> None:
    """Two of three frames are refined, as x264 does with a repeated frame."""
    frames = [frame for index, frame in enumerate(at_rest(40)) for _ in range(1 + index % 2)]
    assert str(watched(frames).problem()) == "the video is frozen (for 2.4 s)"


def test_only_changes_of_the_face_count() -> None:
    frames = [ASTRONAUT.copy() for _ in range(40)]
    for number, frame in enumerate(frames):
        frame[400:, 400:] = number  # a clock in the corner
    monitor = watched(frames)
    face, clock = (np.tile(box, (40, 1)) for box in ([100.0, 50, 300, 250], [380.0, 380, 600, 600]))
    assert monitor.problem() is None
    assert str(monitor.problem([face])) == "the video is frozen (for 1.6 s)"
    assert monitor.problem([clock]) is None
    assert monitor.problem([face, clock]) is None  # one of two people moves


def test_face_share_and_length_difference_are_checked() -> None:
    monitor = watched(moving(50))
    check_video(monitor, 0.8)
    check_lengths(monitor, 2.2)
    with pytest.raises(MediaError, match=r"face in too few frames \(79 %\)"):
        check_video(monitor, 0.79)
    with pytest.raises(MediaError, match=r"differ in length \(-0\.25 s\)"):
        check_lengths(monitor, 1.75)


def test_audio_without_video_has_the_same_limits_of_length() -> None:
    check_audio(0.2, 1.0)
    with pytest.raises(MediaError, match=r"too short \(0\.15 s of audio\)"):
        check_audio(0.15, 1.0)
    with pytest.raises(MediaError, match=r"too long \(more than 1 s\)"):
        check_audio(1.1, 1.0)


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
    assert len((dst / "rejected.tsv").read_text(encoding="utf-8").splitlines()) == 4
    report = (dst / "report.html").read_text(encoding="utf-8")
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
