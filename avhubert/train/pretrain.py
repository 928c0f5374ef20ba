"""Pre-training: masked prediction of cluster labels (ICLR 2022, § 3)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from avhubert.checkpoints.directory import save_model
from avhubert.checkpoints.load import load_encoder
from avhubert.cluster.metrics import label_metrics
from avhubert.config.schema import ModelConfig, PretrainConfig
from avhubert.config.validate import require, to_dict
from avhubert.constants import FRAME_RATE, NUM_SPECIALS
from avhubert.data.collate import Batch
from avhubert.data.dataset import ClipDataset
from avhubert.data.labels import LabelInfo, load_labels
from avhubert.data.loader import Loader
from avhubert.data.manifest import Clip
from avhubert.data.transcripts import read_phones_of
from avhubert.devices import to_host
from avhubert.errors import ConfigError
from avhubert.model.encoder import AVHubert
from avhubert.model.masking import draw_masks, draw_modality_dropout
from avhubert.model.metadata import LabelSet, ModelMetadata
from avhubert.model.pretraining import PretrainBatch, masked_prediction, prepare
from avhubert.train.data import LabelSets, Validation, class_shares, input_preparation, read_split, step_order
from avhubert.train.random import INITIAL, seed_all
from avhubert.train.run_dir import open_run
from avhubert.train.task import StepOutput
from avhubert.train.trainer import train

SIZES = (
    *("audio_feat_dim", "visual_width", "visual_blocks", "visual_activation", "modality_fuse", "encoder_layers"),
    *("encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_attention_heads", "layer_norm_first", "conv_pos"),
    *("conv_pos_groups",),
)
COLLAPSE = 0.1  # share of the labels' entropy: predictions of less are worth a warning
HEADS = ("head.", "mask_embedding")  # what belongs to the labels and the masking, not to the encoder


def run(config: PretrainConfig) -> Path:
    """Pre-train, or resume the run in `config.run_dir`; returns the run directory, which is a model directory.

    Raises:
        ConfigError: a value is missing or does not fit the labels or model.pretrained; run_dir cannot be used.
        DataError: manifests or labels are missing or do not fit together.
        CheckpointError: model.pretrained or the run's state cannot be used.
    """
    require(config)
    folders = config.data.labels if isinstance(config.data.labels, list) else [config.data.labels]
    if not folders or folders == [None]:
        raise ConfigError("pre-training needs labels: give data.labels=FOLDER, made by `avhubert cluster`")
    folders = cast(list[str], folders)
    with open_run(config) as opened:
        if opened.finished:
            return opened.directory
        phones = Path(config.data.dir) / "valid.phn"
        preparation = input_preparation(config)
        training = read_split(
            config,
            "train",
            opened.say,
            read_labels=lambda clips: _labels(folders, "train", clips),
            preparation=preparation,
        )
        validation = read_split(
            config,
            "valid",
            opened.say,
            read_labels=lambda clips: [*_labels(folders, "valid", clips), *_phones(phones, clips)],
            preparation=preparation,
        )
        seed_all(config.seed, INITIAL)
        model = build_model(config, training.label_infos, opened.say)
        model.metadata.inputs = preparation.recorded()
        task = Pretraining(config, model, training.label_infos, validation)
        order = step_order(config, training)
        steps = functools.partial(Loader(training, config.data.workers).steps, order)
        largest = functools.partial(training.batch, order.largest())
        rank, world_size = opened.fabric.global_rank, opened.fabric.world_size
        bad_limit = int(config.data.max_bad_share * (len(training) + len(validation)))
        train(opened, task, steps, largest, Validation(config, validation, rank, world_size), bad_limit)
        return opened.directory


def _labels(folders: Sequence[str], split: str, clips: Sequence[Clip]) -> LabelSets:
    return [load_labels(folder, split, clips) for folder in folders]


def _phones(path: Path, clips: Sequence[Clip]) -> LabelSets:
    """The true phones of validation, if known, as one more label set: predictions are compared with them."""
    rows = read_phones_of(path, clips)
    if rows is None:
        return []
    names = sorted({phone for row in rows for phone in row})
    index = {phone: number for number, phone in enumerate(names)}
    numbers = [np.array([index[phone] for phone in row], np.int32) for row in rows]
    # only the labels decide which clips are left out: phones that end early or late are padded or cut
    fitted = [np.append(row, np.full(clip.frames, -1))[: clip.frames] for row, clip in zip(numbers, clips, strict=True)]
    return [(fitted, LabelInfo(FRAME_RATE, len(names), "phones", None, ""))]


def build_model(config: PretrainConfig, infos: Sequence[LabelInfo], say: Callable[[str], None]) -> AVHubert:
    """A model with cluster heads for these label sets: new, or with the weights of model.pretrained."""
    classes = [info.clusters + NUM_SPECIALS for info in infos]
    if config.model.num_classes not in ([], classes):
        clusters = " and ".join(str(info.clusters) for info in infos)
        raise ConfigError(
            f"model.num_classes={config.model.num_classes} does not fit {config.data.labels}: {clusters} clusters "
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
    trained_with = [labels.centroids for labels in source.metadata.labels or []]
    others = bool(trained_with) and trained_with != [info.centroids for info in infos]  # equal ids, different clusters
    initialised = copy_weights(source, model, keep_heads=not others)
    if initialised:
        say(f"{config.model.pretrained}: initialised anew for these labels and masks: {', '.join(initialised)}")
    return model


def copy_weights(source: AVHubert, target: AVHubert, keep_heads: bool = True) -> list[str]:
    """Copy all tensors that fit, cluster heads only with `keep_heads`.

    Returns:
        The names of cluster heads and mask vector that keep their initial values in `target`.
    """
    weights, own = source.state_dict(), target.state_dict()
    # a projection belongs to its class embeddings: copy both or none
    heads_fit = keep_heads and {name: weights[name].shape for name in weights if name.startswith("head.")} == {
        name: own[name].shape for name in own if name.startswith("head.")
    }
    initialised = []
    for name in own:
        head = name.startswith(HEADS)
        fits = name in weights and weights[name].shape == own[name].shape
        if head and not (fits and (heads_fit or not name.startswith("head."))):
            initialised.append(name)
        else:
            own[name] = weights[name]
    target.load_state_dict(own)
    return initialised


@dataclasses.dataclass
class PreparedBatch:
    """What the loss needs, and the true phones of the frames (int64 [B, T], -1 = unknown) where they are known."""

    batch: PretrainBatch
    phones: list[Tensor]


class Pretraining:
    """The task of pre-training: masks and modality dropout, then the loss over masked frames."""

    name = "pre-training"

    def __init__(
        self, config: PretrainConfig, model: AVHubert, infos: Sequence[LabelInfo], validation: ClipDataset
    ) -> None:
        self.module: nn.Module = model
        self.selection: str | None = None
        self._model = model
        self._config = config
        self._infos = infos
        shares = class_shares(validation)
        self._largest_share = float(shares.max())
        self._entropy = float(-(shares * np.log(shares)).sum())
        self._phones = [info.clusters for info in validation.label_infos[len(infos) :]]  # none or one

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """One group with all parameters."""
        return [list(self._model.parameters())]

    def begin_step(self, step: int) -> None:
        """Set training mode."""
        self._model.train()

    def prepare(self, batch: Batch, rng: np.random.Generator) -> PreparedBatch:
        """Draw masks and modality dropout, find the frames to predict."""
        masking, inputs = self._config.masking, batch.inputs
        assert inputs.padding_mask is not None
        masks = draw_masks(inputs.padding_mask, masking, self._config.model.masking_type, rng)
        keep = draw_modality_dropout(len(batch.ids), masking, rng) if self._model.training else None
        sets = len(self._infos)
        prepared = prepare(inputs, batch.labels[:sets], masks, self._config.objective, keep)
        return PreparedBatch(prepared, batch.labels[sets:])

    def loss(self, prepared: PreparedBatch) -> StepOutput:
        """The loss over masked frames."""
        out = masked_prediction(self._model, prepared.batch, self._config.objective)
        return StepOutput(out.loss, out.sample_size, out.metrics)

    def evaluate(self, prepared: PreparedBatch) -> StepOutput:
        """Masks as in training, both modalities kept; counts the predictions at masked frames (first label set)."""
        out = masked_prediction(self._model, prepared.batch, self._config.objective)
        predictions, index = to_host(out.masked_predictions[0]), to_host(out.masked_index)
        classes = self._infos[0].clusters + NUM_SPECIALS
        counted = {"guessed": torch.bincount(predictions, minlength=classes)}
        for phones, count in zip(prepared.phones, self._phones, strict=True):
            phone = to_host(phones).flatten()[index]
            pairs = (predictions * count + phone)[phone >= 0]
            counted["guessed_phones"] = torch.bincount(pairs, minlength=classes * count).view(classes, count)
        return StepOutput(out.loss, out.sample_size, out.metrics | counted)

    def metrics(self, sums: dict[str, Any]) -> dict[str, float]:
        """Nats per counted frame (`loss`, penalty included) and per masked frame; shares of frames predicted right.

        Of validation also what is predicted at masked frames: its entropy (nats) and, where phones are known, its PNMI.
        """

        def share(part: str, whole: str) -> float:
            return sums[part] / sums[whole] if sums[whole] else float("nan")

        metrics = {
            "loss": share("loss", "sample_size"),
            "loss_masked": share("loss_masked", "count_masked"),
            "masked_accuracy": share("correct_masked", "count_masked"),
            "unmasked_accuracy": share("correct_unmasked", "count_unmasked"),
            "features_pen": share("features_pen", "micro_batches"),
        }
        if "guessed" in sums:
            predicted = sums["guessed"][sums["guessed"] > 0] / sums["guessed"].sum()
            metrics["guessed_entropy"] = float((predicted * np.log(1 / predicted)).sum())
        if "guessed_phones" in sums and sums["guessed_phones"].any():
            metrics["guessed_pnmi"] = label_metrics(sums["guessed_phones"])["pnmi"]
        return metrics

    def warnings(self, step: int, metrics: dict[str, float]) -> list[str]:
        """Warn if, after warm-up, the model predicts no better than the most frequent cluster, or has collapsed.

        Collapsed: it predicts the same cluster nearly everywhere.
        """
        if step <= self._config.optimizer.warmup_steps:
            return []
        warnings = []
        if metrics["masked_accuracy"] <= self._largest_share:
            warnings.append(
                f"masked accuracy {metrics['masked_accuracy']:.3f} is not above {self._largest_share:.3f}, the share "
                "of the most frequent cluster: the model does not use the context yet; if this persists, check that "
                "the labels belong to the clips, or lower optimizer.lr"
            )
        if metrics["guessed_entropy"] < COLLAPSE * self._entropy:
            warnings.append(
                f"the entropy of the predictions at masked frames is {metrics['guessed_entropy']:.2g} nats, that of "
                f"the labels {self._entropy:.2g}: the same cluster is predicted nearly everywhere; if this persists, "
                "the training has collapsed: resume from an older state with a lower optimizer.lr"
            )
        return warnings

    def save(self, directory: Path, step: int, weights: dict[str, Tensor]) -> None:
        """Write the model directory."""
        save_model(directory, self._model, metadata=self._metadata(step), weights=weights)

    def _metadata(self, step: int) -> ModelMetadata:
        config = self._config
        return ModelMetadata(
            stage="pre-training",
            step=step,
            seed=config.seed,
            data=config.data.dir,
            modalities=config.data.modalities,
            labels=[LabelSet.from_dict(dataclasses.asdict(info)) for info in self._infos],
            masking=to_dict(config.masking),
            inputs=self._model.metadata.inputs,
        )
