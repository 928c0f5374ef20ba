"""The recognizer: AVHubert, an attention decoder and, by choice, a CTC head; and its loss.

Shapes: B utterances, T frames, L tokens (with `</s>`), V symbols.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avhubert.config import DecodeConfig, DecoderConfig, FinetuneObjectiveConfig, ModelConfig
from avhubert.errors import ConfigError
from avhubert.model.decoder import PAD, AttentionDecoder
from avhubert.model.encoder import AVHubert

BLANK, EOS = 0, 2  # CTC's blank is <s>; decoding starts from </s>


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
        self.tokenizer: Any = None
        self.metadata: dict[str, Any] = {}
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

    def encode(
        self,
        audio: Tensor | None = None,
        video: Tensor | None = None,
        padding_mask: Tensor | None = None,
        has_audio: Tensor | None = None,
        has_video: Tensor | None = None,
    ) -> Tensor:
        """Encoded frames [B, T, D]; inputs as in `AVHubert.front_ends`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.encoder(audio, video, padding_mask, has_audio, has_video)

    def forward(
        self,
        tokens: Tensor,
        audio: Tensor | None = None,
        video: Tensor | None = None,
        padding_mask: Tensor | None = None,
        has_audio: Tensor | None = None,
        has_video: Tensor | None = None,
    ) -> Tensor:
        """Scores [B, L, V] of each next token, given the ones before: tokens int [B, L], beginning with `</s>`."""
        encoded = self.encode(audio, video, padding_mask, has_audio, has_video)
        return self.decoder(tokens, encoded, padding_mask)

    def extract_features(
        self,
        audio: Tensor | np.ndarray | None = None,
        video: Tensor | np.ndarray | None = None,
        padding_mask: Tensor | np.ndarray | None = None,
        layer: int | None = None,
    ) -> Tensor:
        """Features of the encoder: see `AVHubert.extract_features`."""
        return self.encoder.extract_features(audio, video, padding_mask, layer)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a model directory that `avhubert.load` reads; without a `tokenizer` it could not be used.

        ConfigError where there is none, or the directory cannot be written.
        """
        from avhubert.model.store import save_model

        if self.tokenizer is None:
            raise ConfigError("this recognizer has no tokenizer: set model.tokenizer before it is saved")
        save_model(directory, self, self.tokenizer.serialized, self.metadata)


def shift(tokens: Tensor) -> Tensor:
    """Targets int [B, L] → what the decoder has seen before each: `</s>`, then all but the last symbol of each row."""
    return torch.cat([tokens.new_full((len(tokens), 1), EOS), tokens[:, :-1]], 1).masked_fill(tokens == PAD, PAD)


def label_smoothed(scores: Tensor, tokens: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Label-smoothed cross-entropy and plain cross-entropy, each summed over tokens that are not padding.

    (1 − ε − ε/(V−1)) · nll + ε/(V−1) · Σ −log p: ε is spread over the other V − 1 symbols.
    """
    logs = F.log_softmax(scores.float(), -1)
    real = tokens != PAD
    nll = -logs.gather(-1, tokens[..., None]).squeeze(-1)[real].sum()
    spread = smoothing / (scores.shape[-1] - 1)
    smooth = -logs.sum(-1)[real].sum()
    return (1 - smoothing - spread) * nll + spread * smooth, nll


def recognizer_loss(
    recognizer: Recognizer,
    tokens: Tensor,
    audio: Tensor | None,
    video: Tensor | None,
    padding_mask: Tensor,
    has_audio: Tensor | None,
    has_video: Tensor | None,
    objective: FinetuneObjectiveConfig,
) -> tuple[Tensor, int, dict[str, Tensor]]:
    """(1 − w) · attention + w · CTC, summed over the batch; its divisor (sentences); sums for the log.

    tokens int [B, L]: targets with `</s>`, padded with `<pad>`. Metrics: `nll` (nats), `correct` and `total` (tokens),
    unless w = 1, where the decoder has no part; `ctc` (nats), unless w = 0.
    """
    weight = objective.ctc_weight
    encoded = recognizer.encode(audio, video, padding_mask, has_audio, has_video)
    losses, metrics = [], {}
    if weight < 1:
        scores = recognizer.decoder(shift(tokens), encoded, padding_mask)
        attention, nll = label_smoothed(scores, tokens, objective.label_smoothing)
        real = tokens != PAD
        metrics = {
            "nll": nll.detach(),
            "correct": ((scores.argmax(-1) == tokens) & real).sum(),
            "total": real.sum(),
        }
        losses.append((1 - weight) * attention)
    if weight > 0:
        if recognizer.ctc is None:
            raise ConfigError("objective.ctc_weight is above 0, but model.decoder.ctc=false leaves no CTC head")
        ctc = ctc_loss(recognizer.ctc(encoded), tokens, padding_mask)
        metrics["ctc"] = ctc.detach()
        losses.append(weight * ctc)
    return torch.stack(losses).sum(), len(tokens), metrics


def ctc_loss(scores: Tensor, tokens: Tensor, padding_mask: Tensor) -> Tensor:
    """CTC of scores [B, T, V] for targets int [B, L], summed; a target too long for its frames counts 0."""
    logs = F.log_softmax(scores.float(), -1).transpose(0, 1)
    real = (tokens != PAD) & (tokens != EOS)
    return F.ctc_loss(
        logs, tokens[real], (~padding_mask).sum(1), real.sum(1), blank=BLANK, reduction="sum", zero_infinity=True
    )


def ctc_best_path(scores: Tensor, padding_mask: Tensor) -> list[list[int]]:
    """The most likely symbol of each frame of scores [B, T, V], repeats and blanks left out: tokens per utterance."""
    guesses = scores.argmax(-1)
    found = []
    for row, padding in zip(guesses.cpu(), padding_mask.cpu(), strict=True):
        found.append([symbol for symbol in row[~padding].unique_consecutive().tolist() if symbol != BLANK])
    return found
