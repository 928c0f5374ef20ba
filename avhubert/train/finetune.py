"""Fine-tuning: a pre-trained encoder and new heads learn to transcribe (ICLR 2022, § 3.5)."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import torch
from torch import Tensor, nn

from avhubert.checkpoints.directory import TOKENIZER, save_model
from avhubert.checkpoints.load import load
from avhubert.config.schema import FinetuneConfig
from avhubert.config.validate import require
from avhubert.constants import EOS
from avhubert.data.collate import Batch
from avhubert.data.loader import Loader
from avhubert.data.tokenizer import Tokenizer
from avhubert.decode.beam_search import beam_search
from avhubert.decode.ctc import ctc_best_path
from avhubert.errors import ConfigError
from avhubert.model.encoder import AVHubert
from avhubert.model.inputs import ModelInputs
from avhubert.model.losses import TextTargets, recognizer_loss
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer
from avhubert.train.data import FROM_SCRATCH, Validation, input_preparation, lengths, read_split, step_order
from avhubert.train.pretrain import HEADS
from avhubert.train.random import INITIAL, seed_all
from avhubert.train.run_dir import open_run
from avhubert.train.task import StepOutput
from avhubert.train.trainer import train

REGULARISATION = (
    *("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "dropout_input"),
    "feature_grad_mult",
)


def run(config: FinetuneConfig) -> Path:
    """Fine-tune, or resume the run in `config.run_dir`; returns the run directory, which is a model directory.

    `run_dir/best` is the model directory of the best step on the validation split by train.best_by.

    Raises:
        ConfigError: a value is missing or does not fit the others; run_dir cannot be used.
        DataError: manifests, transcripts or the tokenizer are missing or do not fit together.
        CheckpointError: model.pretrained or the run's state cannot be used.
    """
    require(config)
    modalities = drawn_modalities(config)
    if config.objective.ctc_weight and not config.model.decoder.ctc:
        raise ConfigError(
            f"objective.ctc_weight={config.objective.ctc_weight} needs a CTC head: give model.decoder.ctc=true"
        )
    if config.objective.ctc_weight == 1 and config.train.best_by == "accuracy":
        raise ConfigError(
            "objective.ctc_weight=1 leaves the decoder as it is, so its accuracy cannot select a model: "
            "give train.best_by=wer"
        )
    with open_run(config) as opened:
        if opened.finished:
            return opened.directory
        tokenizer = Tokenizer(Path(config.data.dir) / TOKENIZER)
        preparation = input_preparation(config)
        training, validation = (
            read_split(config, split, opened.say, tokenizer, preparation=preparation) for split in ("train", "valid")
        )
        seed_all(config.seed, INITIAL)
        recognizer = build_recognizer(config, tokenizer, opened.say)
        recognizer.metadata.inputs = preparation.recorded()
        task = Finetuning(config, recognizer, tokenizer, modalities, max(lengths(training)))
        order = step_order(config, training)
        steps = functools.partial(Loader(training, config.data.workers).steps, order)
        largest = functools.partial(training.batch, order.largest())
        rank, world_size = opened.fabric.global_rank, opened.fabric.world_size
        bad_limit = int(config.data.max_bad_share * (len(training) + len(validation)))
        train(opened, task, steps, largest, Validation(config, validation, rank, world_size), bad_limit)
        return opened.directory


def drawn_modalities(config: FinetuneConfig) -> list[str]:
    """The modalities drawn for utterances: those of av, a, v that have a weight and whose streams are loaded."""
    data = config.data
    weights = {"av": data.draw_av, "a": data.draw_a, "v": data.draw_v}
    drawn = [name for name, weight in weights.items() if weight > 0 and set(name) <= set(data.modalities)]
    if not drawn:
        raise ConfigError(
            f"data.modalities={data.modalities} leaves nothing of "
            + ", ".join(f"data.draw_{name}={weight:g}" for name, weight in weights.items())
            + f"; give data.draw_{data.modalities}=1"
        )
    return drawn


def build_recognizer(config: FinetuneConfig, tokenizer: Tokenizer, say: Callable[[str], None]) -> Recognizer:
    """New heads on the encoder of model.pretrained, or on a new one of the sizes in model.scratch ('none')."""
    regularisation = {name: getattr(config.model, name) for name in REGULARISATION}
    decoder = dataclasses.replace(config.model.decoder, vocab_size=tokenizer.vocab_size)
    if config.model.pretrained == FROM_SCRATCH:
        say("model.pretrained=none: the encoder starts from random weights, of the sizes in model.scratch")
        sizes = dataclasses.replace(config.model.scratch, num_classes=[], **regularisation)
        return _with_settings(Recognizer.from_config(sizes, decoder), config)
    source = load(config.model.pretrained)
    if isinstance(source, Recognizer):
        say(f"model.pretrained={config.model.pretrained} is a recognizer: its encoder is used, without its decoder")
        source = source.encoder
    encoder = AVHubert(dataclasses.replace(source.config, num_classes=[], **regularisation))
    weights = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith(HEADS)}
    encoder.load_state_dict(weights)
    return _with_settings(Recognizer.from_encoder(encoder, decoder), config)


def _with_settings(recognizer: Recognizer, config: FinetuneConfig) -> Recognizer:
    recognizer.decode_settings = config.decode
    return recognizer


@dataclasses.dataclass
class PreparedBatch:
    """What the loss needs; `texts`: the references, where words are counted in validation."""

    inputs: ModelInputs
    targets: TextTargets
    texts: list[str] | None


class Finetuning:
    """The task of fine-tuning: cross-entropy of the attention decoder, and CTC."""

    name = "fine-tuning"

    def __init__(
        self,
        config: FinetuneConfig,
        recognizer: Recognizer,
        tokenizer: Tokenizer,
        modalities: list[str],
        longest_frames: int,
    ) -> None:
        self.module: nn.Module = recognizer
        # the trainer keeps the checkpoint with the largest value of this metric (trainer._validate)
        self.selection: str | None = {"accuracy": "accuracy", "wer": "word_accuracy"}[config.train.best_by]
        self._recognizer = recognizer
        self._config = config
        self._tokenizer = tokenizer
        self._modalities = modalities
        self._longest_frames = longest_frames
        if config.objective.ctc_weight == 1:  # weight decay must not change it either
            recognizer.decoder.requires_grad_(False)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Encoder and heads; with layer-wise rates the encoder's layers, each slower than the one above by a factor."""
        decay = self._config.optimizer.layer_decay
        depth = len(self._recognizer.encoder.encoder.layers)
        norm_first = self._recognizer.encoder.config.layer_norm_first
        groups: dict[float, list[nn.Parameter]] = {}
        heads = []
        for name, parameter in self._recognizer.named_parameters():
            if name.startswith("encoder."):
                groups.setdefault(decay ** _layers_above(name, depth, norm_first), []).append(parameter)
            else:
                heads.append(parameter)
        return [*({"params": group, "factor": factor} for factor, group in groups.items()), {"params": heads}]

    def begin_step(self, step: int) -> None:
        """Set training mode, and freeze the encoder in the first steps."""
        config = self._config.train
        self._recognizer.train()
        self._recognizer.freeze_encoder(step < config.freeze_encoder_steps, config.freeze_encoder_drift)

    def prepare(self, batch: Batch, rng: np.random.Generator) -> PreparedBatch:
        """Inputs and targets; in validation by WER also the reference texts."""
        assert batch.tokens is not None
        texts = None
        if self._config.train.best_by == "wer" and not self._recognizer.training:
            texts = [self._tokenizer.decode([t for t in row if t != EOS]) for row in batch.tokens.tolist()]
        return PreparedBatch(batch.inputs, TextTargets.of(batch.tokens), texts)

    def loss(self, prepared: PreparedBatch) -> StepOutput:
        """The weighted sum of both losses."""
        objective = self._config.objective
        return StepOutput(*recognizer_loss(self._recognizer, prepared.targets, prepared.inputs, objective))

    def evaluate(self, prepared: PreparedBatch) -> StepOutput:
        """The same loss without augmentation, and word errors if they select the best model; uses all streams.

        References are the target tokens in words, so a word with an unknown character contains `<unk>`.
        """
        part = self.loss(prepared)
        if prepared.texts is not None:
            counts = jiwer.process_words(prepared.texts, self._greedy(prepared.inputs))
            errors = counts.substitutions + counts.deletions + counts.insertions
            part.metrics["word_errors"] = torch.tensor(errors)
            part.metrics["words"] = torch.tensor(counts.hits + counts.substitutions + counts.deletions)
        return part

    def _greedy(self, inputs: ModelInputs) -> list[str]:
        """Texts by greedy search; by the CTC head if the decoder is not trained."""
        recognizer = self._recognizer
        encoded = recognizer.encode(inputs)
        if self._config.objective.ctc_weight == 1:
            assert recognizer.ctc is not None
            assert inputs.lengths is not None
            texts = ctc_best_path(recognizer.ctc(encoded), inputs.lengths)
        else:
            settings = dataclasses.replace(self._config.decode, beam=1)
            texts = [best[0].tokens for best in beam_search(recognizer, encoded, inputs.mask, settings)]
        return [self._tokenizer.decode(tokens) for tokens in texts]

    def metrics(self, sums: dict[str, Any]) -> dict[str, float]:
        """Nats per sentence (`loss`: the objective, `ctc`) and per token (`nll`); share of correct tokens.

        `wer`: word errors per word; `word_accuracy`: 1 - wer.
        """
        metrics = {"loss": sums["loss"] / sums["sample_size"]}
        if "total" in sums:
            metrics |= {"nll": sums["nll"] / sums["total"], "accuracy": sums["correct"] / sums["total"]}
        if "ctc" in sums:
            metrics["ctc"] = sums["ctc"] / sums["sample_size"]
        if "words" in sums:
            wer = sums["word_errors"] / max(1, sums["words"])
            metrics |= {"wer": wer, "word_accuracy": 1 - wer}
        return metrics

    def warnings(self, step: int, metrics: dict[str, float]) -> list[str]:
        """Fine-tuning has no warnings."""
        return []

    def save(self, directory: Path, step: int, weights: dict[str, Tensor]) -> None:
        """Write the model directory."""
        save_model(directory, self._recognizer, self._tokenizer.serialized, self._metadata(step), weights)

    def _metadata(self, step: int) -> ModelMetadata:
        config = self._config
        return ModelMetadata(
            stage="fine-tuning",
            step=step,
            seed=config.seed,
            data=config.data.dir,
            pretrained=config.model.pretrained,
            modalities=self._modalities,
            longest_frames=self._longest_frames,  # of the training clips: longer audio is segmented to this length
            ctc_weight=config.objective.ctc_weight,
            noise=config.data.noise is not None and config.data.noise_prob > 0,
            inputs=self._recognizer.metadata.inputs,
        )


def _layers_above(name: str, depth: int, norm_first: bool) -> int:
    """Number of layers from one of the encoder's parameters up to the heads, at least 1.

    The front ends, the fusion and the position convolution are one layer below the first of `depth`; so is the norm
    outside of the layers, unless it is the last module (`norm_first`).
    """
    layer = re.match(r"encoder\.encoder\.layers\.(\d+)\.", name)
    if layer:
        return depth - int(layer.group(1))
    return 1 if norm_first and name.startswith("encoder.encoder.norm.") else depth + 1
