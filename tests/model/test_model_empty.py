"""Models without weights: the same structure as initialised ones, without random draws and slow imports."""

from __future__ import annotations

import subprocess
import sys

import torch

from avhubert.config.schema import DecoderConfig, ModelConfig
from avhubert.model.empty import empty_weights, fill_weights
from avhubert.model.recognizer import Recognizer

SMALL = ModelConfig(
    visual_width=8, visual_blocks=[1, 1], encoder_layers=1, encoder_embed_dim=16, encoder_ffn_embed_dim=16,
    encoder_attention_heads=2, conv_pos=4, conv_pos_groups=2, num_classes=[5],
)  # fmt: skip
DECODER = DecoderConfig(layers=1, ffn_embed_dim=16, attention_heads=2, vocab_size=9, ctc=True)


def test_filled_model_equals_the_original():
    model = Recognizer.from_config(SMALL, DECODER)
    random_state = torch.get_rng_state()
    with empty_weights():
        copy = Recognizer.from_config(SMALL, DECODER)
    assert all(parameter.is_meta for parameter in copy.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    fill_weights(copy, model.state_dict())
    for (name, expected), tensor in zip(model.state_dict().items(), copy.state_dict().values(), strict=True):
        assert torch.equal(tensor, expected), name
        assert (tensor.dtype, tensor.stride()) == (expected.dtype, expected.stride()), name
        assert tensor.data_ptr() != expected.data_ptr(), name
    assert [(n, p.requires_grad) for n, p in copy.named_parameters()] == [
        (n, p.requires_grad) for n, p in model.named_parameters()
    ]


def test_loading_imports_no_compiler():
    code = """
import sys
import avhubert
avhubert.load("builtin")
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
