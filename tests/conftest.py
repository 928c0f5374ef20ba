"""Shared fixtures: the golden files (the small ones are kept here, the others skipped); one torch thread a process."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import torch

from avhubert.cluster.labels import cluster
from avhubert.config.schema import ModelConfig
from avhubert.model.encoder import AVHubert
from tests import fake_device
from tests.small_data import make_data

# these machines are shared: an example may take long without being at fault
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
SMALL = Path(__file__).parent / "data" / "golden"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m quick`, files and folders without that mark are not imported: that would take half of the time."""
    if config.getoption("markexpr") != "quick":
        return None
    files = collection_path.rglob("test_*.py") if collection_path.is_dir() else [collection_path]
    return not any("pytest.mark.quick" in path.read_text(encoding="utf-8") for path in files) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` on a machine without CUDA; register the fake GPU before the first test of the process."""
    if any(item.path.name == "test_one_device.py" for item in items):
        with contextlib.suppress(pytest.skip.Exception):  # its own tests are skipped then, with this reason
            fake_device.gpu()
    if not REAL.is_dir():
        for item in items:
            if item.get_closest_marker("real"):
                item.add_marker(pytest.mark.skip(reason="the recordings of real people are not on this machine"))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="this machine has no CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory of 12 clips of 1 to 1.6 s: every "phone" has its tone and mouth. Do not write in it."""
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def labels_dir(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of `data_dir`: clusters of MFCC."""
    folder = tmp_path_factory.mktemp("labels") / "mfcc"
    cluster(data_dir, "mfcc", 6, folder)
    return folder


SMALL_MODEL = (
    *("visual_width=8", "visual_blocks=[1,1,1,1]", "encoder_layers=2", "encoder_embed_dim=32"),
    *("encoder_ffn_embed_dim=64", "encoder_attention_heads=2", "conv_pos=8", "conv_pos_groups=4"),
)


@pytest.fixture(scope="session")
def small_model() -> list[str]:
    """Overrides that make a preset's model small enough for a test."""
    return [f"model.{setting}" for setting in (*SMALL_MODEL, "final_dim=16")]


@pytest.fixture(scope="session")
def small_scratch() -> list[str]:
    """The same of a recognizer that starts from random weights."""
    heads = ("layers=1", "ffn_embed_dim=64", "attention_heads=2")
    return [
        "model.pretrained=none",
        *(f"model.scratch.{setting}" for setting in SMALL_MODEL),
        *(f"model.decoder.{setting}" for setting in heads),
    ]


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """`golden(name)` is the path of a golden file; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        for path in (GOLDEN / name, SMALL / name):
            if path.exists():
                return path
        pytest.skip(f"golden file {name} is not here: the folder ../shared/golden is not part of the package")

    return find


SMALL_SIZES = ModelConfig(
    visual_width=4,
    visual_blocks=[1, 1, 1, 1],
    encoder_layers=3,
    encoder_embed_dim=32,
    encoder_ffn_embed_dim=48,
    encoder_attention_heads=4,
    conv_pos=16,
    conv_pos_groups=4,
    num_classes=[14],
    final_dim=8,
)


@pytest.fixture
def small():
    """`small(**changes)` is a small model with random weights; every parameter is away from its initial value."""

    def build(**changes) -> AVHubert:
        torch.manual_seed(0)
        model = AVHubert(dataclasses.replace(SMALL_SIZES, **changes))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(0.1 * (torch.rand_like(tensor) if "running_var" in name else torch.randn_like(tensor)))
        return model

    return build


@pytest.fixture
def batch():
    """audio [3, 104, 20], video [3, 1, 20, 88, 88], padding_mask of lengths 20, 13, 16; there is rubbish in padding."""
    random = torch.Generator().manual_seed(1)
    padding_mask = torch.arange(20) >= torch.tensor([20, 13, 16])[:, None]
    audio = torch.randn(3, 104, 20, generator=random)
    video = torch.randn(3, 1, 20, 88, 88, generator=random)
    return audio, video, padding_mask
