"""Masked cluster prediction: cosine head, cross-entropy over masked frames, features penalty (ICLR 2022, § 3.3, eq. 3).

Shapes: B utterances, T video frames at 25 Hz, N frames that count, V classes of a label set (clusters + 4).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avhubert.config.schema import ModelConfig, ObjectiveConfig
from avhubert.constants import NO_LABEL
from avhubert.devices import to_device, to_host
from avhubert.errors import ConfigError, DataError
from avhubert.model.inputs import ModelInputs, takes_inputs
from avhubert.model.masking import Masks

if TYPE_CHECKING:
    from avhubert.model.encoder import AVHubert


class ClusterHead(nn.Module):
    """Projection to the cluster embeddings' space and cosine similarity / temperature, for one or more label sets.

    The published code lays out [N, V, 256] differences; normalising both sides and multiplying gives the same numbers.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_classes = list(config.num_classes)
        self.temperature = config.logit_temp
        self.untied = config.untie_final_proj
        sets = len(self.num_classes) if self.untied else 1
        self.projection = nn.Linear(config.encoder_embed_dim, config.final_dim * sets)
        self.class_embeddings = nn.Parameter(torch.rand(sum(self.num_classes), config.final_dim))

    def forward(self, x: Tensor) -> list[Tensor]:
        """[N, D] → logits float32 [N, V] of each label set."""
        projected = self.projection(x).float()
        sets = len(self.num_classes)
        parts = projected.chunk(sets, -1) if self.untied else [projected] * sets
        classes = F.normalize(self.class_embeddings.float(), dim=-1, eps=1e-8).split(self.num_classes)
        with torch.autocast(x.device.type, enabled=False):
            return [
                F.linear(F.normalize(part, dim=-1, eps=1e-8), embeddings) / self.temperature
                for part, embeddings in zip(parts, classes, strict=True)
            ]


@dataclass
class Targets:
    """Frames whose clusters are predicted: flat positions int64 [N] in [B, T'], classes int64 [sets, N], −1 = none."""

    index: Tensor
    classes: Tensor


@dataclass
class PretrainBatch:
    """All that the pre-training loss of a micro-batch needs. Prepare it on the CPU, then move it with `to`.

    Attributes:
        inputs: the streams before masking.
        masks: the masked frames.
        masked, unmasked: targets at masked and at unmasked real frames.
        frames: T', frames that have labels.
        sample_size: frames with a target whose cross-entropy counts.
        keep_audio, keep_video: bool [B], False where modality dropout drops the stream; None: nothing is dropped.
    """

    inputs: ModelInputs
    masks: Masks
    masked: Targets
    unmasked: Targets
    frames: int
    sample_size: int
    keep_audio: Tensor | None = None
    keep_video: Tensor | None = None

    def to(self, device: torch.device | str) -> PretrainBatch:
        """The same batch on `device`."""
        return to_device(self, device)


def prepare(
    inputs: ModelInputs,
    labels: Sequence[Tensor],
    masks: Masks,
    objective: ObjectiveConfig,
    keep: tuple[Tensor, Tensor] | None = None,
) -> PretrainBatch:
    """Find the frames to predict.

    Args:
        inputs: the streams, on the device of `labels` and `masks`.
        labels: for each label set class ids int64 [B, T'], −1 = no target; T' <= T.
        masks: from `draw_masks`.
        objective: which frames' cross-entropy counts.
        keep: (audio, video) bool [B] from `draw_modality_dropout`; the only stream of a row is always kept.
    """
    rows, frames = labels[0].shape
    device = labels[0].device
    has_audio, has_video = (_row_mask(present, rows, device) for present in (inputs.audio_rows, inputs.video_rows))
    masked = masks.union(has_audio, has_video)[:, :frames]
    real = torch.ones_like(masked) if inputs.mask is None else ~inputs.mask[:, :frames]
    classes = torch.stack(list(labels)).flatten(1)
    targets = []
    for chosen in (masked & real, ~masked & real):
        index = chosen.flatten().nonzero().squeeze(1)
        targets.append(Targets(index, classes[:, index]))
    weights = (objective.masked_weight, objective.unmasked_weight)
    counted = [(t.classes >= 0).any(0).sum() for weight, t in zip(weights, targets, strict=True) if weight]
    keep_audio, keep_video = (None, None) if keep is None else (keep[0] | ~has_video, keep[1] | ~has_audio)
    masked_targets, unmasked_targets = targets
    sample_size = sum(int(to_host(count)) for count in counted)
    return PretrainBatch(inputs, masks, masked_targets, unmasked_targets, frames, sample_size, keep_audio, keep_video)


