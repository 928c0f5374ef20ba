"""The configuration inside a published checkpoint, translated to ours and back."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any, TypeVar

from avhubert.checkpoints.fairseq.names import ENCODER, RESNET, printable_names
from avhubert.checkpoints.pickles import printable
from avhubert.config.schema import DecoderConfig, ModelConfig
from avhubert.config.validate import from_dict
from avhubert.constants import FILTERS, FRAME_RATE, MODALITIES
from avhubert.errors import CheckpointError, ConfigError
from avhubert.model.metadata import ModelMetadata

S = TypeVar("S", ModelConfig, DecoderConfig)

SAME_KEYS = (  # of the model, in both configurations
    *("modality_fuse", "masking_type", "final_dim", "encoder_layerdrop", "dropout_input", "dropout"),
    *("attention_dropout", "feature_grad_mult", "untie_final_proj", "activation_dropout", "layer_norm_first"),
    *("audio_feat_dim", "encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads"),
    *("encoder_layers", "conv_pos", "conv_pos_groups", "logit_temp"),
)

MASKING_KEYS = {  # ours → published
    "prob_audio": "mask_prob_audio",
    "length_audio": "mask_length_audio",
    "prob_video": "mask_prob_image",
    "length_video": "mask_length_image",
    "selection": "selection_type",
    "modality_dropout": "modality_dropout",
    "audio_dropout": "audio_dropout",
}

FINE_TUNED_KEYS = (  # ours, published, default: fine-tuning replaces these of the pre-trained model
    ("dropout", "dropout", 0.0),
    ("attention_dropout", "attention_dropout", 0.0),
    ("activation_dropout", "activation_dropout", 0.0),
    ("encoder_layerdrop", "layerdrop", 0.0),
    ("dropout_input", "dropout_input", 0.0),
    ("feature_grad_mult", "feature_grad_mult", 0.0),
)

PRETRAINING_DEFAULTS = {  # of the original, where they differ from ours
    "encoder_layerdrop": 0.0,
    "dropout_input": 0.0,
    "feature_grad_mult": 1.0,
    "untie_final_proj": False,
}

REQUIRED_ENCODER = {"activation_fn": "gelu", "sim_type": "cosine", "sub_encoder_layers": 0}  # other values are refused
REQUIRED_DECODER = {
    "share_decoder_input_output_embed": True,
    "decoder_normalize_before": True,
    "decoder_learned_pos": False,
    "no_token_positional_embeddings": False,
}

PUBLISHED_HEADS = {768: 12, 1024: 16}  # encoder width → attention heads of the Base and the Large model


# --------------------------------------------------------------------------- ours → published
def pretraining_cfg(encoder: ModelConfig, metadata: ModelMetadata) -> dict[str, Any]:
    """The published project's configuration of a pre-training that would give this model."""
    masking = metadata.masking or {}
    rate = metadata.label_rate()
    model = {"_name": "av_hubert", "label_rate": rate, "skip_masked": False, "skip_nomask": False}
    model |= {key: getattr(encoder, key) for key in SAME_KEYS}
    model |= {"resnet_relu_type": encoder.visual_activation, "extractor_mode": "default", "sub_encoder_layers": 0}
    model |= {theirs: masking[ours] for ours, theirs in MASKING_KEYS.items() if ours in masking}
    task = {
        "_name": "av_hubert_pretraining", "data": "???", "labels": ["km"], "label_rate": rate,
        "sample_rate": FRAME_RATE, "max_sample_size": 500, "min_sample_size": 5, "pad_audio": True,
        "random_crop": False, "normalize": True, "stack_order_audio": encoder.audio_feat_dim // FILTERS,
        "image_aug": True,
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
    """The published project's configuration of a fine-tuning that would give this model."""
    streams = {stream for modality in metadata.supported_modalities() for stream in MODALITIES[modality]}
    model = {
        "_name": "av_hubert_seq2seq", "w2v_path": "???", "apply_mask": False, "decoder_layers": decoder.layers,
        "decoder_dropout": decoder.dropout, "decoder_attention_dropout": decoder.attention_dropout,
        "decoder_activation_dropout": decoder.activation_dropout, "decoder_embed_dim": encoder.encoder_embed_dim,
        "decoder_ffn_embed_dim": decoder.ffn_embed_dim, "decoder_attention_heads": decoder.attention_heads,
        "freeze_finetune_updates": 0, **REQUIRED_DECODER,
        **{theirs: getattr(encoder, ours) for ours, theirs, _ in FINE_TUNED_KEYS}, "w2v_args": pretraining,
    }  # fmt: skip
    task = pretraining["task"] | {
        "is_s2s": True, "labels": ["wrd"], "single_target": True, "fine_tuning": True,
        "tokenizer_bpe_name": "sentencepiece", "tokenizer_bpe_model": "???",
        "modalities": [name for name in ("audio", "video") if name in streams],
    }  # fmt: skip
    criterion = {"_name": "label_smoothed_cross_entropy", "label_smoothing": 0.1, "report_accuracy": True}
    return {"_name": None, "common": pretraining["common"], "model": model, "task": task, "criterion": criterion}


def training_history(decoder: DecoderConfig | None, metadata: ModelMetadata) -> dict[str, Any]:
    """The entry of `optimizer_history`, from which the original reads the number of updates."""
    criterion = "AVHubertCriterion" if decoder is None else "LabelSmoothedCrossEntropyCriterion"
    return {
        "criterion_name": criterion, "optimizer_name": "FairseqAdam", "lr_scheduler_state": {"best": None},
        "num_updates": metadata.step or 0,
    }  # fmt: skip


# --------------------------------------------------------------------------- published → ours
class PublishedSettings:
    """Our configurations from a published one; sizes that it lacks come from the shapes of the tensors.

    Args:
        cfg: The published configuration as dicts, lists and scalars.
        shapes: Shapes of the tensors by published name.
        recognizer: Whether the checkpoint is fine-tuned.
        notes: Gets a sentence for each setting that is assumed.
        path: The checkpoint, for messages.
    """

    def __init__(
        self, cfg: dict[str, Any], shapes: dict[str, tuple[int, ...]], recognizer: bool, notes: list[str], path: Path
    ) -> None:
        self._shapes, self._path, self.notes = shapes, path, notes
        self._recognizer = recognizer
        self._prefix = ENCODER if recognizer else ""
        outer = cfg.get("model") if isinstance(cfg.get("model"), dict) else cfg  # older files: one flat namespace
        self._outer: dict[str, Any] = outer if isinstance(outer, dict) else {}
        self._pretraining: dict[str, Any] | None = cfg
        if recognizer:
            pretraining = self._outer.get("w2v_args")
            self._pretraining = pretraining if isinstance(pretraining, dict) else None
        root = self._pretraining or {}
        self._inner: dict[str, Any] = root["model"] if isinstance(root.get("model"), dict) else root

    def encoder(self, dictionary_sizes: list[int]) -> ModelConfig:
        """The encoder's configuration.

        Args:
            dictionary_sizes: Numbers of classes of the label dictionaries.

        Raises:
            CheckpointError: A setting or size that this package does not support.
        """
        for key, required in REQUIRED_ENCODER.items():
            self._require(self._inner, key, required)
        given = {
            field.name: value
            for field in dataclasses.fields(ModelConfig)
            if (value := _resolved(self._inner.get(field.name), self._pretraining)) is not None
        }
        sizes = self._sizes()
        config: dict[str, Any] = PRETRAINING_DEFAULTS | sizes
        if self._inner:
            config["layer_norm_first"] = False  # the original's default; every published file says true
        else:
            self.notes.append("layer_norm_first: true, as in every published model")
        config |= {key: value for key, value in given.items() if key != "num_classes"}
        config["visual_activation"] = self._inner.get("resnet_relu_type", config["visual_activation"])
        for key in ("audio_feat_dim", "final_dim"):  # -1: as in the data; 0: as wide as the encoder
            if given.get(key) in (None, 0, -1):
                config[key] = sizes[key]
        if "encoder_attention_heads" not in given:
            config["encoder_attention_heads"] = self._heads(sizes["encoder_embed_dim"])
        if self._recognizer:
            config |= {ours: self._outer.get(theirs, default) for ours, theirs, default in FINE_TUNED_KEYS}
        else:
            config["num_classes"] = self._classes(dictionary_sizes)
        return self._dataclass(ModelConfig, config)

    def decoder(self) -> DecoderConfig | None:
        """The decoder's configuration; None for a pre-trained model.

        Raises:
            CheckpointError: A decoder that this package does not support.
        """
        if not self._recognizer:
            return None
        for key, required in REQUIRED_DECODER.items():
            self._require(self._outer, key, required)
        embedding = self._shapes.get("decoder.embed_tokens.weight")
        if embedding is None or len(embedding) != 2:
            raise CheckpointError(
                f"{self._path} has an encoder for fine-tuning but no attention decoder, the only kind that is read"
            )
        if "decoder.embed_out" in self._shapes:
            raise CheckpointError(
                f"{self._path} has an output embedding of its own (decoder.embed_out), which no published model has"
            )
        given = self._outer
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

    def _sizes(self) -> dict[str, Any]:
        """Every setting that follows from the shapes of the encoder's tensors."""
        p = self._prefix
        required = (
            "feature_extractor_audio.proj.weight", f"{RESNET}frontend3D.0.weight", "encoder.layers.0.fc1.weight",
            "layer_norm.weight",
        )  # fmt: skip
        missing = [p + name for name in required if p + name not in self._shapes]
        if missing:
            raise CheckpointError(f"{self._path} lacks {printable_names(missing)}: it is not a whole AV-HuBERT model")
        width = self._size(f"{p}feature_extractor_audio.proj.weight", 0)
        blocks: list[int] = []
        while self._count(stage := rf"{re.escape(p + RESNET)}trunk\.layer{len(blocks) + 1}\.(\d+)\."):
            blocks.append(self._count(stage))
        position = self._shapes.get(f"{p}encoder.pos_conv.0.weight_v", (0, 0, 0))
        masked = self._size(f"{p}mask_emb", 0)
        audio = self._size(f"{p}feature_extractor_audio.proj.weight", 1)
        return {
            "audio_feat_dim": audio,
            "visual_width": self._size(f"{p}{RESNET}frontend3D.0.weight", 0),
            "visual_blocks": blocks,
            "visual_activation": "prelu" if f"{p}{RESNET}frontend3D.2.weight" in self._shapes else "relu",
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
        if len(dictionary_sizes) > 1:
            raise CheckpointError(
                f"{self._path}: label_embs_concat has {rows} rows, its dictionaries {dictionary_sizes}: they do not fit"
            )
        return [rows] if rows else []

    def _heads(self, width: int) -> int:
        """The encoder's attention heads, which no shape tells: those of the published model of this width."""
        of_decoder = self._outer.get("decoder_attention_heads")
        assumed = of_decoder if type(of_decoder) is int and of_decoder > 0 else max(width // 64, 1)
        heads = PUBLISHED_HEADS.get(width, assumed)
        self.notes.append(f"encoder_attention_heads: {heads}, which the file does not tell")
        if width not in PUBLISHED_HEADS:
            warnings.warn(
                f"{self._path} does not tell the encoder's number of attention heads; {heads} is assumed: "
                "check results",
                stacklevel=2,
            )
        return heads

    def _count(self, pattern: str) -> int:
        """How many different numbers the pattern's group has among the names of the tensors."""
        return len({match[1] for name in self._shapes if (match := re.match(pattern, name))})

    def _size(self, name: str, dimension: int) -> int:
        """The size of a tensor; 0 if there is no such tensor or dimension."""
        shape = self._shapes.get(name, ())
        return shape[dimension] if len(shape) > dimension else 0

    def _require(self, given: dict[str, Any], key: str, required: Any) -> None:
        if given.get(key, required) not in (required, None):
            raise CheckpointError(
                f"{self._path} was made with {key}={printable(given[key], 80)}; only {key}={required} is read"
            )

    def _dataclass(self, schema: type[S], values: dict[str, Any]) -> S:
        try:
            config: S = from_dict(schema, values, str(self._path))
        except ConfigError as error:
            raise CheckpointError(printable(error, 1000)) from error
        return config


def _resolved(value: Any, root: Any) -> Any:
    """The value, or the value that `${a.b}` refers to; None for a reference to another reference."""
    if not (isinstance(value, str) and value.startswith("${")):
        return value
    for key in value.strip("${}").split("."):
        root = root.get(key) if isinstance(root, dict) else None
    return None if isinstance(root, str) and root.startswith("${") else root
