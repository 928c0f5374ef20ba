"""Short form of the part `training`, and the sentence of a rank whose peer has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from avhubert.errors import AvhubertError
from avhubert.train.distributed import lost_ranks_reported

PEER = "[gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:43691: Connection reset by peer."


def fail(ranks: int, message: str) -> None:
    with lost_ranks_reported(SimpleNamespace(world_size=ranks, global_rank=1), Path("runs/x")):  # type: ignore[arg-type]
        raise RuntimeError(message)


def test_a_lost_rank_is_reported() -> None:
    with pytest.raises(AvhubertError, match="runs/x: rank 1 stops: another rank has ended or cannot be reached"):
        fail(2, PEER)
    for ranks, message in ((1, PEER), (2, "shapes differ")):
        with pytest.raises(RuntimeError, match=message[:5].replace("[", "\\[")):
            fail(ranks, message)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="ranks are found in /proc")
def test_broken_training_names_its_reason_and_goes_on(tmp_path: Path) -> None:
    # a process of its own: the cases are forks, and autograd refuses to run in a fork of a process that has used it
    command = [sys.executable, "-m", "tests.faults.campaign", "--part", "training", "--seed", "100", "--no-report"]
    count = os.environ.get("AVHUBERT_FAULTS", "4")
    run = subprocess.run([*command, "--cases", count, "--folder", str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"training: {count} cases" in run.stdout
