"""The published tiny model of the golden folder, as ours."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest
import torch

from avhubert.config import ModelConfig
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

RENAMED = [
    (r"^mask_emb$", "mask_embedding"),
    (r"^label_embs_concat$", "head.class_embeddings"),
    (r"^final_proj\.", "head.projection."),
    (r"^feature_extractor_audio\.proj\.", "audio."),
    (r"^feature_extractor_video\.proj\.", "visual.projection."),
    (r"^feature_extractor_video\.resnet\.frontend3D\.0\.", "visual.stem_conv."),
    (r"^feature_extractor_video\.resnet\.frontend3D\.1\.", "visual.stem_norm."),
    (r"^feature_extractor_video\.resnet\.frontend3D\.2\.", "visual.stem_activation."),
    (r"^feature_extractor_video\.resnet\.trunk\.layer(\d)\.", lambda found: f"visual.stages.{int(found[1]) - 1}."),
    (r"\.bn(\d)\.", r".norm\1."),
    (r"\.relu(\d)\.", r".activation\1."),
    (r"\.downsample\.0\.", ".shortcut_conv."),
    (r"\.downsample\.1\.", ".shortcut_norm."),
    (r"^post_extract_proj\.", "fusion_projection."),
    (r"^layer_norm\.", "fusion_norm."),
    (r"^encoder\.layer_norm\.", "encoder.norm."),
    (r"^encoder\.pos_conv\.0\.weight_g$", "encoder.position.gain"),
    (r"^encoder\.pos_conv\.0\.weight_v$", "encoder.position.direction"),
    (r"^encoder\.pos_conv\.0\.bias$", "encoder.position.bias"),
    (r"\.self_attn_layer_norm\.", ".attention_norm."),
    (r"\.self_attn\.", ".attention."),
    (r"\.final_layer_norm\.", ".ffn_norm."),
]


def renamed(name: str) -> str:
    for pattern, ours in RENAMED:
        name = re.sub(pattern, ours, name)
    return name


@pytest.fixture(scope="session")
def published_name() -> Callable[[str], str]:
    """Our name of a published pre-trained tensor."""
    return renamed


@pytest.fixture(scope="session")
def published(golden) -> Callable[..., AVHubert]:
    """`published(**changes)` is the golden pre-trained model with some configuration values changed."""
    inert = type("Dictionary", (), {"__setstate__": lambda self, state: None})
    with torch.serialization.safe_globals([(inert, "fairseq.data.dictionary.Dictionary")]):
        content = torch.load(golden("pretrain_ckpt.pt"), weights_only=True)
    state = {renamed(name): tensor for name, tensor in content["model"].items()}

    def build(**changes) -> AVHubert:
        model = AVHubert(dataclasses.replace(TINY, **changes))
        own = model.state_dict()
        tensors = {name: tensor for name, tensor in state.items() if name in own}
        if model.config.masking_type == "feature":
            tensors["mask_embedding"] = own["mask_embedding"]
        else:
            assert model.config.visual_activation == "relu" or tensors.keys() == state.keys()
        model.load_state_dict(tensors)
        return model

    return build
