"""The published tiny model of the golden folder, as ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from avhubert.checkpoints.fairseq.names import module_names
from avhubert.checkpoints.fairseq.read import load
from avhubert.config.schema import ModelConfig
from avhubert.model.encoder import AVHubert

TINY = ModelConfig(
    encoder_layers=2,
    encoder_embed_dim=64,
    encoder_ffn_embed_dim=128,
    encoder_attention_heads=4,
    dropout=0,
    attention_dropout=0,
    encoder_layerdrop=0,
    dropout_input=0,
    num_classes=[54],
)


@pytest.fixture(scope="session")
def published_name() -> Callable[[str], str]:
    """Our name of a published pre-trained tensor."""
    names = {theirs: ours for ours, theirs in module_names(TINY, None).items()}

    def ours(theirs: str) -> str:
        module, _, leaf = theirs.rpartition(".")
        return names[theirs] if theirs in names else f"{names[module]}.{leaf}"

    return ours


@pytest.fixture(scope="session")
def published(golden) -> Callable[..., AVHubert]:
    """`published(**changes)` is the golden pre-trained model with some configuration values changed."""
    original = load(golden("pretrain_ckpt.pt"))
    state = original.state_dict()

    def build(**changes) -> AVHubert:
        model = AVHubert(dataclasses.replace(TINY, **changes))
        own = model.state_dict()
        tensors = {name: tensor for name, tensor in state.items() if name in own}
        if model.config.masking_type == "feature":
            tensors["mask_embedding"] = own["mask_embedding"]
        model.load_state_dict(tensors)
        return model

    return build
