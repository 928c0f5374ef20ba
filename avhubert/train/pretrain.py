"""Pre-training: masked prediction of cluster labels (ICLR 2022, § 3)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from avhubert.config import ModelConfig, PretrainConfig, require, to_dict
from avhubert.data.batches import Batch, Loader
from avhubert.data.manifest import SPECIALS, LabelInfo, read_label_info
from avhubert.errors import ConfigError
from avhubert.loading import load_encoder
from avhubert.model.encoder import AVHubert
from avhubert.model.masking import draw_masks, draw_modality_dropout
from avhubert.model.objective import pretrain_loss
from avhubert.model.store import save_model
from avhubert.train.inputs import Validation, commonest_share, read_split, step_order
from avhubert.train.loop import INITIAL, Part, open_run, seed_all, train

SIZES = (
    *("audio_feat_dim", "visual_width", "visual_blocks", "visual_activation", "modality_fuse", "encoder_layers"),
    *("encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads", "layer_norm_first", "conv_pos"),
    *("conv_pos_groups",),
)
HEADS = ("head.", "mask_embedding")  # what belongs to the labels and the masking, not to the encoder


def run(config: PretrainConfig) -> Path:
    """Pre-train as `config` says, or go on with what its run_dir holds; returns the run directory, a model directory.

    Raises:
        ConfigError: a value is missing or does not fit the labels or model.pretrained; run_dir cannot be used.
        DataError: manifests or labels are missing or do not fit together.
        CheckpointError: model.pretrained or the run's state cannot be used.
    """
    require(config)
    if config.data.labels is None:
        raise ConfigError("pre-training needs labels: give data.labels=FOLDER, made by `avhubert cluster`")
    with open_run(config) as opened:
        if opened.finished:
            return opened.directory
        training, validation = (read_split(config, split, None, opened.say) for split in ("train", "valid"))
        info = read_label_info(config.data.labels)
        seed_all(config.seed, INITIAL)
        task = Pretraining(config, build_model(config, info, opened.say), info, commonest_share(validation))
        steps = functools.partial(Loader(training, config.data.workers).steps, step_order(config, training))
        rank, world_size = opened.fabric.global_rank, opened.fabric.world_size
        bad_limit = int(config.data.max_bad_share * (len(training) + len(validation)))
        train(opened, task, steps, Validation(config, validation, rank, world_size), bad_limit)
        return opened.directory


def build_model(config: PretrainConfig, info: LabelInfo, say: Callable[[str], None]) -> AVHubert:
    """A model with cluster heads for these labels: new, or with the weights of model.pretrained."""
    classes = [info.clusters + SPECIALS]
    if config.model.num_classes not in ([], classes):
        raise ConfigError(
            f"model.num_classes={config.model.num_classes} does not fit {config.data.labels}: {info.clusters} clusters "
            f"make {classes}; leave it out"
        )
    values = {field.name: getattr(config.model, field.name) for field in dataclasses.fields(ModelConfig)}
    model = AVHubert(ModelConfig(**{**values, "num_classes": classes}))
    if config.model.pretrained is None:
        return model
    source = load_encoder(config.model.pretrained)
    differing = [
        f"model.{name}={getattr(source.config, name)}" for name in SIZES if getattr(source.config, name) != values[name]
    ]
    if differing:
        raise ConfigError(f"model.pretrained={config.model.pretrained} has other sizes: give {' '.join(differing)}")
    remade = copy_weights(source, model)
    if remade:
        say(f"{config.model.pretrained}: made anew, for these labels and masks: {', '.join(remade)}")
    return model


def copy_weights(source: AVHubert, target: AVHubert) -> list[str]:
    """Copy all that fits; returns the names of heads and mask vector that `target` keeps as they were made."""
    weights, own = source.state_dict(), target.state_dict()
    # heads go together: a projection belongs to its class embeddings
    heads_fit = {name: weights[name].shape for name in weights if name.startswith("head.")} == {
        name: own[name].shape for name in own if name.startswith("head.")
    }
    remade = []
    for name in own:
        head = name.startswith(HEADS)
        fits = name in weights and weights[name].shape == own[name].shape
        if head and not (fits and (heads_fit or not name.startswith("head."))):
            remade.append(name)
        else:
            own[name] = weights[name]
    target.load_state_dict(own)
    return remade


class Pretraining:
    """The loop's task: batch → masks, modality dropout → loss over masked frames."""

    name = "pre-training"

    def __init__(self, config: PretrainConfig, model: AVHubert, info: LabelInfo, commonest: float) -> None:
        self.module: nn.Module = model
        self.selection: str | None = None
        self._model = model
        self._config = config
        self._info = info
        self._commonest = commonest

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        return [list(self._model.parameters())]

    def begin_step(self, step: int) -> None:
        self._model.train()

    def loss(self, batch: Batch, rng: np.random.Generator) -> Part:
        masking = self._config.masking
        masks = draw_masks(batch.padding_mask, masking, self._config.model.masking_type, rng)
        keep = draw_modality_dropout(len(batch.ids), masking, rng) if self._model.training else None
        out = pretrain_loss(
            self._model,
            batch.audio,
            batch.video,
            batch.padding_mask,
            batch.has_audio,
            batch.has_video,
            batch.labels,
            masks,
            self._config.objective,
            keep,
        )
        return Part(out.loss, out.sample_size, out.metrics)

    def evaluate(self, batch: Batch, rng: np.random.Generator) -> Part:
        """Masks as in training, both modalities kept."""
        return self.loss(batch, rng)

    def figures(self, sums: dict[str, float]) -> dict[str, float]:
        """Nats per counted frame (`loss`, penalty included) and per masked frame; shares of frames guessed right."""

        def share(part: str, whole: str) -> float:
            return sums[part] / sums[whole] if sums[whole] else float("nan")

        return {
            "loss": share("loss", "sample_size"),
            "loss_masked": share("loss_masked", "count_masked"),
            "masked_accuracy": share("correct_masked", "count_masked"),
            "unmasked_accuracy": share("correct_unmasked", "count_unmasked"),
            "features_pen": share("features_pen", "micro_batches"),
        }

    def alarms(self, step: int, figures: dict[str, float]) -> list[str]:
        """After warm-up a model must guess masked frames better than one that always says the commonest cluster."""
        if step <= self._config.optimizer.warmup_steps or figures["masked_accuracy"] > self._commonest:
            return []
        return [
            f"masked accuracy {figures['masked_accuracy']:.3f} is not above {self._commonest:.3f}, the share of the "
            "commonest cluster: nothing is learned from context yet; if this lasts, look for labels that do not belong "
            "to the clips, or lower optimizer.lr"
        ]

    def save(self, directory: Path, step: int) -> None:
        save_model(directory, self._model, metadata=self._metadata(step))

    def _metadata(self, step: int) -> dict[str, Any]:
        config = self._config
        return {
            "stage": "pre-training",
            "step": step,
            "seed": config.seed,
            "modalities": config.data.modalities,
            "labels": dataclasses.asdict(self._info),
            "masking": to_dict(config.masking),
        }
