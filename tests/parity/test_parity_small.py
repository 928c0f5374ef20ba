"""Encoder, decoder and beam search on sound alone, from the small files that are always here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from avhubert.config.schema import DecodeConfig, DecoderConfig, ModelConfig
from avhubert.decode.beam_search import beam_search
from avhubert.model.losses import shift
from avhubert.model.recognizer import Recognizer


@pytest.fixture(scope="module")
def kept(golden: Callable[[str], Path]) -> dict[str, np.ndarray]:
    with np.load(golden("recognizer_audio.npz")) as file:
        return dict(file)


@pytest.fixture(scope="module")
def recognizer(kept: dict[str, np.ndarray]) -> Recognizer:
    encoder = ModelConfig(
        encoder_layers=2, encoder_embed_dim=64, encoder_ffn_embed_dim=128, encoder_attention_heads=4, visual_width=8
    )
    decoder = DecoderConfig(layers=2, ffn_embed_dim=128, attention_heads=4, vocab_size=200)
    model = Recognizer.from_config(encoder, decoder).eval()
    weights = {
        name.removeprefix("weight:"): torch.from_numpy(kept[name]) for name in kept if name.startswith("weight:")
    }
    left = model.load_state_dict(weights, strict=False)
    assert not left.unexpected_keys
    assert all(name.startswith("encoder.visual") for name in left.missing_keys)
    return model


@torch.no_grad()
def test_encoder_logits_and_beams_of_sound(recognizer: Recognizer, kept: dict[str, np.ndarray]) -> None:
    mask = torch.from_numpy(kept["padding_mask"])
    encoded = recognizer.encode(torch.from_numpy(kept["audio"]), None, mask)
    published = torch.from_numpy(kept["encoder_out_TBC"]).transpose(0, 1)
    assert torch.allclose(encoded[~mask], published[~mask], atol=1e-4)
    target = torch.from_numpy(kept["target"])
    logits = recognizer.decoder(shift(target), encoded, mask)
    assert torch.allclose(logits[target != 1], torch.from_numpy(kept["logits"])[target != 1], atol=1e-3)
    told = json.loads(str(kept["beam5_lenpen1"]))
    search = DecodeConfig(beam=5, max_len_a=0, max_len_b=told["max_len_used"])
    for found, expected in zip(beam_search(recognizer, encoded, mask, search), told["hyps"], strict=True):
        assert [one.tokens for one in found] == [one["tokens"] for one in expected]
        assert [one.score for one in found] == pytest.approx([one["score"] for one in expected], abs=1e-3)
