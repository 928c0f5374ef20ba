"""The recognizer: AVHubert, an attention decoder and, by choice, a CTC head; and its loss.

Shapes: B utterances, T frames, L tokens (with `</s>`), V symbols.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from avhubert.config.schema import DecodeConfig, DecoderConfig, ModelConfig
from avhubert.constants import EOS
from avhubert.errors import ConfigError
from avhubert.model.decoder import AttentionDecoder
from avhubert.model.encoder import AVHubert
from avhubert.model.inputs import ModelInputs, takes_inputs
from avhubert.model.metadata import ModelMetadata

if TYPE_CHECKING:
    from avhubert.data.tokenizer import Tokenizer


class Recognizer(nn.Module):
    """Audio and lips to text.

    `tokenizer` (data.text.Tokenizer) and `metadata` are set by whoever loads or trains it; `decode_settings` say how it
    is best decoded.
    """

    def __init__(
        self, encoder: AVHubert, decoder: AttentionDecoder, decoder_config: DecoderConfig, ctc: nn.Linear | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.ctc = ctc
        self.decoder_config = decoder_config
        self.decode_settings = DecodeConfig()
        self.tokenizer: Tokenizer | None = None
        self.metadata = ModelMetadata()
        self.frozen = False  # the encoder gets no gradient
        self.drift = False  # and yet follows `train()`

    @classmethod
    def from_config(cls, model: ModelConfig, decoder: DecoderConfig) -> Recognizer:
        """A recognizer of these sizes with random weights. ConfigError for sizes that do not go together."""
        return cls.from_encoder(AVHubert(model), decoder)

    @classmethod
    def from_encoder(cls, encoder: AVHubert, decoder: DecoderConfig) -> Recognizer:
        """New heads on an encoder."""
        dim = encoder.config.encoder_embed_dim
        if dim % decoder.attention_heads:
            raise ConfigError(
                f"model.decoder.attention_heads={decoder.attention_heads} must divide the encoder's width {dim}"
            )
        if decoder.vocab_size <= EOS:
            raise ConfigError(f"decoder.vocab_size={decoder.vocab_size} leaves no room for symbols")
        ctc = nn.Linear(dim, decoder.vocab_size) if decoder.ctc else None
        return cls(encoder, AttentionDecoder(dim, decoder), decoder, ctc)

    def train(self, mode: bool = True) -> Recognizer:
        """As usual, but a frozen encoder that may not drift stays in evaluation mode."""
        super().train(mode)
        if self.frozen and not self.drift:
            self.encoder.eval()
        return self

    def freeze_encoder(self, frozen: bool, drift: bool = False) -> None:
        """Freeze the encoder wholly (no gradient, no dropout, batch norm untouched), or let it learn.

        With `drift` it only gets no gradient, as in the published system.
        """
        self.frozen, self.drift = frozen, drift
        self.train(self.training)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.encoder.device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the weights."""
        return self.encoder.dtype

    @takes_inputs(1)
    def encode(self, inputs: ModelInputs) -> Tensor:
        """Encoded frames [B, T, D] of a batch, or of its tensors (see `ModelInputs`)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.encoder(inputs)

    @takes_inputs(2)
    def forward(self, tokens: Tensor, inputs: ModelInputs) -> Tensor:
        """Scores [B, L, V] of each next token, given the previous ones: tokens int [B, L], beginning with `</s>`."""
        return self.decoder(tokens, self.encode(inputs), inputs.mask)

    def extract_features(
        self,
        audio: Tensor | np.ndarray | None = None,
        video: Tensor | np.ndarray | None = None,
        padding_mask: Tensor | np.ndarray | None = None,
        layer: int | None = None,
    ) -> Tensor:
        """Features of the encoder: see `AVHubert.extract_features`."""
        return self.encoder.extract_features(audio, video, padding_mask, layer)

    def require_tokenizer(self, action: str) -> Tokenizer:
        """The tokenizer.

        Args:
            action: What is to be done with the model, as a participle such as "saved".

        Raises:
            ConfigError: The recognizer has no tokenizer.
        """
        if self.tokenizer is None:
            raise ConfigError(f"this recognizer has no tokenizer: set model.tokenizer before it is {action}")
        return self.tokenizer

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a model directory that `avhubert.load` reads; without a `tokenizer` it could not be used.

        ConfigError where there is none, or the directory cannot be written.
        """
        from avhubert import save

        save(self, directory)
