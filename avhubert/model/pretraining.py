"""Masked cluster prediction: cosine head, cross-entropy over masked frames, features penalty (ICLR 2022, § 3.3, eq. 3).

Shapes: B utterances, T video frames at 25 Hz, N frames that count, V classes of a label set (clusters + 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avhubert.config.schema import ModelConfig, ObjectiveConfig
from avhubert.constants import NO_LABEL
from avhubert.errors import ConfigError, DataError
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
class PretrainLoss:
    """The loss of a micro-batch, summed over frames, and its parts.

    `loss` and the metrics are tensors on the model's device; the metrics carry no gradient: loss_masked,
    loss_unmasked (summed cross-entropy), correct_masked, count_masked, correct_unmasked, count_unmasked (over all
    label sets), features_pen (mean square). Divide the gradient by the sum of `sample_size` over micro-batches and
    ranks. `masked_index` int64 [N]: the masked real frames, b·T' + t; `masked_guesses` int64 [sets, N]: the class that
    the model finds likeliest there.
    """

    loss: Tensor
    sample_size: int
    metrics: dict[str, Tensor]
    masked_index: Tensor
    masked_guesses: Tensor


def pretrain_loss(
    model: AVHubert,
    audio: Tensor | None,
    video: Tensor | None,
    padding_mask: Tensor | None,
    has_audio: Tensor | None,
    has_video: Tensor | None,
    labels: Sequence[Tensor],
    masks: Masks,
    objective: ObjectiveConfig,
    keep: tuple[Tensor, Tensor] | None = None,
) -> PretrainLoss:
    """Masked-prediction loss: weights · summed cross-entropy + penalty weight · features_pen · sample_size.

    audio [B, 104, T], video [B, 1, T, H, H], padding_mask, has_audio, has_video as in `AVHubert.front_ends`.
    `labels`: for each label set class ids int64 [B, T'], −1 = no target; where T' < T the last T − T' frames are cut
    off after the front ends. `masks` from `draw_masks`; `keep` (audio, video) bool [B] from `draw_modality_dropout`,
    None = nothing dropped: a row's only stream is always kept. sample_size counts frames with a target whose
    cross-entropy counts.

    `padding_mask`, `has_*`, `labels`, `masks` and `keep` may stay on the CPU while the model is elsewhere: then
    nothing here waits for the device. Raises DataError when the number of label sets is not the model's,
    ConfigError when it was made without any.
    """
    from avhubert.model.inputs import needed

    if model.head is None or model.mask_embedding is None:
        raise ConfigError("this model has no cluster heads: give model.num_classes to pre-train it")
    if len(labels) != len(model.head.num_classes):
        raise DataError(f"{len(labels)} label sets were given to a model with {len(model.head.num_classes)}")
    device = model.mask_embedding.device
    rows = len(labels[0])
    has_audio = torch.zeros(rows, dtype=torch.bool) if audio is None else has_audio
    has_video = torch.zeros(rows, dtype=torch.bool) if video is None else has_video
    masked = masks.union(has_audio, has_video)
    keep_audio, keep_video = _keep(keep, has_audio, has_video)
    padding_mask = needed(padding_mask, labels[0].device)
    sites = _sites(labels, masked, padding_mask)
    sample_size = _sample_size(sites, objective)

    video = masks.replace_video(video)
    audio = masks.replace_audio(audio, model.mask_embedding)
    on_device = None if padding_mask is None else padding_mask.to(device, non_blocking=True)
    features = model.front_ends(audio, video, on_device, has_audio, has_video, keep_audio, keep_video)
    frames = labels[0].shape[1]
    features = features[:, :frames]
    penalty = features.float().square().mean()
    x = masks.replace_features(model.fuse(features), model.mask_embedding)
    x = model.encoder(x, None if on_device is None else on_device[:, :frames])

    loss = objective.features_pen_weight * sample_size * penalty
    metrics = {"features_pen": penalty.detach()}
    guesses = []
    for name, weight, (index, targets) in zip(
        ("masked", "unmasked"), (objective.masked_weight, objective.unmasked_weight), sites, strict=True
    ):
        with torch.set_grad_enabled(weight != 0 and torch.is_grad_enabled()):
            part, guessed = _cross_entropy(model.head, x, index, targets)
        loss = loss + weight * part
        metrics[f"loss_{name}"] = part.detach()
        metrics[f"correct_{name}"] = (guessed == targets.to(guessed.device, non_blocking=True)).sum()
        metrics[f"count_{name}"] = (targets >= 0).sum()
        guesses.append(guessed)
    return PretrainLoss(loss, sample_size, metrics, sites[0][0], guesses[0])


def _keep(
    keep: tuple[Tensor, Tensor] | None, has_audio: Tensor | None, has_video: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    if keep is None:
        return None, None
    audio, video = keep
    if has_video is not None:
        audio = audio | ~has_video.to(audio.device)
    if has_audio is not None:
        video = video | ~has_audio.to(video.device)
    return audio, video


def _sites(labels: Sequence[Tensor], masked: Tensor, padding_mask: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    """For masked and for unmasked real frames: flat indices [N] into [B, T'] and targets [sets, N]."""
    masked = masked.to(labels[0].device)[:, : labels[0].shape[1]]
    real = torch.ones_like(masked) if padding_mask is None else ~padding_mask[:, : masked.shape[1]]
    targets = torch.stack(list(labels)).flatten(1)
    sites = []
    for chosen in (masked & real, ~masked & real):
        index = chosen.flatten().nonzero().squeeze(1)
        sites.append((index, targets[:, index]))
    return sites


def _sample_size(sites: list[tuple[Tensor, Tensor]], objective: ObjectiveConfig) -> int:
    weights = (objective.masked_weight, objective.unmasked_weight)
    return sum(int((targets >= 0).any(0).sum()) for weight, (_, targets) in zip(weights, sites, strict=True) if weight)


def _cross_entropy(head: ClusterHead, x: Tensor, index: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy over the frames `index` [N] of x [B, T, D], and the likeliest classes int64 [sets, N]."""
    logits = head(x.flatten(0, 1)[index.to(x.device, non_blocking=True)])
    targets = targets.to(x.device, non_blocking=True)
    loss = torch.stack(
        [F.cross_entropy(o, t, ignore_index=NO_LABEL, reduction="sum") for o, t in zip(logits, targets, strict=True)]
    ).sum()
    return loss, torch.stack([o.detach().argmax(-1) for o in logits])
