"""Two processes of torchrun (gloo, CPU) against one: the same list of micro-batches, so the same training."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avhubert.config.schema import TrainConfig
from avhubert.errors import ConfigError
from avhubert.train import distributed
from avhubert.train.distributed import make_fabric

STEPS = 20
COMMON = (
    *("seed=7", f"train.max_steps={STEPS}", "train.frames_per_step=240", "train.frames_per_batch=80"),
    *("train.save_every=5", "train.keep_last=9", "train.validate_every=3", "train.log_every=1"),
    *("optimizer.warmup_steps=2", "optimizer.lr=5e-4", "model.encoder_layerdrop=0.2", "train.accelerator=cpu"),
)


@pytest.fixture(scope="module")
def settings(data_dir: Path, labels_dir: Path, small_model: list[str]) -> list[str]:
    return [f"data.dir={data_dir}", f"data.labels={labels_dir}", *small_model, *COMMON]


def train(settings: list[str], run: Path, ranks: int, *more: str) -> Path:
    launch = [sys.executable]
    if ranks > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    arguments = ["-m", "avhubert.cli", "pretrain", "--config-name", "tiny_iter2", *settings, f"run_dir={run}", *more]
    done = subprocess.run(
        [*launch, *arguments], capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, f"{done.stderr[:6000]}\n…\n{done.stderr[-2000:]}"
    return run


def metrics(run: Path, split: str) -> dict[int, dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {row["step"]: row for row in rows if row["split"] == split}


@pytest.fixture(scope="module")
def alone(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(settings, tmp_path_factory.mktemp("alone") / "run", 1)


def rounding(sharding: str, step: int, plain: float) -> float:
    """The relative difference that a sharded model may have at a step: its sums run in another order.

    Rounding grows by about 1.6 a step, from 3e-8 at the third to 1e-4 near the twentieth, more or less by processor; a
    wrong gradient or another sample shows at the second step, far above the 1e-5 that the first ten are held to.
    """
    if sharding == "none":
        return plain
    return 1e-5 if step <= STEPS // 2 else 1e-3


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_ranks_train_as_one(settings: list[str], alone: Path, tmp_path: Path, sharding: str) -> None:
    both = train(settings, tmp_path / "run", 2, f"train.sharding={sharding}")
    for split in ("train", "valid"):
        one, two = metrics(alone, split), metrics(both, split)
        assert one.keys() == two.keys()
        for step, row in one.items():
            tolerance = rounding(sharding, step, plain=1e-6)
            for name in ("loss", "loss_masked", "masked_accuracy", "features_pen"):
                assert two[step][name] == pytest.approx(row[name], rel=tolerance, abs=1e-7), (split, step, name)
    middle = Path("state") / f"step_{STEPS // 2}.pt"
    a, b = (torch.load(run / middle, weights_only=True)["model"] for run in (alone, both))
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[name].float(), b[name].float(), atol=2e-4) for name in a)
    if sharding == "none":
        a, b = (load_file(run / "model.safetensors") for run in (alone, both))
        assert all(torch.allclose(a[name].float(), b[name].float(), atol=2e-5) for name in a)


@pytest.mark.parametrize("sharding", ["none", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_a_changed_number_of_ranks_goes_on_with_the_same_samples(
    settings: list[str], alone: Path, tmp_path: Path, sharding: str
) -> None:
    run = Path(shutil.copytree(alone, tmp_path / "run"))
    for last, ranks in ((5, 2), (10, 1)):  # from there on
        for path in (run / "state").glob("step_*.pt"):
            if int(path.stem.removeprefix("step_")) > last:
                path.unlink()
        train(settings, run, ranks, f"train.sharding={sharding}")
    for step, row in metrics(alone, "train").items():
        tolerance = rounding(sharding, step, plain=1e-5)
        assert metrics(run, "train")[step]["loss"] == pytest.approx(row["loss"], rel=tolerance)


ENDS = """
import atexit
import torch.distributed as dist
atexit.register(lambda: print("left" if not dist.is_initialized() else "still in"))  # runs last
from avhubert.config.schema import TrainConfig
from avhubert.train.distributed import make_fabric, total
fabric = make_fabric(TrainConfig(accelerator="cpu"))
for _ in range(20):
    assert total(fabric, 1.0) == [fabric.world_size]
"""


def test_every_rank_leaves_the_group_before_python_ends(tmp_path: Path) -> None:
    """A rank that did not was aborted in four of five runs of six ranks on two cores, its work done."""
    (tmp_path / "ends.py").write_text(ENDS, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    done = subprocess.run(
        [*launch, tmp_path / "ends.py"],
        capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("left") == 3, done.stdout


@pytest.mark.parametrize(
    ("system", "device", "sharding", "message"),
    [
        ("darwin", "mps", "none", "several processes cannot train on Apple's GPU"),
        ("win32", "cuda", "none", "several GPUs need NCCL, which PyTorch has on Linux only; start one process"),
        ("win32", "cpu", "fsdp", "train.sharding=fsdp works on Linux only, .* give train.sharding=none"),
    ],
)
def test_what_pytorch_cannot_do_on_other_systems(
    system: str, device: str, sharding: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The devices are not here: only their choice is replaced."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(distributed, "resolve_device", lambda name: torch.device(device))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=message):
        make_fabric(TrainConfig(accelerator=device, sharding=sharding))