def _row_mask(present: tuple[int, ...] | None, rows: int, device: torch.device) -> Tensor:
    assert present is not None
    mask = torch.zeros(rows, dtype=torch.bool)
    mask[list(present)] = True
    return mask.to(device)


@dataclass
class PretrainLoss:
    """The loss of a micro-batch, summed over frames, and its parts.

    Divide the gradient by the sum of `sample_size` over micro-batches and ranks.

    Attributes:
        loss: on the model's device.
        sample_size: frames that count.
        metrics: on the model's device, without gradient: loss_masked, loss_unmasked (summed cross-entropy),
            correct_masked, count_masked, correct_unmasked, count_unmasked (over all label sets), features_pen (mean
            square).
        masked_index: int64 [N], the masked real frames, b·T' + t.
        masked_predictions: int64 [sets, N], the most likely class there.
    """

    loss: Tensor
    sample_size: int
    metrics: dict[str, Tensor]
    masked_index: Tensor
    masked_predictions: Tensor


@takes_inputs(1)
def pretrain_loss(
    model: AVHubert,
    inputs: ModelInputs,
    labels: Sequence[Tensor],
    masks: Masks,
    objective: ObjectiveConfig,
    keep: tuple[Tensor, Tensor] | None = None,
) -> PretrainLoss:
    """`masked_prediction` of a batch that is prepared here; arguments as in `prepare`, all on the model's device."""
    _check_heads(model, len(labels))
    return masked_prediction(model, prepare(inputs, labels, masks, objective, keep), objective)


def _check_heads(model: AVHubert, sets: int) -> None:
    if model.head is None or model.mask_embedding is None:
        raise ConfigError("this model has no cluster heads: give model.num_classes to pre-train it")
    if sets != len(model.head.num_classes):
        raise DataError(f"{sets} label sets were given to a model with {len(model.head.num_classes)}")


def masked_prediction(model: AVHubert, batch: PretrainBatch, objective: ObjectiveConfig) -> PretrainLoss:
    """Weights · summed cross-entropy + penalty weight · features_pen · sample_size (ICLR 2022, eq. 3).

    Frames after T' are cut off behind the front ends.

    Args:
        model: with one cluster head per label set.
        batch: on the model's device.
        objective: the weights.

    Raises:
        ConfigError: the model has no cluster heads.
        DataError: the number of label sets is not the model's.
    """
    _check_heads(model, len(batch.masked.classes))
    assert model.head is not None
    assert model.mask_embedding is not None
    masks, inputs = batch.masks, batch.inputs
    masked_inputs = dataclasses.replace(
        inputs,
        audio=masks.replace_audio(inputs.audio, model.mask_embedding),
        video=masks.replace_video(inputs.video),
    )
    features = model.front_ends(masked_inputs, batch.keep_audio, batch.keep_video)[:, : batch.frames]
    penalty = features.float().square().mean()
    x = masks.replace_features(model.fuse(features), model.mask_embedding)
    x = model.encoder(x, None if inputs.mask is None else inputs.mask[:, : batch.frames])

    loss = objective.features_pen_weight * batch.sample_size * penalty
    metrics = {"features_pen": penalty.detach()}
    predictions = []
    for name, weight, targets in (
        ("masked", objective.masked_weight, batch.masked),
        ("unmasked", objective.unmasked_weight, batch.unmasked),
    ):
        with torch.set_grad_enabled(weight != 0 and torch.is_grad_enabled()):
            part, predicted = _cross_entropy(model.head, x, targets)
        loss = loss + weight * part
        metrics[f"loss_{name}"] = part.detach()
        metrics[f"correct_{name}"] = (predicted == targets.classes).sum()
        metrics[f"count_{name}"] = (targets.classes >= 0).sum()
        predictions.append(predicted)
    return PretrainLoss(loss, batch.sample_size, metrics, batch.masked.index, predictions[0])


def _cross_entropy(head: ClusterHead, x: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy at the targets' frames of x [B, T', D], and the most likely classes int64 [sets, N]."""
    logits = head(x.flatten(0, 1)[targets.index])
    loss = torch.stack(
        [
            F.cross_entropy(scores, classes, ignore_index=NO_LABEL, reduction="sum")
            for scores, classes in zip(logits, targets.classes, strict=True)
        ]
    ).sum()
    return loss, torch.stack([scores.detach().argmax(-1) for scores in logits])
