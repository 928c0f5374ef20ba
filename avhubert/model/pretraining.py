"""Masked cluster prediction: cosine head, cross-entropy over masked frames, features penalty (ICLR 2022, § 3.3, eq. 3).

Shapes: B utterances, T video frames at 25 Hz, N frames to predict, V classes of a label set (clusters + 4).
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
    """Cosine similarity between projected features and class embeddings, divided by a temperature, per label set.

    Features and embeddings are normalised and then multiplied as matrices; no tensor of shape [N, V, final_dim] is
    needed.
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
        """Logits float32 [N, V] of each label set for features [N, D]."""
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
    """Frames to predict, and their classes.

    Attributes:
        index: int64 [N], flat positions b·T' + t of the frames.
        classes: int64 [label sets, N]; −1: no label.
    """

    index: Tensor
    classes: Tensor


@dataclass
class PretrainBatch:
    """The inputs of the pre-training loss for a micro-batch. Prepare it on the CPU, then move it with `to`.

    Attributes:
        inputs: the streams before masking.
        masks: the masked frames.
        masked: targets at masked real frames.
        unmasked: targets at unmasked real frames.
        frames: T', frames with labels.
        sample_size: number of frames with a target whose cross-entropy has a weight above 0.
        keep_audio: bool [B], False where modality dropout drops the audio; None: no dropout.
        keep_video: the same for video.
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
    """Find the frames to predict and make a PretrainBatch.

    Args:
        inputs: the streams, on the device of `labels` and `masks`.
        labels: per label set class ids int64 [B, T'], T' ≤ T; −1: no label.
        masks: from `draw_masks`.
        objective: the weights of the cross-entropy at masked and unmasked frames.
        keep: (audio, video) bool [B] from `draw_modality_dropout`; if a row has one stream only, it is kept.
    """
    rows, frames = labels[0].shape
    device = labels[0].device
    has_audio, has_video = (_row_mask(present, rows, device) for present in (inputs.audio_rows, inputs.video_rows))
    masked = masks.union(has_audio, has_video)[:, :frames]
    real = torch.ones_like(masked) if inputs.mask is None else ~inputs.mask[:, :frames]
    classes = torch.stack(list(labels)).flatten(1)
    targets = []
    for predicted in (masked & real, ~masked & real):
        index = predicted.flatten().nonzero().squeeze(1)
        targets.append(Targets(index, classes[:, index]))
    weights = (objective.masked_weight, objective.unmasked_weight)
    counts = [(t.classes >= 0).any(0).sum() for weight, t in zip(weights, targets, strict=True) if weight]
    keep_audio, keep_video = (None, None) if keep is None else (keep[0] | ~has_video, keep[1] | ~has_audio)
    masked_targets, unmasked_targets = targets
    sample_size = sum(int(to_host(count)) for count in counts)
    return PretrainBatch(inputs, masks, masked_targets, unmasked_targets, frames, sample_size, keep_audio, keep_video)


def _row_mask(present: tuple[int, ...] | None, rows: int, device: torch.device) -> Tensor:
    """Row numbers as a mask bool [rows]."""
    assert present is not None
    mask = torch.zeros(rows, dtype=torch.bool)
    mask[list(present)] = True
    return mask.to(device)


@dataclass
class PretrainLoss:
    """The loss of a micro-batch, summed over frames, and its terms.

    Divide the gradient by the sum of `sample_size` over micro-batches and ranks.

    Attributes:
        loss: scalar on the model's device, in nats.
        sample_size: as in PretrainBatch.
        metrics: scalars on the model's device, without gradient: loss_masked, loss_unmasked (summed cross-entropy),
            correct_masked, count_masked, correct_unmasked, count_unmasked (over all label sets), features_pen (mean
            square).
        masked_index: int64 [N], flat positions b·T' + t of the masked real frames.
        masked_predictions: int64 [label sets, N], the most likely class of each.
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
    """Call `prepare` and `masked_prediction`; the arguments are those of `prepare`, on the model's device.

    Raises:
        ConfigError: the model has no cluster heads.
        DataError: the number of label sets differs from the model's.
    """
    _check_heads(model, len(labels))
    return masked_prediction(model, prepare(inputs, labels, masks, objective, keep), objective)


def _check_heads(model: AVHubert, sets: int) -> None:
    if model.head is None or model.mask_embedding is None:
        raise ConfigError("this model has no cluster heads: set model.num_classes to pre-train it")
    if sets != len(model.head.num_classes):
        raise DataError(f"{sets} label sets were given to a model with {len(model.head.num_classes)}")


def masked_prediction(model: AVHubert, batch: PretrainBatch, objective: ObjectiveConfig) -> PretrainLoss:
    """The pre-training loss (ICLR 2022, eq. 3): weighted cross-entropy + weight · features_pen · sample_size.

    The features are cut to T' frames after the front ends.

    Args:
        model: with one cluster head per label set.
        batch: on the model's device.
        objective: the weights.

    Raises:
        ConfigError: the model has no cluster heads.
        DataError: the number of label sets differs from the model's.
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
            cross_entropy, predicted = _cross_entropy(model.head, x, targets)
        loss = loss + weight * cross_entropy
        metrics[f"loss_{name}"] = cross_entropy.detach()
        metrics[f"correct_{name}"] = (predicted == targets.classes).sum()
        metrics[f"count_{name}"] = (targets.classes >= 0).sum()
        predictions.append(predicted)
    return PretrainLoss(loss, batch.sample_size, metrics, batch.masked.index, predictions[0])


def _cross_entropy(head: ClusterHead, x: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy at the target frames of x [B, T', D], and the most likely classes int64 [label sets, N]."""
    logits = head(x.flatten(0, 1)[targets.index])
    loss = torch.stack(
        [
            F.cross_entropy(scores, classes, ignore_index=NO_LABEL, reduction="sum")
            for scores, classes in zip(logits, targets.classes, strict=True)
        ]
    ).sum()
    return loss, torch.stack([scores.detach().argmax(-1) for scores in logits])
