"""No input ends a preparation: clips at which the decoder raises, hangs or dies are rejected alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data

from avhubert.cli.app import main
from avhubert.corpora.cuts import Cut, cut_if_long
from avhubert.corpora.sources import SourceClip
from avhubert.data.manifest import read_manifest
from avhubert.data.video import write_video
from avhubert.prepare import report
from avhubert.prepare.clip import media_paths, prepare_clip
from avhubert.prepare.pipeline import prepare
from avhubert.prepare.records import ClipResult

FACE = skimage.data.astronaut()[:256, 100:356]


def faulty_prepare_clip(clip: SourceClip, dst: Path, *settings: object) -> ClipResult:
    """`prepare_clip` with the faults that a decoder can have, by the name of the clip."""
    if clip.id == "hangs":
        time.sleep(3600)
    if clip.id == "kills":
        video, _ = media_paths(dst, clip.id)
        video.parent.mkdir(parents=True, exist_ok=True)
        video.with_name(f".{video.stem}.abcd1234.part.mp4").touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return prepare_clip(clip, dst, *settings)  # type: ignore[arg-type]


def faulty_cut(video: Path, **settings: Any) -> list[Cut] | None:
    """`cut_if_long` with a decoder that hangs."""
    if video.stem == "hangs early":
        time.sleep(3600)
    return cut_if_long(video, **settings)


def cannot_seek(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def cannot_decode(clip: SourceClip, dst: Path, *settings: object) -> ClipResult:
    """`prepare_clip` with a decoder that raises an error which nobody expects, or needs too much memory."""
    if clip.id == "cannot seek":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("avhubert.prepare.clip.read_audio_part", cannot_seek)
            return prepare_clip(clip, dst, *settings)  # type: ignore[arg-type]
    if clip.id == "hungry":
        np.ones(1 << 43)
    return prepare_clip(clip, dst, *settings)  # type: ignore[arg-type]


@pytest.fixture
def src(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    for name in ("good0", "good1", "good2"):
        frames = [np.roll(FACE, number % 5, 1) for number in range(10)]
        write_video(folder / f"{name}.mp4", frames, audio=np.zeros(6400, np.int16))
    return folder


def add(src: Path, *names: str) -> None:
    for name in names:
        (src / f"{name}.mp4").write_bytes((src / "good0.mp4").read_bytes())


def prepared_ids(dst: Path) -> list[str]:
    return sorted(clip.id for path in dst.glob("t*.tsv") for clip in read_manifest(path)) + [
        clip.id for clip in read_manifest(dst / "valid.tsv")
    ]


def rejected(dst: Path) -> dict[str, str]:
    return dict(line.split("\t") for line in (dst / "rejected.tsv").read_text(encoding="utf-8").splitlines())


def test_a_decoder_that_hangs_and_one_that_dies_cost_only_their_clips(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add(src, "hangs", "hangs early", "kills")
    monkeypatch.setattr("avhubert.corpora.cuts.cut_if_long", faulty_cut)
    monkeypatch.setattr("avhubert.prepare.pipeline.prepare_clip", faulty_prepare_clip)
    dst = tmp_path / "dst"
    arguments = ["prepare", "folder", str(src), str(dst), "--workers", "2", "--timeout", "3"]
    assert main(arguments) == 0
    assert sorted(prepared_ids(dst)) == ["good0", "good1", "good2"]
    assert rejected(dst) == {
        "hangs": "no progress for 3 s",
        "hangs early": "no progress for 3 s",
        "kills": "the decoder crashed (SIGSEGV)",
    }
    page = (dst / "report.html").read_text(encoding="utf-8")
    assert "no progress for 3 s" in page
    assert "the decoder crashed (SIGSEGV)" in page
    assert not list(dst.rglob(".*.part*"))
    output = capsys.readouterr().out
    assert "2 × no progress" in output
    assert "1 × the decoder crashed" in output
    # rejected clips are tried again, the others are not
    before = {path: path.stat().st_mtime_ns for path in (dst / "video").glob("*.mp4")}
    monkeypatch.undo()
    assert main([*arguments, "--workers", "1"]) == 0
    assert len(prepared_ids(dst)) == 6
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_unexpected_errors_reject_their_clips_and_are_logged(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(src, "cannot seek", "hungry")
    monkeypatch.setattr("avhubert.prepare.pipeline.prepare_clip", cannot_decode)
    summary = prepare("folder", src, tmp_path / "dst", workers=1)
    reasons = rejected(tmp_path / "dst")
    assert reasons["cannot seek"] == (
        "unexpected error PermissionError: [Errno 1] Operation not permitted; see errors.log"
    )
    assert reasons["hungry"].startswith("it needs too much memory (Unable to allocate 64.0 TiB")
    assert sorted(prepared_ids(tmp_path / "dst")) == ["good0", "good1", "good2"]
    assert summary.rejected["unexpected error PermissionError"] == 1
    log = (tmp_path / "dst" / "errors.log").read_text(encoding="utf-8")
    assert "clip cannot seek" in log
    assert "Traceback" in log
    assert "in cannot_seek" in log
    assert (tmp_path / "dst" / "train.tsv").is_file()


def test_a_report_that_fails_is_a_warning(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report.Page, "histogram", cannot_seek)
    dst = tmp_path / "dst"
    assert main(["prepare", "folder", str(src), str(dst), "--workers", "1"]) == 0
    assert len(prepared_ids(dst)) == 3
    assert (
        "warning: report.html was not written (PermissionError: [Errno 1] Operation not permitted)"
        in capsys.readouterr().out
    )
    assert "in cannot_seek" in (dst / "errors.log").read_text(encoding="utf-8")


def full_disk(clip: SourceClip, *_: object) -> ClipResult:
    raise OSError(28, "No space left on device", "/data/video")


def test_a_full_disk_ends_the_job(
    src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("avhubert.prepare.pipeline.prepare_clip", full_disk)
    assert main(["prepare", "folder", str(src), str(tmp_path / "dst"), "--workers", "1"]) == 1
    assert "/data/video: No space left on device" in capsys.readouterr().err
    assert not (tmp_path / "dst" / "train.tsv").exists()
    done = prepare_clip(SourceClip("a", src / "good0.mp4", ""), tmp_path / "ok")
    assert done.rejection is None
    monkeypatch.setattr("avhubert.prepare.clip.write_wav", full_disk)
    with pytest.raises(OSError, match="No space left"):
        prepare_clip(SourceClip("a", src / "good0.mp4", ""), tmp_path / "full")


def test_ctrl_c_ends_the_job_with_its_processes(src: Path, tmp_path: Path) -> None:
    for number in range(60):  # the job must not end before the signal, on a busy machine either
        shutil.copy(src / "good0.mp4", src / f"copy{number}.mp4")
    dst = tmp_path / "dst"
    command = [sys.executable, "-m", "avhubert.cli", "prepare", "folder", str(src), str(dst), "--workers", "2"]
    job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (dst / "journal").is_dir() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(job.pid, signal.SIGINT)
    _, errors = job.communicate(timeout=60)
    assert "interrupted; run the same command again to resume" in errors
    # Python ends itself by the signal, which shells also call 130, if a string was being executed (in a dataclass)
    assert job.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in errors
    while time.monotonic() < deadline:  # a helper of multiprocessing ends a moment later
        try:
            os.killpg(job.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("processes are left")
