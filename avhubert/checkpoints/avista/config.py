"""`config.json` and `preprocessor_config.json` of an AVista model, translated to our configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from avhubert.checkpoints.avista.names import EMBEDDING, ENCODER, OUTPUT
from avhubert.checkpoints.fairseq.names import RESNET
from avhubert.checkpoints.kinds import RECOGNIZER, architecture
from avhubert.config.input_preparation import BY_AUDIO, NOSE_TO_CHIN, UNIT, InputPreparation
from avhubert.config.schema import DecodeConfig, DecoderConfig, ModelConfig
from avhubert.config.validate import from_dict
from avhubert.constants import CROP_SIZE, GRAY_MEAN, GRAY_STD, SAMPLE_RATE, STACKED_FRAMES
from avhubert.errors import CheckpointError, ConfigError, DataError
from avhubert.files import read_json_object

V = TypeVar("V", int, float, bool, str, list[int])

PREPROCESSOR = "preprocessor_config.json"
# the search that the models' cards recommend, and where transformers ends it
DECODING = DecodeConfig(beam=5, lenpen=1.0, min_len=0, max_len_a=0.0, max_len_b=255, stop="best")
PREPARATION = InputPreparation(crop=NOSE_TO_CHIN, audio_scale=UNIT, length=BY_AUDIO)
LANDMARKS = [5, 411, 199, 187]  # of the face mesh: nose, cheek, chin, cheek
_KNOWN_PREPROCESSING = {
    "image_crop_size": CROP_SIZE,
    "sr": SAMPLE_RATE,
    "stack_order_audio": STACKED_FRAMES,
    "normalize": True,
    "landmark_indices": LANDMARKS,
}
# our keys of the encoder and of the decoder, and theirs
_ENCODER_KEYS = {
    "visual_activation": "resnet_relu_type",
    "layer_norm_first": "do_stable_layer_norm",
    **{
        key: key
        for key in (
            *("audio_feat_dim", "modality_fuse", "encoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim"),
            *("encoder_attention_heads", "conv_pos", "conv_pos_groups", "dropout", "attention_dropout"),
            *("activation_dropout", "encoder_layerdrop", "dropout_input"),
        )
    },
}
_DECODER_KEYS = {
    "layers": "decoder_layers",
    "ffn_embed_dim": "decoder_ffn_embed_dim",
    "attention_heads": "decoder_attention_heads",
    "dropout": "decoder_dropout",
    "activation_dropout": "decoder_activation_dropout",
    "attention_dropout": "decoder_attention_dropout",
    "shared_embedding": "share_decoder_input_output_embed",
    "longest_text": "max_target_positions",
}
# what a missing key of `config.json` means
DEFAULTS: dict[str, int | float | bool | str] = {
    "activation_fn": "gelu",
    "audio_feat_dim": 104,
    "resnet_relu_type": "prelu",
    "modality_fuse": "concat",
    "do_stable_layer_norm": False,
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.0,
    "dropout_input": 0.0,
    "decoder_layers": 6,
    "decoder_embed_dim": 768,
    "decoder_ffn_embed_dim": 3072,
    "decoder_attention_heads": 4,
    "decoder_dropout": 0.1,
    "decoder_activation_dropout": 0.0,
    "decoder_attention_dropout": 0.1,
    "decoder_learned_pos": False,
    "share_decoder_input_output_embed": False,
    "max_target_positions": 2048,
}
VISUAL_WIDTH, VISUAL_BLOCKS = "visual_width", "visual_blocks"  # sizes that published files do not have


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of special symbols in the order of the folder's vocabulary."""

    bos: int
    eos: int
    pad: int


