"""Losses of fine-tuning: label-smoothed cross-entropy and CTC."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from avhubert.config.schema import FinetuneObjectiveConfig
from avhubert.constants import CTC_BLANK, EOS, PAD
from avhubert.errors import ConfigError
from avhubert.model.recognizer import Recognizer


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
        logs, tokens[real], (~padding_mask).sum(1), real.sum(1), blank=CTC_BLANK, reduction="sum", zero_infinity=True
    )
