"""A real Ray cluster on this machine: same output as without it, also if a worker is killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from avhubert.corpora.sources import SourceClip
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.errors import ConfigError
from avhubert.prepare.executors.ray import run_on_ray
from avhubert.prepare.pipeline import prepare
from avhubert.prepare.records import ClipResult
from avhubert.processes import Failure, report_progress

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'avhubert[ray]')")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One cluster for all tests, because starting it takes seconds."""
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def content(data: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(data)): path.read_bytes().replace(str(data).encode(), b"ROOT")
        for path in sorted(data.rglob("*"))
        if path.is_file() and path.name not in (".lock", "report.html") and path.parent.name != "journal"
    }


@pytest.mark.slow
def test_ray_gives_the_same_output_as_local_workers(tmp_path: Path) -> None:
    make_corpus(tmp_path / "corpus", 6, seed=5)
    prepare("lrs3", tmp_path / "corpus", tmp_path / "local", workers=1)
    prepare("lrs3", tmp_path / "corpus", tmp_path / "ray", workers=2, executor="ray")
    assert content(tmp_path / "ray") == content(tmp_path / "local")


@pytest.mark.slow
def test_clips_of_a_killed_worker_are_tried_again(tmp_path: Path) -> None:
    folder = str(tmp_path)
    signal_number = int(signal.SIGKILL)

    def work(clip: SourceClip, times: int) -> ClipResult:
        if clip.id == "3":
            for number in range(times):
                marker = Path(folder) / f"died{number}"
                if not marker.exists():
                    marker.touch()
                    os.kill(os.getpid(), signal_number)
        return ClipResult(clip.id, frames=int(clip.id))

    clips = [SourceClip(str(number), tmp_path / "x.mp4", "") for number in range(8)]
    outcomes = {clip.id: outcome for clip, outcome in run_on_ray(work, clips, 2, 60, 1)}
    assert {name: outcome.frames for name, outcome in outcomes.items()} == {str(number): number for number in range(8)}
    assert (tmp_path / "died0").exists()
    outcomes = {clip.id: outcome for clip, outcome in run_on_ray(work, clips, 2, 60, 9)}
    failure = outcomes.pop("3")
    assert isinstance(failure, Failure)
    assert failure.reason == "the decoder crashed, or made no progress for 60 s, in 4 Ray workers"
    assert {name: outcome.frames for name, outcome in outcomes.items()} == {
        str(number): number for number in range(8) if number != 3
    }


@pytest.mark.slow
def test_a_hanging_clip_on_ray_is_given_up(tmp_path: Path) -> None:
    def work(clip: SourceClip) -> ClipResult:
        if clip.id == "1":
            time.sleep(3600)
        for _ in range(4):  # longer than the limit, with signs of life
            time.sleep(0.5)
            report_progress()
        return ClipResult(clip.id, frames=1)

    clips = [SourceClip(str(number), tmp_path / "x.mp4", "") for number in range(3)]
    outcomes = {clip.id: outcome for clip, outcome in run_on_ray(work, clips, 2, 1.5)}
    assert isinstance(outcomes.pop("1"), Failure)
    assert [outcome.frames for outcome in outcomes.values()] == [1, 1]


def test_an_unknown_executor_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown executor 'slurm'; known: local, ray"):
        prepare("folder", tmp_path, tmp_path / "dst", executor="slurm")


def test_error_without_ray_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'avhubert\[ray\]'"):
        list(run_on_ray(ClipResult, [SourceClip("a", tmp_path / "a.mp4", "")], 1, 60))