class Settings:
    """The values of a `config.json`; keys that decide nothing are not looked at.

    Args:
        path: the file, or where the values come from, for messages.
        tensors: of the weights, which decide the sizes that the file does not have; None: the values have them.
        values: of the file; None: they are read.

    Raises (every method):
        CheckpointError: A value has another type, or asks for what our model does not have.
    """

    def __init__(
        self, path: Path, tensors: Mapping[str, Tensor] | None = None, values: Mapping[str, Any] | None = None
    ) -> None:
        self.path = path
        self._values = read_object(path) if values is None else values
        self._tensors = tensors
        self.is_recognizer = architecture(self._values, path) == RECOGNIZER

    def _get(self, key: str) -> Any:
        default: Any = DEFAULTS[key]
        return self._typed(key, default)

    def _typed(self, key: str, default: V) -> V:
        value = self._values.get(key)
        if value is None:
            return default
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(default):
            raise self._error(f"{key}={value!r} must have the type {type(default).__name__}")
        return value

    def _error(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {problem}", path=self.path)

    def encoder(self) -> ModelConfig:
        """Our configuration of the encoder."""
        activation = self._get("activation_fn")
        if activation != DEFAULTS["activation_fn"]:
            raise self._error(
                f"activation_fn={activation} is not supported; models of this kind have {DEFAULTS['activation_fn']}"
            )
        prefix = ENCODER if self.is_recognizer else ""
        width, blocks = self._visual_sizes(prefix)
        values = {ours: self._get(theirs) for ours, theirs in _ENCODER_KEYS.items()}
        config: ModelConfig = self._checked(ModelConfig, values | {"visual_width": width, "visual_blocks": blocks})
        return config

    def decoder(self) -> DecoderConfig | None:
        """Our configuration of the decoder; None for a pre-trained model."""
        if not self.is_recognizer:
            return None
        width, decoder_width = self._get("encoder_embed_dim"), self._get("decoder_embed_dim")
        if width != decoder_width:
            raise self._error(
                f"decoder_embed_dim={decoder_width} differs from encoder_embed_dim={width}, and has to be equal"
            )
        if not self._get("do_stable_layer_norm"):
            raise self._error(
                "do_stable_layer_norm=false, a decoder with layer norms after its blocks, is not supported; no "
                "published recognizer has one"
            )
        if self._get("decoder_learned_pos"):
            raise self._error(
                "decoder_learned_pos=true is not supported; no published recognizer has learned positions"
            )
        values = {ours: self._get(theirs) for ours, theirs in _DECODER_KEYS.items()}
        fixed = {"activation": "gelu", "positions": "interleaved", "start": "<s>"}
        config: DecoderConfig = self._checked(DecoderConfig, values | fixed | {"vocab_size": self._vocab_size()})
        return config

    def special_tokens(self) -> SpecialTokens:
        """The ids of the special symbols."""
        ids = [self._typed(f"{name}_token_id", -1) for name in ("bos", "eos", "pad")]
        if min(ids) < 0 or len(set(ids)) < len(ids):
            raise self._error(
                "bos_token_id, eos_token_id and pad_token_id must be three ids of the vocabulary, not "
                + ", ".join(map(str, ids))
            )
        return SpecialTokens(*ids)

    def _vocab_size(self) -> int:
        if self._tensors is None:
            return self._typed("vocab_size", 0)
        table = self._tensors.get(EMBEDDING, self._tensors.get(OUTPUT))
        if table is None or table.dim() != 2:
            raise self._error(f"the weights lack the tensor {EMBEDDING} [symbols, width] of a recognizer")
        given = self._typed("vocab_size", len(table))
        if given != len(table):
            raise self._error(f"vocab_size={given}, but {EMBEDDING} has {len(table)} rows: they do not belong together")
        return given

    def _visual_sizes(self, prefix: str) -> tuple[int, list[int]]:
        if self._tensors is None:
            return self._typed(VISUAL_WIDTH, ModelConfig().visual_width), self._typed(
                VISUAL_BLOCKS, ModelConfig().visual_blocks
            )
        stem = self._tensors.get(f"{prefix}{RESNET}frontend3D.0.weight")
        block = re.compile(re.escape(f"{prefix}{RESNET}trunk.layer") + r"([1-4])\.(\d{1,3})\.conv1\.weight")
        found = [match for name in self._tensors if (match := block.fullmatch(name))]
        blocks = [len({match[2] for match in found if match[1] == stage}) for stage in "1234"]
        if stem is None or stem.dim() != 5 or min(blocks) == 0:
            raise self._error(f"the weights lack the visual front end ({prefix}{RESNET}…) that its architecture has")
        return len(stem), blocks

    def _checked(self, schema: type, values: dict[str, Any]) -> Any:
        try:
            return from_dict(schema, values, source=str(self.path))
        except ConfigError as error:
            raise CheckpointError(str(error), path=self.path) from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file. CheckpointError if it cannot be read or is something else."""
    try:
        return read_json_object(path)
    except DataError as error:
        raise CheckpointError(str(error), path=path) from error


def read_preparation(folder: Path) -> InputPreparation:
    """How the inputs of the model are made.

    Raises:
        CheckpointError: `preprocessor_config.json` asks for something else than this package can make.
    """
    path = folder / PREPROCESSOR
    if path.is_file():
        check_preprocessing(read_object(path), path)
    return PREPARATION


def check_preprocessing(values: Mapping[str, Any], path: Path) -> None:
    """Check the values of a `preprocessor_config.json`.

    Args:
        values: by their keys.
        path: the file, for messages.

    Raises:
        CheckpointError: they ask for something else than this package can make.
    """
    for key, known in _KNOWN_PREPROCESSING.items():
        if values.get(key, known) != known:
            raise CheckpointError(
                f"{path}: {key}={values[key]!r} is not supported; models of this kind have {known}", path=path
            )
    for name, known_number in (("mean", GRAY_MEAN), ("std", GRAY_STD)):
        number = _normalisation(values.get("transforms"), name)
        if number is not None and number != [known_number]:
            raise CheckpointError(
                f"{path}: frames are normalised with {name} {number}, which is not supported; models of this kind have "
                f"[{known_number}]",
                path=path,
            )


def _normalisation(transforms: Any, name: str) -> Any:
    """The mean or standard deviation of the transform Normalize; None if there is none."""
    for transform in transforms if isinstance(transforms, list) else []:
        if isinstance(transform, dict) and transform.get("transforms_type") == "Normalize" and name in transform:
            value = transform[name]
            try:
                return json.loads(value) if isinstance(value, str) else value
            except ValueError:
                return value
    return None
