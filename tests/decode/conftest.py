"""A recognizer small enough to search exhaustively."""

from __future__ import annotations

import pytest
import torch

from avhubert.config import DecoderConfig, ModelConfig
from avhubert.model.recognizer import Recognizer


@pytest.fixture(scope="session")
def tiny() -> Recognizer:
    """Seven symbols, audio only in practice; weights large enough that hypotheses differ clearly."""
    torch.manual_seed(3)
    model = ModelConfig(
        visual_width=8, visual_blocks=[1, 1, 1, 1], encoder_layers=1, encoder_embed_dim=16, encoder_ffn_embed_dim=32,
        encoder_attention_heads=2, conv_pos=4, conv_pos_groups=2,
    )  # fmt: skip
    decoder = DecoderConfig(layers=2, ffn_embed_dim=32, attention_heads=2, vocab_size=7, ctc=True)
    recognizer = Recognizer.from_config(model, decoder).eval()
    with torch.no_grad():
        for parameter in recognizer.decoder.parameters():
            parameter.mul_(2.5)
    return recognizer
