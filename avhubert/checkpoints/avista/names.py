"""The table between our tensor names and those of AVista models."""

from __future__ import annotations

from collections.abc import Iterator

from avhubert.checkpoints.fairseq.names import PROJECTIONS, front_end_names
from avhubert.config.schema import DecoderConfig, ModelConfig

ENCODER = "avhubert."  # prefix of the encoder's names in a recognizer
EMBEDDING, OUTPUT = "embed_tokens.weight", "lm_head.weight"
POSITIONS = "decoder.pos_embed.position_embeddings"  # a constant table, which our decoder computes
_CONVOLUTION = "encoder.pos_conv_embed.conv"
# PyTorch before 2.0 saved the parts of a normalised weight under other names
GAIN, DIRECTION = (f"{_CONVOLUTION}.parametrizations.weight.original{number}" for number in (0, 1))
OLDER_NAMES = {f"{_CONVOLUTION}.weight_g": GAIN, f"{_CONVOLUTION}.weight_v": DIRECTION}


def newer_name(name: str) -> str:
    """The name that newer versions of PyTorch give to a tensor."""
    for prefix in ("", ENCODER):
        older = name.removeprefix(prefix)
        if name.startswith(prefix) and older in OLDER_NAMES:
            return prefix + OLDER_NAMES[older]
    return name


def module_names(config: ModelConfig, decoder: DecoderConfig | None) -> dict[str, str]:
    """The table: our names of modules and parameters to theirs; see `fairseq.names.module_names`."""
    pairs = dict(_encoder_names(config))
    if decoder is None:
        return pairs
    return {f"encoder.{ours}": ENCODER + theirs for ours, theirs in pairs.items()} | dict(_decoder_names(decoder))


def _encoder_names(config: ModelConfig) -> Iterator[tuple[str, str]]:
    yield from front_end_names(config)
    yield "encoder.position.bias", f"{_CONVOLUTION}.bias"
    yield "encoder.position.gain", GAIN
    yield "encoder.position.direction", DIRECTION
    for layer in range(config.encoder_layers):
        name = f"encoder.layers.{layer}"
        for part in PROJECTIONS:
            yield f"{name}.attention.{part}", f"{name}.attention.{part}"
        yield f"{name}.attention_norm", f"{name}.layer_norm"
        yield f"{name}.fc1", f"{name}.feed_forward.intermediate_dense"
        yield f"{name}.fc2", f"{name}.feed_forward.output_dense"
        yield f"{name}.ffn_norm", f"{name}.final_layer_norm"
    yield "encoder.norm", "encoder.layer_norm"


def _decoder_names(decoder: DecoderConfig) -> Iterator[tuple[str, str]]:
    yield "decoder.embedding", "embed_tokens"
    yield "decoder.output", "lm_head"
    for layer in range(decoder.layers):
        name = f"decoder.layers.{layer}"
        for ours, theirs in (("self_attention", "attention"), ("cross_attention", "encoder_attn")):
            for part in PROJECTIONS:
                yield f"{name}.{ours}.{part}", f"{name}.{theirs}.{part}"
        yield f"{name}.self_attention_norm", f"{name}.layer_norm"
        yield f"{name}.cross_attention_norm", f"{name}.encoder_layer_norm"
        yield f"{name}.fc1", f"{name}.feed_forward.intermediate_dense"
        yield f"{name}.fc2", f"{name}.feed_forward.output_dense"
        yield f"{name}.ffn_norm", f"{name}.final_layer_norm"
    yield "decoder.norm", "decoder.layer_norm"
