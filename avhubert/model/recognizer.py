"""The recognizer: AVHubert, an attention decoder and, optionally, a CTC head.

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
from avhubert.model.inference import Linear
from avhubert.model.inputs import ModelInputs, takes_inputs
from avhubert.model.metadata import ModelMetadata

if TYPE_CHECKING:
    from avhubert.data.tokenizer import Tokenizer


class Recognizer(nn.Module):
    """Recognizes speech from audio, video or both.

    Args:
        encoder: the pre-trained model.
        decoder: of the encoder's width.
        decoder_config: of the decoder.
        ctc: the CTC head; None: none.

    Attributes:
        decode_settings: recommended settings of beam search.
        tokenizer: a `data.tokenizer.Tokenizer`; set by the code that loads or trains the recognizer.
        metadata: how the weights were made; set like the tokenizer.
        frozen: whether the encoder gets no gradient.
        drift: whether a frozen encoder still follows `train()`: dropout and batch-norm updates stay active.
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
        self.frozen = False
        self.drift = False

    @classmethod
    def from_config(cls, model: ModelConfig, decoder: DecoderConfig) -> Recognizer:
        """Make a recognizer with random weights.

        Raises:
            ConfigError: the sizes do not match.
        """
        return cls.from_encoder(AVHubert(model), decoder)

    @classmethod
    def from_encoder(cls, encoder: AVHubert, decoder: DecoderConfig) -> Recognizer:
        """Make a recognizer with new heads on an encoder.

        Raises:
            ConfigError: the sizes do not match.
        """
        dim = encoder.config.encoder_embed_dim
        if dim % decoder.attention_heads:
            raise ConfigError(
                f"model.decoder.attention_heads={decoder.attention_heads} must divide the encoder's width {dim}"
            )
        if decoder.vocab_size <= EOS:
            raise ConfigError(f"decoder.vocab_size={decoder.vocab_size} leaves no room for symbols")
        ctc = Linear(dim, decoder.vocab_size) if decoder.ctc else None
        return cls(encoder, AttentionDecoder(dim, decoder), decoder, ctc)

    def train(self, mode: bool = True) -> Recognizer:
        """Set training or evaluation mode; a frozen encoder without `drift` stays in evaluation mode."""
        super().train(mode)
        if self.frozen and not self.drift:
            self.encoder.eval()
        return self

    def freeze_encoder(self, frozen: bool, drift: bool = False) -> None:
        """Freeze the encoder or release it.

        Args:
            frozen: the encoder gets no gradient, and stays in evaluation mode (no dropout, batch-norm statistics are
                not updated).
            drift: the encoder gets no gradient, but follows `train()`, as in the published system.
        """
        self.frozen, self.drift = frozen, drift
        self.train(self.training)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.encoder.device

    @property
    def dtype(self) -> torch.dtype:
        """The data type of the weights."""
        return self.encoder.dtype

    @takes_inputs(1)
    def encode(self, inputs: ModelInputs) -> Tensor:
        """Encode a batch, or its tensors (see `ModelInputs`): frames [B, T, D], of any value at padding.

        Raises:
            DataError: the number of audio features differs from the model's.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features: Tensor = self.encoder(inputs, padding=False)
            return features

    @takes_inputs(2)
    def forward(self, tokens: Tensor, inputs: ModelInputs) -> Tensor:
        """Logits [B, L, V] of the token after each token.

        Args:
            tokens: int [B, L], each row starts with the decoder's `start_token`.
            inputs: the batch, or its tensors (see `ModelInputs`).
        """
        logits: Tensor = self.decoder(tokens, self.encode(inputs), inputs.mask)
        return logits

    def extract_features(
        self,
        audio: Tensor | np.ndarray | None = None,
        video: Tensor | np.ndarray | None = None,
        padding_mask: Tensor | np.ndarray | None = None,
        layer: int | None = None,
        padding: bool = True,
    ) -> Tensor:
        """Compute features of the encoder; see `AVHubert.extract_features`."""
        return self.encoder.extract_features(audio, video, padding_mask, layer, padding)

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
        """Write a model directory that `avhubert.load` reads.

        Raises:
            ConfigError: the recognizer has no tokenizer, or the directory cannot be written.
        """
        from avhubert import save

        save(self, directory)
