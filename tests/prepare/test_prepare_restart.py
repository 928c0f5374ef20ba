"""A preparation that is killed and started again gives the same output and leaves no temporary files."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.prepare.cleanup import remove_leftovers
from avhubert.prepare.pipeline import prepare

KILLS = int(os.environ.get("AVHUBERT_KILLS", "2"))  # 20 before a release; each takes 10 s
CLIPS_PER_KILL = 6  # more than are prepared before the kill


def content(data: Path) -> dict[str, bytes]:
    """Content of every file except journal, lock and report, without the root's path."""
    return {
        str(path.relative_to(data)): path.read_bytes().replace(str(data).encode(), b"ROOT")
        for path in sorted(data.rglob("*"))
        if path.is_file() and path.name not in (".lock", "report.html") and path.parent.name != "journal"
    }


def finished(data: Path) -> int:
    return sum(1 for path in data.rglob("*") if path.is_file() and ".part" not in path.name)


@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["lrs3", "folder"])
def test_sigkills_do_not_change_the_output(tmp_path: Path, corpus: str) -> None:
    make_corpus(tmp_path / "corpus", CLIPS_PER_KILL * KILLS, seed=3)
    if corpus == "folder":
        for transcript in tmp_path.rglob("*.txt"):
            transcript.unlink()  # transcripts of a folder have no word times
    prepare(corpus, tmp_path / "corpus", tmp_path / "undisturbed", workers=1)
    data, rng = tmp_path / "data", random.Random(0)
    command = [sys.executable, "-m", "avhubert.cli", "prepare", corpus, str(tmp_path / "corpus"), str(data)]

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            [*command, "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )

    during_write = 0
    for _ in range(KILLS):
        process, before = start(), finished(data)
        deadline = time.monotonic() + 120
        while process.poll() is None and finished(data) == before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.5))
        assert process.poll() is None, "it was done before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        during_write += any(data.rglob(".*.part*"))
    print(f"{KILLS} kills, {during_write} of them while a file was written")
    final = start()
    _, errors = final.communicate()
    assert final.returncode == 0, errors.decode()
    assert content(data) == content(tmp_path / "undisturbed")


def test_only_leftovers_of_the_given_files_are_removed(tmp_path: Path) -> None:
    names = (".a.b.abcd_123.part.mp4", ".a.abcdefgh.part.mp4", ".a.abcdefgh.part.wav", ".a [1].abcdefgh.part.mp4")
    for name in (*names, "a.mp4"):
        (tmp_path / name).touch()
    remove_leftovers([tmp_path / "a.mp4", tmp_path / "a [1].mp4", tmp_path / "gone" / "b.mp4"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".a.abcdefgh.part.wav",
        ".a.b.abcd_123.part.mp4",
        "a.mp4",
    ]
