"""Recomputing and compiling change no result; operations are counted; memory that runs out is told."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from avhubert.cli.app import main
from avhubert.config import compose
from avhubert.config.schema import MaskingConfig, ModelConfig, ObjectiveConfig
from avhubert.errors import AvhubertError, ConfigError
from avhubert.model.encoder import AVHubert, EncoderLayer
from avhubert.model.frontends import ResidualBlock
from avhubert.model.masking import draw_masks
from avhubert.model.pretraining import pretrain_loss
from avhubert.train import performance, pretrain

SMALL = ModelConfig(
    visual_width=8, visual_blocks=[1, 1, 1, 1], encoder_layers=2, encoder_embed_dim=32, encoder_ffn_embed_dim=64,
    encoder_attention_heads=2, conv_pos=8, conv_pos_groups=4, num_classes=[10], encoder_layerdrop=0.0, dropout=0.1,
)  # fmt: skip


@pytest.fixture
def model() -> AVHubert:
    torch.manual_seed(0)
    return AVHubert(SMALL).train()


def step(model: AVHubert, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of one fixed batch."""
    torch.manual_seed(1)
    audio, video = torch.randn(2, 104, 30), torch.randn(2, 1, 30, 88, 88)
    padding = torch.zeros(2, 30, dtype=torch.bool)
    labels = torch.randint(4, 10, (2, 30))
    masks = draw_masks(padding, MaskingConfig(), "input", np.random.default_rng(0))
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        loss = pretrain_loss(model, audio, video, padding, None, None, [labels], masks, ObjectiveConfig()).loss
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recomputing_activations_changes_no_bit(model: AVHubert, dtype: torch.dtype) -> None:
    other = copy.deepcopy(model)
    performance.checkpoint_blocks(other)
    loss, gradients = step(model, dtype)
    again, same = step(other, dtype)
    assert torch.equal(loss, again)
    assert gradients.keys() == same.keys()
    assert all(torch.equal(gradients[name], same[name]) for name in gradients)
    for (name, one), two in zip(model.named_buffers(), other.buffers(), strict=True):  # batch norm moved once
        assert torch.equal(one, two), name
    assert model.state_dict().keys() == other.state_dict().keys()
    evaluated = other.eval()(torch.randn(1, 104, 5))
    assert evaluated.shape == (1, 5, 32)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_blocks_compute_the_same() -> None:
    torch.manual_seed(0)
    none = dict.fromkeys(("dropout", "attention_dropout"), 0.0)
    blocks = torch.nn.ModuleList([EncoderLayer(dataclasses.replace(SMALL, **none)), ResidualBlock(4, 8, 2, "prelu")])
    compiled = copy.deepcopy(blocks)
    performance.compile_blocks(compiled)
    performance.checkpoint_blocks(compiled)
    for frames in (7, 11):
        x, images = torch.randn(2, frames, 32), torch.randn(frames, 4, 12, 12)
        results = []
        for layer, block in (blocks, compiled):
            for part in (layer, block):
                part.zero_grad()
            (layer(x, None).square().sum() + block(images).square().sum()).backward()
            results.append({name: p.grad for part in (layer, block) for name, p in part.named_parameters()})
        for name, gradient in results[0].items():
            assert torch.allclose(gradient, results[1][name], rtol=1e-4, atol=1e-4), name
    assert all(torch.allclose(a, b) for a, b in zip(blocks.buffers(), compiled.buffers(), strict=True))
    assert blocks.state_dict().keys() == compiled.state_dict().keys()


def test_compiling_without_a_compiler_is_refused(model: AVHubert, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    torch._dynamo.reset()
    with torch._inductor.utils.fresh_inductor_cache(), pytest.raises(ConfigError, match=r"train\.compile=true"):
        performance.compile_blocks(model)


def test_operations_are_those_of_the_products() -> None:
    linear = torch.nn.Linear(30, 50)
    assert performance.forward_operations(lambda: linear(torch.randn(7, 30))) == 2 * 7 * 30 * 50
    assert 1e8 < performance.matrix_rate(torch.device("cpu"), torch.float32) < 1e14


def test_memory_that_does_not_suffice_is_told_before_training(
    data_dir: Path, labels_dir: Path, small_model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [f"data.dir={data_dir}", f"data.labels={labels_dir}", *small_model, f"run_dir={tmp_path / 'run'}"]

    def too_much(self, prepared):
        torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr(pretrain.Pretraining, "loss", too_much)
    with pytest.raises(AvhubertError, match=r"largest micro-batch \(8 clips, \d+ frames\) does not fit in the memory"):
        pretrain.run(compose("pretrain", "tiny_iter2", settings))


def test_figures_of_speed_and_trackers(
    data_dir: Path, labels_dir: Path, small_model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    settings = [f"data.dir={data_dir}", f"data.labels={labels_dir}", *small_model, f"run_dir={run}"]
    settings += ["train.trackers=[tensorboard,wandb]", "train.log_every=1", "train.checkpoint_activations=true"]
    for last in (2, 3):
        assert main(["pretrain", "--config-name", "tiny_iter2", *settings, f"train.max_steps={last}"]) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    trained = [row for row in rows if row["split"] == "train"]
    assert all(0 < row["utilisation"] < 1.5 for row in trained)
    assert all(row["video_seconds_per_second"] * 25 == pytest.approx(row["frames_per_second"]) for row in trained)
    shown = events.EventAccumulator(str(run / "tensorboard"))
    shown.Reload()
    assert [event.step for event in shown.Scalars("train/loss")] == [1, 2, 3]
    assert "valid/guessed_pnmi" in shown.Tags()["scalars"]
    assert len(list((run / "wandb").glob("offline-run-*"))) == 2
    assert len({folder.name.rpartition("-")[2] for folder in (run / "wandb").glob("offline-run-*")}) == 1


def test_a_tracker_that_is_not_known_or_not_installed(
    data_dir: Path, labels_dir: Path, small_model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [f"data.dir={data_dir}", f"data.labels={labels_dir}", *small_model, f"run_dir={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match="is not one of: tensorboard, wandb"):
        compose("pretrain", "tiny_iter2", [*settings, "train.trackers=[mlflow]"])
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"pip install 'avhubert\[wandb\]'"):
        pretrain.run(compose("pretrain", "tiny_iter2", [*settings, "train.trackers=[wandb]"]))
