"""The names of tensors: `checkpoints.avista.names` as patterns, with which transformers renames in both directions.

`tests/hf` compares them with that table, name by name.
"""

from __future__ import annotations

from transformers.core_model_loading import WeightRenaming

_STEM = ("stem_conv", "stem_norm", "stem_activation")
_BLOCK = (
    *(("bn1", "norm1"), ("bn2", "norm2"), ("relu1", "activation1"), ("relu2", "activation2")),
    *(("downsample.0", "shortcut_conv"), ("downsample.1", "shortcut_norm")),
)
_CONVOLUTION = "encoder.pos_conv_embed.conv"


def renamings() -> list[WeightRenaming]:
    """The patterns from their names to ours, in the order in which they are applied.

    On the way back they are applied in the opposite order. Their dots are not escaped and also match an underline, so
    that on the way back names with `attention_norm` must be replaced before those with `attention`.
    """
    video = "feature_extractor_video"
    pairs: list[tuple[str | list[str], str]] = [
        ("feature_extractor_audio.proj.", "model.audio."),
        (f"{video}.proj.", "model.visual.projection."),
        *((f"{video}.resnet.frontend3D.{part}.", f"model.visual.{ours}.") for part, ours in enumerate(_STEM)),
        *((f"{video}.resnet.trunk.layer{stage + 1}.", f"model.visual.stages.{stage}.") for stage in range(4)),
        *((f".{theirs}.", f".{ours}.") for theirs, ours in _BLOCK),
        ("post_extract_proj.", "model.fusion_projection."),
        (f"{_CONVOLUTION}.bias", "encoder.position.bias"),
        # PyTorch before 2.0 saved the parts of a normalised weight under other names
        ([f"{_CONVOLUTION}.parametrizations.weight.original0", f"{_CONVOLUTION}.weight_g"], "encoder.position.gain"),
        (
            [f"{_CONVOLUTION}.parametrizations.weight.original1", f"{_CONVOLUTION}.weight_v"],
            "encoder.position.direction",
        ),
        (r"decoder.layers.(\d+).attention.", r"decoder.layers.\1.self_attention."),
        ("encoder_attn.", "cross_attention."),
        (r"encoder.layers.(\d+).layer_norm.", r"encoder.layers.\1.attention_norm."),
        (r"decoder.layers.(\d+).layer_norm.", r"decoder.layers.\1.self_attention_norm."),
        ("encoder_layer_norm.", "cross_attention_norm."),
        ("feed_forward.intermediate_dense.", "fc1."),
        ("feed_forward.output_dense.", "fc2."),
        ("final_layer_norm.", "ffn_norm."),
        ("encoder.layer_norm.", "encoder.norm."),
        ("decoder.layer_norm.", "decoder.norm."),
        ("(?<!model.)encoder.", "model.encoder."),
        ("layer_norm.", "model.fusion_norm."),
        ("embed_tokens.", "decoder.embedding."),
        ("lm_head.", "decoder.output."),
    ]
    return [WeightRenaming(source_patterns=theirs, target_patterns=ours) for theirs, ours in pairs]
