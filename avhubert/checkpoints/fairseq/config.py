"""The configuration inside a published checkpoint, translated to ours and back."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any

from avhubert.checkpoints.fairseq.names import ENCODER, RESNET, quoted_names
from avhubert.checkpoints.torchfile import Record, printable
from avhubert.config.schema import DecoderConfig, ModelConfig
from avhubert.constants import MODALITIES
from avhubert.errors import CheckpointError, ConfigError
from avhubert.model.metadata import ModelMetadata


def pretraining_cfg(encoder: ModelConfig, metadata: ModelMetadata) -> dict[str, Any]:
    """The original's configuration of a pre-training that would give this model."""
    masking = metadata.masking or {}
    rate = metadata.label_rate()
    same = (
        *("modality_fuse", "masking_type", "final_dim", "encoder_layerdrop", "dropout_input", "dropout"),
        *("attention_dropout", "feature_grad_mult", "untie_final_proj", "activation_dropout", "layer_norm_first"),
        *("audio_feat_dim", "encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads"),
        *("encoder_layers", "conv_pos", "conv_pos_groups", "logit_temp"),
    )
    model = {"_name": "av_hubert", "label_rate": rate, "skip_masked": False, "skip_nomask": False}
    model |= {key: getattr(encoder, key) for key in same}
    model |= {"resnet_relu_type": encoder.visual_activation, "extractor_mode": "default", "sub_encoder_layers": 0}
    model |= {theirs: masking[ours] for ours, theirs in _MASKING.items() if ours in masking}
    task = {
        "_name": "av_hubert_pretraining", "data": "???", "labels": ["km"], "label_rate": rate, "sample_rate": 25,
        "max_sample_size": 500, "min_sample_size": 5, "pad_audio": True, "random_crop": False, "normalize": True,
        "stack_order_audio": encoder.audio_feat_dim // 26, "image_aug": True,
    }  # fmt: skip
    criterion = {"_name": "av_hubert", "pred_masked_weight": 1.0, "pred_nomask_weight": 0.0, "loss_weights": [10]}
    return {
        "_name": None,
        "common": {"seed": 1 if metadata.seed is None else metadata.seed},
        "model": model,
        "task": task,
        "criterion": criterion,
    }


def finetuning_cfg(
    encoder: ModelConfig, decoder: DecoderConfig, metadata: ModelMetadata, pretraining: dict[str, Any]
) -> dict[str, Any]:
    """The original's configuration of a fine-tuning that would give this model."""
    streams = {stream for modality in metadata.supported_modalities() for stream in MODALITIES[modality]}
    model = {
        "_name": "av_hubert_seq2seq", "w2v_path": "???", "apply_mask": False, "decoder_layers": decoder.layers,
        "decoder_dropout": decoder.dropout, "decoder_attention_dropout": decoder.attention_dropout,
        "decoder_activation_dropout": decoder.activation_dropout, "decoder_embed_dim": encoder.encoder_embed_dim,
        "decoder_ffn_embed_dim": decoder.ffn_embed_dim, "decoder_attention_heads": decoder.attention_heads,
        "freeze_finetune_updates": 0, **_DECODER_MUST_BE,
        **{theirs: getattr(encoder, ours) for ours, theirs, _ in _FINE_TUNED}, "w2v_args": pretraining,
    }  # fmt: skip
    task = pretraining["task"] | {
        "is_s2s": True, "labels": ["wrd"], "single_target": True, "fine_tuning": True,
        "tokenizer_bpe_name": "sentencepiece", "tokenizer_bpe_model": "???",
        "modalities": [name for name in ("audio", "video") if name in streams],
    }  # fmt: skip
    criterion = {"_name": "label_smoothed_cross_entropy", "label_smoothing": 0.1, "report_accuracy": True}
    return {"_name": None, "common": pretraining["common"], "model": model, "task": task, "criterion": criterion}


