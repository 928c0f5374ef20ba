"""A model that is small enough to run in milliseconds, and a batch for it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from avhubert.config.schema import ModelConfig
from avhubert.model.encoder import AVHubert

SMALL = ModelConfig(
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
        model = AVHubert(dataclasses.replace(SMALL, **changes))
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
