"""`config.json` of a model in AVista's layout, for the library transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from avhubert.checkpoints.avista.config import DEFAULTS, VISUAL_BLOCKS, VISUAL_WIDTH, Settings
from avhubert.checkpoints.kinds import AVISTA_TYPE, PRETRAINED, RECOGNIZER
from avhubert.config.schema import DecoderConfig, ModelConfig

CONFIG_CLASS = "AVHubertConfig"


class AVHubertConfig(PretrainedConfig):
    """Configuration of `AVHubertModel` and `AVHubertForConditionalGeneration`.

    The keys and their defaults are those of AVista models (see `checkpoints.avista.config`). `visual_width` and
    `visual_blocks` are the sizes of the visual front end, which published models do not name: 64, [2, 2, 2, 2].

    Raises:
        CheckpointError: a value has another type, or asks for what our model does not have.
    """

    model_type = AVISTA_TYPE
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012
    attribute_map = {  # noqa: RUF012
        "hidden_size": "encoder_embed_dim",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
        "tie_word_embeddings": "share_decoder_input_output_embed",
    }

    def __init__(self, **values: Any) -> None:
        sizes = {VISUAL_WIDTH: ModelConfig().visual_width, VISUAL_BLOCKS: ModelConfig().visual_blocks}
        if "tie_word_embeddings" in values:
            values.setdefault("share_decoder_input_output_embed", values.pop("tie_word_embeddings"))
        for key, default in (DEFAULTS | sizes).items():
            value = values.pop(key, default)
            setattr(self, key, default if value is None else value)
        self.vocab_size = values.pop("vocab_size", None)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
            setattr(self, name, values.pop(name, None))
        values.pop("use_cache", None)
        super().__init__(
            bos_token_id=self.bos_token_id,
            eos_token_id=self.eos_token_id,
            pad_token_id=self.pad_token_id,
            **values,
        )

    def encoder_config(self) -> ModelConfig:
        """Our configuration of the encoder; gradients of its front ends are not scaled."""
        return replace(self._settings(PRETRAINED).encoder(), feature_grad_mult=1.0)

    def decoder_config(self) -> DecoderConfig:
        """Our configuration of the decoder, always with an output embedding, which transformers shares if needed."""
        decoder = self._settings(RECOGNIZER).decoder()
        assert decoder is not None
        return replace(decoder, shared_embedding=False)

    def _settings(self, architecture: str) -> Settings:
        values = self.to_dict() | {"model_type": AVISTA_TYPE, "architectures": [architecture]}
        return Settings(Path(getattr(self, "_name_or_path", "") or CONFIG_CLASS), values=values)
