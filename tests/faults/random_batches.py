"""Part `batches`: no feature and no transcript depends on batch mates, padding, order or workers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from avhubert.checkpoints.load import load_encoder, load_recognizer
from avhubert.config.schema import DataConfig
from avhubert.data.batching import StepOrder
from avhubert.data.collate import Batch, Example, pad_streams
from avhubert.data.dataset import ClipDataset
from avhubert.data.loader import Loader
from avhubert.data.manifest import read_manifest
from avhubert.decode.batch_decoder import BatchDecoder
from tests.faults.outcome import Outcome, check
from tests.faults.part import Case, Part, random_of
from tests.faults.world import make_world

TOLERANCE = 1e-5  # of features, relative to their largest value
MODALITIES = ("av", "a", "v")
LOADER_EVERY = 50  # one case in so many compares loaders instead


class Models:
    """A recognizer and an encoder, and what they give for each utterance alone."""

    def __init__(self, world: Path) -> None:
        clips = [
            clip for split in ("train", "valid", "test") for clip in read_manifest(world / "data" / f"{split}.tsv")
        ]
        self.dataset = ClipDataset(clips, DataConfig(), training=False, seed=0)
        self.decoder = BatchDecoder(load_recognizer(world / "recognizer"), "cpu", "fp32")
        self.encoder = load_encoder(world / "pretrained")
        self.examples = [self.dataset.load(index) for index in range(len(clips))]
        self._alone: dict[tuple[int, int, str], tuple[Tensor, Tensor, str]] = {}

    def utterance(self, rng: random.Random) -> tuple[tuple[int, int, str], Example]:
        """A part of a clip from its start, with both streams or one, and its key."""
        key = (rng.randrange(len(self.examples)), rng.choice((8, 13, 20, 27, 99)), rng.choice(MODALITIES))
        return key, self._cut(key)

    def _cut(self, key: tuple[int, int, str]) -> Example:
        number, frames, modality = key
        example = self.examples[number]
        audio = example.audio[:frames] if "a" in modality and example.audio is not None else None
        video = example.video[:frames] if "v" in modality and example.video is not None else None
        return replace(example, audio=audio, video=video, frames=min(frames, example.frames))

    @torch.inference_mode()
    def results(self, examples: Sequence[Example], extra: int) -> list[tuple[Tensor, Tensor, str]]:
        """Encoder features, recognizer features and transcript of each utterance of a batch."""
        longest = max(example.frames for example in examples)
        inputs = pad_streams([e.audio for e in examples], [e.video for e in examples], longest + extra)
        features = self.encoder(inputs)
        encoded = self.decoder.encode(inputs)
        found = self.decoder.search(encoded, inputs.padding_mask)
        return [
            (features[row, : e.frames], encoded[row, : e.frames], self.decoder.text(found[row][0]))
            for row, e in enumerate(examples)
        ]

    def alone(self, key: tuple[int, int, str]) -> tuple[Tensor, Tensor, str]:
        if key not in self._alone:
            self._alone[key] = self.results([self._cut(key)], 0)[0]
        return self._alone[key]


def _difference(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max() / second.abs().max())


def _compare(models: Models, rng: random.Random) -> tuple[str | None, str]:
    batch = [models.utterance(rng) for _ in range(rng.randint(2, 8))]
    results = models.results([example for _, example in batch], rng.choice((0, 0, 1, 7, 40)))
    for (key, _), (features, encoded, text) in zip(batch, results, strict=True):
        expected = models.alone(key)
        difference = max(_difference(features, expected[0]), _difference(encoded, expected[1]))
        if not difference <= TOLERANCE:
            return "other features", f"clip {key}: relative difference {difference:.1e}"
        if text != expected[2]:
            return "other transcript", f"clip {key}: '{text}' instead of '{expected[2]}'"
    return None, ""


def _compare_loaders(models: Models, rng: random.Random) -> tuple[str | None, str]:
    clips, seed = models.dataset.clips, rng.randrange(1000)
    dataset = ClipDataset(clips, DataConfig(), training=True, seed=seed)
    order = StepOrder([clip.frames for clip in clips], rng.randint(60, 200), rng.randint(60, 200), seed, None)
    workers = rng.randint(1, 4)

    def batches(count: int) -> list[Batch]:
        steps = Loader(dataset, count).steps(order, rng_first)
        return [batch for step in itertools.islice(steps, 2) for _, batch in step]

    rng_first = rng.randrange(20)
    for one, other in zip(batches(0), batches(workers), strict=True):
        same = one.ids == other.ids and all(
            torch.equal(a, b)
            for a, b in zip(vars(one.inputs).values(), vars(other.inputs).values(), strict=True)
            if isinstance(a, torch.Tensor)
        )
        if not same:
            return "other batches", f"{workers} workers, seed {seed}"
    return None, ""


def make(folder: Path, seed: int) -> Case:
    torch.set_num_threads(1)
    models = Models(make_world(folder / "world"))

    def case(number: int) -> Outcome:
        rng = random_of(seed, "batches", number)
        compare = _compare_loaders if number % LOADER_EVERY == LOADER_EVERY - 1 else _compare
        return check(f"{number}", *compare(models, rng))

    return case


PART = Part(
    "batches",
    "random batches of utterances of different lengths and streams: features (to 1e-5) and transcripts are those of "
    "each utterance alone, whatever its batch mates, the padding, the order and the number of workers",
    10_000,
    make,
)
