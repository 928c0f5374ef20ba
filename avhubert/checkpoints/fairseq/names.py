"""The table between our tensor names and those of published checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from avhubert.checkpoints.pickles import printable
from avhubert.config.schema import DecoderConfig, ModelConfig
from avhubert.errors import list_names

ENCODER = "encoder.w2v_model."  # prefix of the encoder's names in a fine-tuned checkpoint
RESNET = "feature_extractor_video.resnet."
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")  # of an attention; ours and the published names are the same

WRAPPERS = ("module", "_orig_mod")  # no published name has one of these parts
NOT_LEARNED = ("decoder.version", "decoder.embed_positions._float_tensor")  # constants, ignored in a recognizer
PRETRAINING_ONLY = ("mask_emb", "label_embs_concat", "final_proj.weight", "final_proj.bias")  # ignored in a recognizer


def printable_names(names: Iterable[object]) -> str:
    """The first names of a list out of a file, for a message, and how many more there are."""
    return list_names([printable(name, 120) for name in names])


def without_wrappers(name: str) -> str:
    """A tensor's name without the parts that DistributedDataParallel and torch.compile add."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def module_names(config: ModelConfig, decoder: DecoderConfig | None) -> dict[str, str]:
    """The table: our names of modules and parameters to the published ones.

    The last part of a tensor's name, such as `weight`, is the same on both sides.
    """
    pairs = dict(_encoder_names(config))
    if decoder is None:
        return pairs
    return {f"encoder.{ours}": ENCODER + theirs for ours, theirs in pairs.items()} | dict(_decoder_names(decoder))


def front_end_names(config: ModelConfig) -> Iterator[tuple[str, str]]:
    """The names of front ends and fusion, ours and theirs."""
    yield "audio", "feature_extractor_audio.proj"
    yield "visual.projection", "feature_extractor_video.proj"
    yield "visual.stem_conv", f"{RESNET}frontend3D.0"
    yield "visual.stem_norm", f"{RESNET}frontend3D.1"
    yield "visual.stem_activation", f"{RESNET}frontend3D.2"
    for stage, blocks in enumerate(config.visual_blocks):
        for block in range(blocks):
            ours, theirs = f"visual.stages.{stage}.{block}", f"{RESNET}trunk.layer{stage + 1}.{block}"
            for number in (1, 2):
                yield f"{ours}.conv{number}", f"{theirs}.conv{number}"
                yield f"{ours}.norm{number}", f"{theirs}.bn{number}"
                yield f"{ours}.activation{number}", f"{theirs}.relu{number}"
            yield f"{ours}.shortcut_conv", f"{theirs}.downsample.0"
            yield f"{ours}.shortcut_norm", f"{theirs}.downsample.1"
    yield "fusion_norm", "layer_norm"
    yield "fusion_projection", "post_extract_proj"


def _encoder_names(config: ModelConfig) -> Iterator[tuple[str, str]]:
    yield "mask_embedding", "mask_emb"
    yield "head.class_embeddings", "label_embs_concat"
    yield "head.projection", "final_proj"
    yield from front_end_names(config)
    yield "encoder.position.bias", "encoder.pos_conv.0.bias"
    yield "encoder.position.gain", "encoder.pos_conv.0.weight_g"
    yield "encoder.position.direction", "encoder.pos_conv.0.weight_v"
    for layer in range(config.encoder_layers):
        ours, theirs = f"encoder.layers.{layer}", f"encoder.layers.{layer}"
        for part in PROJECTIONS:
            yield f"{ours}.attention.{part}", f"{theirs}.self_attn.{part}"
        yield f"{ours}.attention_norm", f"{theirs}.self_attn_layer_norm"
        yield f"{ours}.fc1", f"{theirs}.fc1"
        yield f"{ours}.fc2", f"{theirs}.fc2"
        yield f"{ours}.ffn_norm", f"{theirs}.final_layer_norm"
    yield "encoder.norm", "encoder.layer_norm"


def _decoder_names(decoder: DecoderConfig) -> Iterator[tuple[str, str]]:
    yield "decoder.embedding", "decoder.embed_tokens"
    for layer in range(decoder.layers):
        ours = theirs = f"decoder.layers.{layer}"
        for attention, published in (("self_attention", "self_attn"), ("cross_attention", "encoder_attn")):
            for part in PROJECTIONS:
                yield f"{ours}.{attention}.{part}", f"{theirs}.{published}.{part}"
            yield f"{ours}.{attention}_norm", f"{theirs}.{published}_layer_norm"
        yield f"{ours}.fc1", f"{theirs}.fc1"
        yield f"{ours}.fc2", f"{theirs}.fc2"
        yield f"{ours}.ffn_norm", f"{theirs}.final_layer_norm"
    yield "decoder.norm", "decoder.layer_norm"


def published_name(ours: str, table: dict[str, str]) -> str | None:
    """The published name of one of our tensors; None for one that published models do not have."""
    if ours in table:
        return table[ours]
    module, _, leaf = ours.rpartition(".")
    return f"{table[module]}.{leaf}" if module in table else None
