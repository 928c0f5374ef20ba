"""Small models as they lie on disk, and what a published file holds, to be changed and written again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from avhubert.checkpoints.directory import save_model
from avhubert.config.schema import DecodeConfig, DecoderConfig, ModelConfig
from avhubert.data.tokenizer import Tokenizer, train_tokenizer
from avhubert.model.encoder import AVHubert
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer

TINY = ModelConfig(
    audio_feat_dim=104,
    visual_width=8,
    visual_blocks=[1, 1, 1, 1],
    encoder_layers=1,
    encoder_embed_dim=32,
    encoder_ffn_embed_dim=64,
    encoder_attention_heads=2,
    conv_pos=16,
    conv_pos_groups=4,
    final_dim=8,
)
DECODER = DecoderConfig(layers=2, ffn_embed_dim=48, attention_heads=4, activation_dropout=0.2)


def perturbed(model: nn.Module) -> nn.Module:
    """Every number is away from its initial value, so that one that is left out shows."""
    random = torch.Generator().manual_seed(3)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.rand(tensor.shape, generator=random))
        else:
            tensor.add_(7)
    return model.eval()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the quick brown fox jumps over the lazy dog", "a wizard's job is to vex chumps"], 60)


@pytest.fixture
def pretrained(tmp_path: Path) -> Callable[..., Path]:
    """`pretrained(**changes)` is the directory of a small pre-trained model."""

    def make(**changes: Any) -> Path:
        torch.manual_seed(0)
        model = perturbed(AVHubert(dataclasses.replace(TINY, num_classes=[14], **changes)))
        save_model(tmp_path / "pretrained", model, metadata=ModelMetadata(seed=5, step=12))  # type: ignore[arg-type]
        return tmp_path / "pretrained"

    return make


@pytest.fixture
def finetuned(tmp_path: Path, tokenizer: Tokenizer) -> Callable[..., Path]:
    """`finetuned(ctc, **changes)` is the directory of a small recognizer."""

    def make(ctc: bool = False, **changes: Any) -> Path:
        torch.manual_seed(0)
        decoder = dataclasses.replace(DECODER, vocab_size=tokenizer.vocab_size, ctc=ctc)
        model = perturbed(Recognizer.from_config(dataclasses.replace(TINY, **changes), decoder))
        assert isinstance(model, Recognizer)
        model.decode_settings = DecodeConfig(beam=7)
        save_model(tmp_path / "finetuned", model, tokenizer.serialized, ModelMetadata(modalities=["v"], step=34))
        return tmp_path / "finetuned"

    return make
