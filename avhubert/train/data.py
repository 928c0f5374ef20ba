"""The data of pre-training and fine-tuning: clips of a split with labels or transcripts, and validation batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from avhubert.checkpoints.load import read_preparation
from avhubert.config.input_preparation import PUBLISHED, InputPreparation
from avhubert.config.schema import FinetuneConfig, PretrainConfig
from avhubert.constants import MODALITIES
from avhubert.data.batching import StepOrder, make_batches
from avhubert.data.collate import Batch
from avhubert.data.dataset import ClipDataset
from avhubert.data.labels import LabelInfo
from avhubert.data.loader import Loader
from avhubert.data.manifest import Clip, read_manifest, select
from avhubert.data.noise import read_noise_list, read_noise_speakers
from avhubert.data.preparation import check_crop, read_crop
from avhubert.data.text import normalise_text
from avhubert.data.tokenizer import Tokenizer, list_characters, unknown_characters
from avhubert.data.transcripts import read_transcripts
from avhubert.errors import DataError, list_names

FROM_SCRATCH = "none"  # of model.pretrained in fine-tuning
LabelSets = list[tuple[list[np.ndarray], LabelInfo]]


def read_split(
    config: PretrainConfig | FinetuneConfig,
    split: str,
    say: Callable[[str], None],
    tokenizer: Tokenizer | None = None,
    read_labels: Callable[[Sequence[Clip]], LabelSets] | None = None,
    preparation: InputPreparation = PUBLISHED,
) -> ClipDataset:
    """The clips of `split` that training uses, with label sets or transcripts, and noise.

    Args:
        config: the run's configuration.
        split: train or valid.
        say: receives a message about clips that are left out, by reason.
        tokenizer: given, transcripts are read.
        read_labels: given, returns the label sets of the clips.
        preparation: how the model's inputs are made.

    Raises:
        DataError: files are missing or do not fit together; the tokenizer lacks too many of the transcripts'
            characters; the mouth clips have another crop than the model reads; no clip is left.
    """
    data = config.data
    folder = Path(data.dir)
    check_crop(folder, preparation, data.modalities)
    clips = read_manifest(folder / f"{split}.tsv")
    texts = None
    if tokenizer is not None:
        texts = read_transcripts(folder / f"{split}.wrd", clips)
        unknown = unknown_characters(texts, tokenizer, str(folder / f"{split}.wrd"))
        if unknown:
            say(f"{split}: characters that the tokenizer does not know: {list_characters(unknown)}")
    labels = [] if read_labels is None else read_labels(clips)
    rates = [(rows, info.rate) for rows, info in labels]
    selected, left_out = select(clips, data.min_frames, data.max_frames, rates, MODALITIES[data.modalities])
    for reason, ids in left_out.items():
        say(f"{split}: {len(ids)} of {len(clips)} clips left out, {reason}: {list_names(ids)}")
    if not selected:
        raise DataError(f"no clip of {folder / f'{split}.tsv'} is left; look at data.min_frames and data.max_frames")
    with_noise = data.noise is not None and data.noise_prob > 0
    return ClipDataset(
        [clips[index] for index in selected],
        data,
        training=split == "train",
        seed=config.seed,
        labels=[([rows[index] for index in selected], info) for rows, info in labels],
        texts=None if texts is None else [normalise_text(texts[index]) for index in selected],
        tokenizer=tokenizer,
        noise=read_noise_list(data.noise, split) if with_noise and data.noise else None,
        noise_speakers=read_noise_speakers(data.noise) if with_noise and data.noise else None,
        tolerant=data.max_bad_share > 0,
        preparation=preparation,
    )


def input_preparation(config: PretrainConfig | FinetuneConfig) -> InputPreparation:
    """How the inputs are made: as for the model that training starts from, else as published, with the clips at hand.

    Raises:
        CheckpointError: model.pretrained cannot be read.
        DataError: the data directory is damaged.
    """
    source = config.model.pretrained
    if source in (None, FROM_SCRATCH):
        return dataclasses.replace(PUBLISHED, crop=read_crop(config.data.dir))
    return read_preparation(str(source))


def class_shares(dataset: ClipDataset) -> np.ndarray:
    """Shares of the classes that occur among the labels of a dataset's first label set, float [classes]."""
    _, counts = np.unique(np.concatenate(dataset.labels(0)), return_counts=True)
    shares: np.ndarray = counts / counts.sum()
    return shares


def lengths(dataset: ClipDataset) -> list[int]:
    """Frames of each clip."""
    return [clip.frames for clip in dataset.clips]


def step_order(config: PretrainConfig | FinetuneConfig, dataset: ClipDataset) -> StepOrder:
    """Which clips each optimizer step takes."""
    train = config.train
    return StepOrder(
        lengths(dataset), train.frames_per_batch, train.frames_per_step, config.seed, config.data.crop_frames
    )


class Validation:
    """(number, batch) of a rank's share of the validation batches, as often as it is iterated."""

    def __init__(
        self, config: PretrainConfig | FinetuneConfig, dataset: ClipDataset, rank: int, world_size: int
    ) -> None:
        batches = make_batches(lengths(dataset), config.train.frames_per_batch, config.seed, config.data.crop_frames)
        self._numbered = list(enumerate(batches))[rank::world_size]
        self._loader = Loader(dataset, config.data.workers)

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        loaded = self._loader.batches((0, indices) for _, indices in self._numbered)
        for (number, _), batch in zip(self._numbered, loaded, strict=True):
            yield number, batch
