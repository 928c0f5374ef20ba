"""Losses of fine-tuning: label-smoothed cross-entropy of the attention decoder, and CTC.

Shapes: B utterances, T frames, L tokens (with `</s>`), V symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from avhubert.config.schema import FinetuneObjectiveConfig
from avhubert.constants import CTC_BLANK, EOS, PAD
from avhubert.devices import to_device, to_host
from avhubert.errors import ConfigError
from avhubert.model.inputs import ModelInputs, takes_inputs

if TYPE_CHECKING:
    from avhubert.model.recognizer import Recognizer


@dataclass
class TextTargets:
    """Target tokens of a batch. Create the targets on the CPU with `of`, then move them with `to`.

    Attributes:
        tokens: int64 [B, L], each row ends with `</s>` and is padded with `<pad>`.
        index: int64 [N], flat positions of the tokens that are not padding.
        lengths: tokens of each row without `</s>` and padding, on the host.
    """

    tokens: Tensor
    index: Tensor
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, tokens: Tensor) -> TextTargets:
        """Make targets of tokens int64 [B, L]; each row ends with `</s>` and is padded with `<pad>`."""
        index = (tokens != PAD).flatten().nonzero().squeeze(1)
        lengths = ((tokens != PAD) & (tokens != EOS)).sum(1)
        return cls(tokens, index, tuple(to_host(lengths).tolist()))

    def to(self, device: torch.device | str) -> TextTargets:
        """The same targets on `device`."""
        return to_device(self, device)


def shift(tokens: Tensor, start: int = EOS) -> Tensor:
    """The decoder's input of targets int [B, L]: the symbol `start`, then each row without its last symbol."""
    return torch.cat([tokens.new_full((len(tokens), 1), start), tokens[:, :-1]], 1).masked_fill(tokens == PAD, PAD)


def label_smoothed(scores: Tensor, targets: Tensor | TextTargets, smoothing: float) -> tuple[Tensor, Tensor]:
    """Label-smoothed cross-entropy: (1 − ε − ε/(V−1)) · nll + ε/(V−1) · Σ −log p.

    ε is distributed over the other V − 1 symbols.

    Args:
        scores: logits [B, L, V].
        targets: tokens int64 [B, L], or their TextTargets.
        smoothing: ε.

    Returns:
        The label-smoothed and the plain cross-entropy in nats, each summed over the tokens without padding.
    """
    targets = targets if isinstance(targets, TextTargets) else TextTargets.of(targets)
    logs = F.log_softmax(scores.float(), -1)
    nll = -logs.gather(-1, targets.tokens[..., None]).flatten()[targets.index].sum()
    spread = smoothing / (scores.shape[-1] - 1)
    smooth = -logs.sum(-1).flatten()[targets.index].sum()
    return (1 - smoothing - spread) * nll + spread * smooth, nll


@takes_inputs(2)
def recognizer_loss(
    recognizer: Recognizer, targets: Tensor | TextTargets, inputs: ModelInputs, objective: FinetuneObjectiveConfig
) -> tuple[Tensor, int, dict[str, Tensor]]:
    """The fine-tuning loss: (1 − w) · attention + w · CTC, summed over the batch.

    Args:
        recognizer: on the device of all other arguments.
        targets: tokens int64 [B, L] with `</s>`, padded with `<pad>`, or their TextTargets.
        inputs: the batch, or its tensors (see `ModelInputs`).
        objective: the weight w of CTC, and the label smoothing.

    Returns:
        The loss, its divisor (the number of sentences), and sums for the log: `nll` (nats), `correct` and `total`
        (tokens) if w < 1, otherwise the decoder is not used; `ctc` (nats) if w > 0.

    Raises:
        ConfigError: w > 0, and the recognizer has no CTC head.
    """
    targets = targets if isinstance(targets, TextTargets) else TextTargets.of(targets)
    weight = objective.ctc_weight
    encoded = recognizer.encode(inputs)
    losses, metrics = [], {}
    if weight < 1:
        scores = recognizer.decoder(shift(targets.tokens, recognizer.decoder.start_token), encoded, inputs.mask)
        attention, nll = label_smoothed(scores, targets, objective.label_smoothing)
        real = targets.tokens != PAD
        metrics = {
            "nll": nll.detach(),
            "correct": ((scores.argmax(-1) == targets.tokens) & real).sum(),
            "total": real.sum(),
        }
        losses.append((1 - weight) * attention)
    if weight > 0:
        if recognizer.ctc is None:
            raise ConfigError("objective.ctc_weight is above 0, but model.decoder.ctc=false leaves no CTC head")
        assert inputs.lengths is not None
        ctc = ctc_loss(recognizer.ctc(encoded), targets, inputs.lengths)
        metrics["ctc"] = ctc.detach()
        losses.append(weight * ctc)
    return torch.stack(losses).sum(), len(targets.tokens), metrics


def ctc_loss(scores: Tensor, targets: TextTargets, lengths: Sequence[int]) -> Tensor:
    """CTC loss, summed over the batch. The loss of a target that is too long for its frames is 0.

    Args:
        scores: logits [B, T, V].
        targets: of B rows.
        lengths: real frames of each row.

    Returns:
        The loss in nats, a scalar.
    """
    logs = F.log_softmax(scores.float(), -1).transpose(0, 1)
    return F.ctc_loss(
        logs,
        targets.tokens,
        tuple(lengths),  # type: ignore[arg-type]  # torch documents tuples, but its annotation lacks them
        targets.lengths,  # type: ignore[arg-type]
        blank=CTC_BLANK,
        reduction="sum",
        zero_infinity=True,
    )