def training_history(decoder: DecoderConfig | None, metadata: ModelMetadata) -> dict[str, Any]:
    """The entry of `optimizer_history` that the original reads the number of updates from."""
    criterion = "AVHubertCriterion" if decoder is None else "LabelSmoothedCrossEntropyCriterion"
    return {
        "criterion_name": criterion, "optimizer_name": "FairseqAdam", "lr_scheduler_state": {"best": None},
        "num_updates": metadata.step or 0,
    }  # fmt: skip


_MASKING = {  # ours → theirs
    "prob_audio": "mask_prob_audio",
    "length_audio": "mask_length_audio",
    "prob_video": "mask_prob_image",
    "length_video": "mask_length_image",
    "selection": "selection_type",
    "modality_dropout": "modality_dropout",
    "audio_dropout": "audio_dropout",
}


# --------------------------------------------------------------------------- configurations and what they leave out
class PublishedSettings:
    """Our configurations from a published one; sizes that it does not give, from the tensors."""

    def __init__(
        self, cfg: dict, sizes: dict[str, tuple[int, ...]], recognizer: bool, notes: list[str], path: Path
    ) -> None:
        self.cfg, self.sizes, self.notes, self.path = cfg, sizes, notes, path
        self.recognizer = recognizer
        self.prefix = ENCODER if recognizer else ""
        outer = cfg.get("model") if isinstance(cfg.get("model"), dict) else cfg  # older files: one flat namespace
        self.outer: dict[str, Any] = outer if isinstance(outer, dict) else {}
        self.inner_root: dict[str, Any] | None = cfg
        if recognizer:
            pretrained = self.outer.get("w2v_args")
            self.inner_root = pretrained if isinstance(pretrained, dict) else None
        inner = self.inner_root or {}
        self.inner: dict[str, Any] = inner["model"] if isinstance(inner.get("model"), dict) else inner

    def encoder(self, dictionary_sizes: list[int]) -> ModelConfig:
        given = {
            name: value
            for name in (item.name for item in dataclasses.fields(ModelConfig))
            if (value := _resolved(self.inner.get(name), self.inner_root)) is not None
        }
        for key, needed in (("activation_fn", "gelu"), ("sim_type", "cosine"), ("sub_encoder_layers", 0)):
            self._only(self.inner, key, needed)
        config: dict[str, Any] = _FAIRSEQ_DEFAULTS | self._from_tensors()
        if self.inner:
            config["layer_norm_first"] = False  # the original's default; every published file says true
        else:
            self.notes.append("layer_norm_first: true, as in every published model")
        config |= {key: value for key, value in given.items() if key != "num_classes"}
        config["visual_activation"] = self.inner.get("resnet_relu_type", config["visual_activation"])
        for key in ("audio_feat_dim", "final_dim"):  # 0 and -1 stand for "as in the data", "as wide as the encoder"
            if given.get(key) in (None, 0, -1):
                config[key] = self._from_tensors()[key]
        if "encoder_attention_heads" not in given:
            config["encoder_attention_heads"] = self._heads(self._from_tensors()["encoder_embed_dim"])
        if self.recognizer:
            for ours, theirs, default in _FINE_TUNED:
                config[ours] = self.outer.get(theirs, default)
        else:
            config["num_classes"] = self._classes(dictionary_sizes)
        return self._dataclass(ModelConfig, config)

    def decoder(self) -> DecoderConfig | None:
        if not self.recognizer:
            return None
        for key, needed in _DECODER_MUST_BE.items():
            self._only(self.outer, key, needed)
        embedding = self.sizes.get("decoder.embed_tokens.weight")
        if embedding is None or len(embedding) != 2:
            raise CheckpointError(
                f"{self.path} has an encoder for fine-tuning but no attention decoder, the only kind that is read"
            )
        if "decoder.embed_out" in self.sizes:
            raise CheckpointError(
                f"{self.path} has an output embedding of its own (decoder.embed_out), which no published model has"
            )
        given = self.outer
        return self._dataclass(DecoderConfig, {
            "layers": given.get("decoder_layers", self._count(r"decoder\.layers\.(\d+)\.")),
            "ffn_embed_dim": given.get("decoder_ffn_embed_dim", self._size("decoder.layers.0.fc1.weight", 0)),
            "attention_heads": given.get("decoder_attention_heads", 4),
            "dropout": given.get("decoder_dropout", 0.1),
            "activation_dropout": given.get("decoder_activation_dropout", 0.0),
            "attention_dropout": given.get("decoder_attention_dropout", 0.0),
            "ctc": False,
            "vocab_size": embedding[0],
        })  # fmt: skip

    def _from_tensors(self) -> dict[str, Any]:
        """Every size that the shapes of the encoder's tensors tell."""
        p = self.prefix
        telling = (
            "feature_extractor_audio.proj.weight", f"{RESNET}frontend3D.0.weight", "encoder.layers.0.fc1.weight",
            "layer_norm.weight",
        )  # fmt: skip
        missing = [p + name for name in telling if p + name not in self.sizes]
        if missing:
            raise CheckpointError(f"{self.path} lacks {quoted_names(missing)}: it is not a whole AV-HuBERT model")
        width = self._size(f"{p}feature_extractor_audio.proj.weight", 0)
        blocks: list[int] = []
        while self._count(stage := rf"{re.escape(p + RESNET)}trunk\.layer{len(blocks) + 1}\.(\d+)\."):
            blocks.append(self._count(stage))
        position = self.sizes.get(f"{p}encoder.pos_conv.0.weight_v", (0, 0, 0))
        masked = self._size(f"{p}mask_emb", 0)
        audio = self._size(f"{p}feature_extractor_audio.proj.weight", 1)
        return {
            "audio_feat_dim": audio,
            "visual_width": self._size(f"{p}{RESNET}frontend3D.0.weight", 0),
            "visual_blocks": blocks,
            "visual_activation": "prelu" if f"{p}{RESNET}frontend3D.2.weight" in self.sizes else "relu",
            "modality_fuse": "concat" if self._size(f"{p}layer_norm.weight", 0) == 2 * width else "add",
            "encoder_layers": self._count(rf"{re.escape(p)}encoder\.layers\.(\d+)\."),
            "encoder_embed_dim": width,
            "encoder_ffn_embed_dim": self._size(f"{p}encoder.layers.0.fc1.weight", 0),
            "conv_pos": position[-1],
            "conv_pos_groups": position[0] // position[1] if len(position) == 3 and position[1] else 0,
            "final_dim": self._size(f"{p}label_embs_concat", 1) or width,
            "masking_type": "feature" if masked == width and masked != audio else "input",
        }

    def _classes(self, dictionary_sizes: list[int]) -> list[int]:
        rows = self._size("label_embs_concat", 0)
        if sum(dictionary_sizes) == rows:
            return dictionary_sizes
        if dictionary_sizes and len(dictionary_sizes) > 1:
            raise CheckpointError(
                f"{self.path}: label_embs_concat has {rows} rows, its dictionaries {dictionary_sizes}: they do not fit"
            )
        return [rows] if rows else []

    def _heads(self, width: int) -> int:
        known = {768: 12, 1024: 16}
        told = self.outer.get("decoder_attention_heads")
        heads = known.get(width) or (told if type(told) is int and told > 0 else max(width // 64, 1))
        self.notes.append(f"encoder_attention_heads: {heads}, which the file does not tell")
        if width not in known:
            warnings.warn(
                f"{self.path} does not tell the encoder's number of attention heads; {heads} is assumed: check results",
                stacklevel=2,
            )
        return heads

    def _count(self, pattern: str) -> int:
        return len({match[1] for name in self.sizes if (match := re.match(pattern, name))})

    def _size(self, name: str, dimension: int) -> int:
        shape = self.sizes.get(name, ())
        return shape[dimension] if len(shape) > dimension else 0

    def _only(self, given: dict[str, Any], key: str, needed: Any) -> None:
        if given.get(key, needed) not in (needed, None):
            raise CheckpointError(
                f"{self.path} was made with {key}={printable(given[key], 80)}; only {key}={needed} is read"
            )

    def _dataclass(self, schema: type, values: dict[str, Any]) -> Any:
        from avhubert.config.validate import from_dict

        try:
            return from_dict(schema, values, str(self.path))
        except ConfigError as error:
            raise CheckpointError(printable(error, 1000)) from error


_FAIRSEQ_DEFAULTS = {
    "encoder_layerdrop": 0.0,
    "dropout_input": 0.0,
    "feature_grad_mult": 1.0,
    "untie_final_proj": False,
}


_FINE_TUNED = (  # our key, the fine-tuning configuration's, its default: they replace the pre-trained model's
    ("dropout", "dropout", 0.0),
    ("attention_dropout", "attention_dropout", 0.0),
    ("activation_dropout", "activation_dropout", 0.0),
    ("encoder_layerdrop", "layerdrop", 0.0),
    ("dropout_input", "dropout_input", 0.0),
    ("feature_grad_mult", "feature_grad_mult", 0.0),
)


_DECODER_MUST_BE = {
    "share_decoder_input_output_embed": True,
    "decoder_normalize_before": True,
    "decoder_learned_pos": False,
    "no_token_positional_embeddings": False,
}


def _resolved(value: Any, root: Any) -> Any:
    """`value`, or what `${a.b}` in it points to."""
    if not (isinstance(value, str) and value.startswith("${")):
        return value
    for part in value.strip("${}").split("."):
        root = root.get(part) if isinstance(root, dict) else None
    return None if isinstance(root, str) and root.startswith("${") else root


def to_plain(value: Any, path: str | Path) -> Any:
    """Dicts, lists and scalars of a configuration: omegaconf's containers, namespaces and enums unwrapped."""
    left = 10_000_000  # characters, and 50 for each value: shared and cyclic references can make a file look endless

    def unwrap(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 50 + (len(value) if isinstance(value, str) else 0)
        if depth > 40 or left < 0:
            raise CheckpointError(f"{path}: its configuration is nested without end or huge; no published one is")
        if isinstance(value, Record):
            state = value.state if isinstance(value.state, dict) else {}
            if value.name.startswith("omegaconf."):
                return unwrap(state.get("_content", state.get("_val")), depth + 1)
            if value.name == "argparse.Namespace":
                return unwrap(state, depth + 1)
            return unwrap(value.arguments[0], depth + 1) if value.arguments else None  # an enum: its value
        if isinstance(value, dict):
            return {str(unwrap(key, depth + 1)): unwrap(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [unwrap(item, depth + 1) for item in value]
        if isinstance(value, str):
            return value.encode("utf-8", "replace").decode()  # half of a character could not be written again
        if isinstance(value, int):
            return value if -(1 << 63) <= value < 1 << 63 else None
        return value if isinstance(value, float) else None

    return unwrap(value, 0)


def read_dictionary_object(item: Any, path: str | Path) -> dict[str, Any]:
    state = item.state if isinstance(item, Record) else None
    if not isinstance(state, dict) or not isinstance(state.get("symbols"), list):
        raise CheckpointError(f"{path}: a dictionary in its task_state has no symbols")
    symbols, counts = state["symbols"], state.get("count")
    if not all(isinstance(symbol, str) for symbol in symbols):
        raise CheckpointError(f"{path}: a dictionary in its task_state has a symbol that is not text")
    if not isinstance(counts, list) or not all(type(count) is int and 0 <= count < 1 << 63 for count in counts):
        counts = [1] * len(symbols)
    return {"symbols": list(symbols), "count": list(counts)}


def read_tokenizer_bytes(state: dict[str, Any]) -> bytes | None:
    bpe = state.get("s2s_tokenizer")
    inside = bpe.state if isinstance(bpe, Record) else None
    processor = inside.get("sp") if isinstance(inside, dict) else None
    serialized = processor.state if isinstance(processor, Record) else None
    return serialized if isinstance(serialized, bytes) else None
