"""Small real inputs that the campaign damages: data, labels, models, a run, shards, a language model, an evaluation."""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path
from typing import Any

import torch

from avhubert.checkpoints.directory import save_model
from avhubert.checkpoints.fairseq.write import to_fairseq
from avhubert.cli.app import main
from avhubert.cluster.labels import cluster
from avhubert.config import compose
from avhubert.config.schema import DecodeConfig, DecoderConfig, ModelConfig
from avhubert.data.shards import make_shards
from avhubert.data.tokenizer import Tokenizer
from avhubert.model.encoder import AVHubert
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer
from avhubert.train import pretrain
from tests.small_data import make_data

SIZES: dict[str, Any] = {
    "visual_width": 8, "visual_blocks": [1, 1, 1, 1], "encoder_layers": 2, "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 32, "encoder_attention_heads": 2, "conv_pos": 4, "conv_pos_groups": 2,
}  # fmt: skip
SMALL = [f"model.{key}={value}".replace(" ", "") for key, value in SIZES.items()]
SHORT = [
    "seed=7", "train.max_steps=2", "train.frames_per_step=80", "train.frames_per_batch=80", "train.save_every=1",
    "train.validate_every=2", "train.log_every=1", "optimizer.warmup_steps=1", "train.accelerator=cpu",
]  # fmt: skip


def make_world(folder: Path) -> Path:
    """Make what is not in `folder` yet; it is complete when the file `complete` exists."""
    if (folder / "complete").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.set_num_threads(1)
    data = folder / "data"
    data.mkdir()
    make_data(data)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cluster(data, "mfcc", 6, folder / "labels", device="cpu")
        _make_models(folder, data)
        make_shards(data, folder / "shards", shard_mb=1)
        settings = [*SHORT, *SMALL, "model.final_dim=8", f"data.dir={data}", f"data.labels={folder / 'labels'}"]
        pretrain.run(compose("pretrain", "tiny_iter2", [*settings, f"run_dir={folder / 'run'}"]))
        for text in (
            f"evaluate {folder}/recognizer {data} --device cpu --out {folder}/evaluation",
            f"cluster {data} --features {folder}/pretrained:1 --clusters 5 --out {folder}/units --device cpu",
            f"lm {data} {folder}/lm.arpa --order 2",
        ):
            assert main(text.split()) == 0, text
    (folder / "complete").touch()
    return folder


def _make_models(folder: Path, data: Path) -> None:
    torch.manual_seed(5)
    config = ModelConfig(**SIZES)
    pretrained = AVHubert(ModelConfig(**SIZES, num_classes=[10], final_dim=8))
    save_model(folder / "pretrained", pretrained.eval(), metadata=ModelMetadata(seed=5, step=12))
    tokenizer = Tokenizer(data / "tokenizer.model")
    heads = DecoderConfig(layers=1, ffn_embed_dim=32, attention_heads=2, vocab_size=tokenizer.vocab_size)
    recognizer = Recognizer.from_config(config, heads)
    with torch.no_grad():
        for parameter in recognizer.decoder.parameters():
            parameter.mul_(2.5)
    recognizer.decode_settings = DecodeConfig(beam=2, lenpen=1.0, max_len_a=0.0, max_len_b=5)
    save_model(
        folder / "recognizer", recognizer.eval(), tokenizer.serialized, ModelMetadata(modalities=["av", "a", "v"])
    )
    for name in ("pretrained", "recognizer"):
        to_fairseq(folder / name, folder / f"{name}.pt")
