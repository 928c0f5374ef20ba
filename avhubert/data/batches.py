"""Clips → examples → batches, in an order that is a pure function of the seed.

B batch, T video frames at 25 Hz. Everything random comes from (seed, epoch, index of the clip), in evaluation from
the clip's id, never from a worker or rank. Batches: ICLR 2022, appendix; a budget counts frames with padding.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avhubert.config import MODALITIES, DataConfig, FinetuneDataConfig
from avhubert.data.audio import audio_features, mix, read_audio, snr_of
from avhubert.data.faults import parse_fault, with_fault
from avhubert.data.manifest import DRIFT_SECONDS, FRAME_RATE, Clip, LabelInfo
from avhubert.data.shards import clip_frames, clip_samples
from avhubert.data.text import EOS, PAD, Tokenizer
from avhubert.data.video import CROP, transform
from avhubert.errors import ConfigError, DataError, MediaError

NO_LABEL = -1
MULTIPLE = 8  # batches of more clips than this hold a multiple of it
OFFSETS = 96 - CROP + 1  # places of the crop in a mouth clip, each way


# --------------------------------------------------------------------------- what a batch is
@dataclass
class Example:
    """One clip as it is shown in one epoch; a stream that is not shown is None."""

    index: int
    epoch: int
    id: str
    frames: int
    audio: Tensor | None  # float32 [T, 104]
    video: Tensor | None  # float32 [T, 88, 88]
    labels: list[np.ndarray]  # per label set, int [labels], at its own rate
    tokens: list[int] | None  # with </s>


@dataclass
class Batch:
    """Tensors of B clips, padded to T frames.

    audio: float32 [B, 104, T], video: float32 [B, 1, T, 88, 88]; None when no row shows that stream, and zeros in
        the rows that do not show it or are over
    padding_mask: bool [B, T], True = padding
    has_audio, has_video: bool [B]
    labels: per label set int64 [B, T], the class of each frame; -1 = none: padding, or the labels have run out. (The
        published collation trims targets to the batch's longest and lets padding count as class 1 in shorter ones.)
    tokens: int64 [B, L] with </s> (2), padded with 1; None without transcripts
    frames: video frames of all clips, padding not counted
    left_out: clips that could not be read (id → why), where the dataset tolerates them; all of them, and the batch has
        no rows
    """

    audio: Tensor | None
    video: Tensor | None
    padding_mask: Tensor
    has_audio: Tensor
    has_video: Tensor
    labels: list[Tensor]
    tokens: Tensor | None
    ids: list[str]
    frames: int
    left_out: dict[str, str] = field(default_factory=dict)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=non_blocking)
            return [tensor.to(device, non_blocking=non_blocking) for tensor in value]

        moved = {field.name: getattr(self, field.name) for field in fields(self)}
        moved |= {name: move(value) for name, value in moved.items() if isinstance(value, Tensor) or name == "labels"}
        return Batch(**moved)


# --------------------------------------------------------------------------- clips
class Draw(IntEnum):
    """Which of a clip's random choices is made: each has random numbers of its own."""

    MODALITY = 0
    AUGMENT = 1
    NOISE = 2
    CROP = 3
    MASK = 4
    FAULT = 5


@dataclass(frozen=True)
class NoiseDraw:
    """The noise that falls on an utterance: files (averaged if several) and SNR in dB."""

    files: tuple[Path, ...]
    snr: float


class ClipDataset:
    """Loads clips and makes batches of them. Clips with both streams, sound alone and video alone may be mixed.

    Args:
        clips: as `select` left them; indices below count in this list.
        config: data settings. With FinetuneDataConfig each utterance of training is shown with a modality drawn by
            draw_av, draw_a and draw_v, as far as `config.modalities` has it.
        training: draw modality, crop and flip, and noise from (seed, epoch, index); otherwise the middle crop, and
            noise from the clip's id, so that it falls on an utterance alike in every run.
        labels: label sets as `load_labels` gives them: (class rows in the order of `clips`, LabelInfo).
        texts, tokenizer: transcripts in the order of `clips`.
        noise: wav files; None: no noise.
        fault: what is wrong with every clip's picture, see `data.faults`; None: nothing.
        tolerant: `batch` leaves out a clip that cannot be read and names it in `left_out`; otherwise it raises.

    Raises:
        DataError: rows or texts and clips differ in number.
        ConfigError: noise_num above the number of noise files; a fault that does not exist.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        config: DataConfig,
        training: bool,
        seed: int,
        labels: Sequence[tuple[Sequence[np.ndarray], LabelInfo]] = (),
        texts: Sequence[str] | None = None,
        tokenizer: Tokenizer | None = None,
        noise: Sequence[Path] | None = None,
        tolerant: bool = False,
        fault: str | None = None,
    ) -> None:
        assert (texts is None) == (tokenizer is None), "transcripts and a tokenizer go together"
        for what, rows in [*(("label rows", rows) for rows, _ in labels), ("transcripts", texts)]:
            if rows is not None and len(rows) != len(clips):
                raise DataError(f"there are {len(rows)} {what} for {len(clips)} clips; make them again")
        for name in config.faults if isinstance(config, FinetuneDataConfig) else ():
            parse_fault(name)
        if noise is not None and len(noise) < config.noise_num:
            raise ConfigError(f"data.noise_num={config.noise_num} but the noise list has {len(noise)} files")
        self.clips = list(clips)
        self.config = config
        self.training = training
        self.seed = seed
        self._labels = list(labels)
        self._texts = texts
        self._tokenizer = tokenizer
        self._noise = noise
        self._tolerant = tolerant
        self._fault = fault

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def label_infos(self) -> list[LabelInfo]:
        """How each label set was made."""
        return [info for _, info in self._labels]

    def labels(self, number: int) -> list[np.ndarray]:
        """Class rows of label set `number`, in the order of the clips."""
        return list(self._labels[number][0])

    def _rng(self, draw: Draw, index: int, epoch: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch, index, draw))

    # ------------------------------------------------------------------ one clip
    def load(self, index: int, epoch: int = 0) -> Example:
        """Clip `index` as epoch `epoch` shows it.

        Raises:
            MediaError: a file cannot be used; the sentence names the clip.
            DataError: the video has 0.1 s more or less than the manifest says.
        """
        clip = self.clips[index]
        shown = clip.streams(MODALITIES[self._modality(index, epoch)])
        try:
            video = self._video(index, epoch) if "video" in shown else None
            frames = clip.frames if video is None else len(video)
            audio = self._audio(index, epoch, frames) if "audio" in shown else None
        except MediaError as error:
            raise MediaError(f"clip '{clip.id}': {error}") from error
        self._mask(index, epoch, [stream for stream in (audio, video) if stream is not None])
        tokens = None
        if self._texts is not None and self._tokenizer is not None:
            tokens = [*self._tokenizer.encode(self._texts[index]), EOS]
        return Example(index, epoch, clip.id, frames, audio, video, [rows[index] for rows, _ in self._labels], tokens)

    def _modality(self, index: int, epoch: int) -> str:
        config = self.config
        if not (self.training and isinstance(config, FinetuneDataConfig)):
            return config.modalities
        weights = {"av": config.draw_av, "a": config.draw_a, "v": config.draw_v}
        there = {stream[0] for stream in self.clips[index].streams(MODALITIES[config.modalities])}
        possible = [name for name in weights if weights[name] > 0 and set(name) <= there]
        if not possible:
            return config.modalities
        chances = np.array([weights[name] for name in possible])
        return possible[self._rng(Draw.MODALITY, index, epoch).choice(len(possible), p=chances / chances.sum())]

    def _video(self, index: int, epoch: int) -> Tensor:
        clip = self.clips[index]
        frames = clip_frames(clip.video)
        if abs(len(frames) - clip.video_frames) / FRAME_RATE >= DRIFT_SECONDS:
            raise DataError(
                f"clip '{clip.id}': {clip.video} has {len(frames)} frames but the manifest says {clip.video_frames}; "
                "prepare the clip again"
            )
        if self._fault is not None:
            frames = with_fault(frames, self._fault, clip.id)
        drawn = self._drawn_fault(index, epoch)
        if drawn is not None:
            frames = with_fault(frames, drawn, f"{self.seed} {epoch} {clip.id}")
        if not (self.training and self.config.augment):
            return transform(frames)
        rng = self._rng(Draw.AUGMENT, index, epoch)
        top, left = rng.integers(0, OFFSETS, size=2)
        return transform(frames, int(top), int(left), bool(rng.random() < 0.5))

    def _drawn_fault(self, index: int, epoch: int) -> str | None:
        config = self.config
        if not (self.training and isinstance(config, FinetuneDataConfig) and config.faults):
            return None
        rng = self._rng(Draw.FAULT, index, epoch)
        return config.faults[rng.integers(len(config.faults))] if rng.random() < config.fault_prob else None

    def _audio(self, index: int, epoch: int, frames: int) -> Tensor:
        clip = self.clips[index]
        samples = clip_samples(clip.audio)
        if self.training:
            noise = self._draw_noise(self._rng(Draw.NOISE, index, epoch))
        else:
            noise = self.noise_for_test(clip.id)
        if noise is not None:
            samples = mix(samples, [read_audio(file) for file in noise.files], noise.snr)
        return audio_features(samples, frames)

    def measured_snr(self, index: int) -> float | None:
        """dB of the mixture that evaluation hears of a clip, as measured in it; None where none of it is mixed."""
        clip = self.clips[index]
        noise = self.noise_for_test(clip.id)
        if noise is None or not clip.audio_samples:
            return None
        samples, sources = clip_samples(clip.audio), [read_audio(file) for file in noise.files]
        return snr_of(mix(samples, sources, noise.snr), samples, sources)

    def _mask(self, index: int, epoch: int, streams: Sequence[Tensor]) -> None:
        """Set spans of each stream [T, …] to 0, the mean, in training (Ma et al., ICASSP 2023, § 3.3)."""
        config = self.config
        if not (self.training and isinstance(config, FinetuneDataConfig) and config.time_mask_rate):
            return
        rng = self._rng(Draw.MASK, index, epoch)
        for stream in streams:
            frames = len(stream)
            for _ in range(rng.poisson(config.time_mask_rate * frames / FRAME_RATE)):
                length = int(rng.integers(1, min(config.time_mask_frames, frames) + 1))
                start = int(rng.integers(0, frames - length + 1))
                stream[start : start + length] = 0

    def noise_for_test(self, utterance_id: str) -> NoiseDraw | None:
        """The noise that falls on an utterance outside training: decided by its id and the noise list alone."""
        return self._draw_noise(np.random.default_rng([*hashlib.sha256(utterance_id.encode()).digest()]))

    def _draw_noise(self, rng: np.random.Generator) -> NoiseDraw | None:
        if self._noise is None or rng.random() >= self.config.noise_prob:
            return None
        chosen = rng.choice(len(self._noise), size=self.config.noise_num, replace=False)
        low, high = self.config.noise_snr
        snr = low if low == high else int(rng.integers(low, high + 1))
        return NoiseDraw(tuple(self._noise[place] for place in chosen), snr)

    # ------------------------------------------------------------------ many clips
    def collate(self, examples: Sequence[Example]) -> Batch:
        """A batch of examples, padded to the longest (`pad`) or cropped to the shortest, at most `crop_frames`.

        A clip that is longer starts at 0, or at random with `random_crop`; all its streams start together.
        """
        size = batch_frames([example.frames for example in examples], self.config.pad, self.config.crop_frames)
        starts = [self._start(example, size) for example in examples]
        return collate(examples, size, starts, [info.rate for _, info in self._labels])

    def _start(self, example: Example, size: int) -> int:
        if example.frames <= size or not self.config.random_crop:
            return 0
        if self.training:
            rng = self._rng(Draw.CROP, example.index, example.epoch)
        else:
            rng = np.random.default_rng([*hashlib.sha256(example.id.encode()).digest(), Draw.CROP])
        return int(rng.integers(0, example.frames - size + 1))

    def batch(self, indices: Iterable[int], epoch: int = 0) -> Batch:
        """Load and collate."""
        examples, left_out = [], {}
        for index in indices:
            try:
                examples.append(self.load(index, epoch))
            except (MediaError, DataError) as error:
                if not self._tolerant:
                    raise
                left_out[self.clips[index].id] = str(error)
        batch = self.collate(examples) if examples else _empty()
        batch.left_out = left_out
        return batch


def _empty() -> Batch:
    nothing = torch.zeros(0, dtype=torch.bool)
    return Batch(None, None, nothing[:, None], nothing, nothing, [], None, [], 0)


def batch_frames(lengths: Sequence[int], pad: bool, crop_frames: int | None) -> int:
    """Frames T of a batch of clips of these lengths."""
    size = max(lengths) if pad else min(lengths)
    return size if crop_frames is None else min(size, crop_frames)


def collate(examples: Sequence[Example], size: int, starts: Sequence[int], label_rates: Sequence[int]) -> Batch:
    """Put frames start … start + size - 1 of each example into a batch of `size` frames."""
    count = len(examples)
    lengths = [min(example.frames - start, size) for example, start in zip(examples, starts, strict=True)]
    has_audio = torch.tensor([example.audio is not None for example in examples])
    has_video = torch.tensor([example.video is not None for example in examples])
    audio = torch.zeros(count, size, _width(examples, "audio")) if has_audio.any() else None
    video = torch.zeros(count, 1, size, *_shape(examples, "video")) if has_video.any() else None
    labels = [torch.full((count, size), NO_LABEL) for _ in label_rates]
    for row, (example, start, length) in enumerate(zip(examples, starts, lengths, strict=True)):
        if audio is not None and example.audio is not None:
            audio[row, :length] = example.audio[start : start + length]
        if video is not None and example.video is not None:
            video[row, 0, :length] = example.video[start : start + length]
        for target, clusters, rate in zip(labels, example.labels, label_rates, strict=True):
            target[row, :length] = frame_labels(clusters, rate, start, length)
    tokens = None
    if examples[0].tokens is not None:
        rows = [torch.tensor(example.tokens) for example in examples]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    return Batch(
        audio=None if audio is None else audio.transpose(1, 2),
        video=video,
        padding_mask=torch.arange(size) >= torch.tensor(lengths)[:, None],
        has_audio=has_audio,
        has_video=has_video,
        labels=labels,
        tokens=tokens,
        ids=[example.id for example in examples],
        frames=sum(lengths),
    )


def _shape(examples: Sequence[Example], stream: str) -> tuple[int, ...]:
    return next(tuple(x.shape[1:]) for example in examples if (x := getattr(example, stream)) is not None)


def _width(examples: Sequence[Example], stream: str) -> int:
    return _shape(examples, stream)[0]


def frame_labels(row: np.ndarray, rate: int, start: int, frames: int) -> Tensor:
    """int64 [frames]: label row[int(t * rate / 25)] of frames t = start …, -1 where the row has run out."""
    places = np.arange(start, start + frames) * rate // FRAME_RATE
    found = np.full(frames, NO_LABEL, np.int64)
    inside = places < len(row)
    found[inside] = row[places[inside]]
    return torch.from_numpy(found)


# --------------------------------------------------------------------------- order
def make_batches(
    lengths: Sequence[int],
    frames_per_batch: int,
    seed: int = 0,
    crop_frames: int | None = None,
    multiple: int = MULTIPLE,
) -> list[list[int]]:
    """Indices in batches of at most `frames_per_batch` frames, padding and crop counted; longer clips stand alone.

    Longest clips first (by uncropped length), ties in an order drawn with the seed. A batch of more than `multiple`
    clips holds a multiple of it.
    """
    # a legacy generator: its numbers are frozen, and they are those of the published order
    ties = np.random.RandomState(seed % 2**32).permutation(len(lengths))
    order = np.lexsort((ties, np.asarray(lengths)))[::-1].tolist()
    batches: list[list[int]] = []
    current: list[int] = []

    def emit() -> None:
        batches.append(current[: _held(len(current), multiple)])
        del current[: len(batches[-1])]

    for index in order:
        if current:
            longest = lengths[current[0]] if crop_frames is None else min(lengths[current[0]], crop_frames)
            if longest * (len(current) + 1) > frames_per_batch:
                emit()
        current.append(index)
    while current:
        emit()
    return batches


def _held(count: int, multiple: int) -> int:
    return count - count % multiple if count > multiple else count


class StepOrder:
    """Which clips each optimizer step takes, as a pure function of (seed, step).

    Batches are made once; each epoch shuffles their order with seed + epoch. A step takes the next
    max(1, round(frames_per_step / frames_per_batch)) of them, the last step of an epoch what is left.

    Raises:
        DataError: there are no clips.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        frames_per_batch: int,
        frames_per_step: int,
        seed: int,
        crop_frames: int | None = None,
    ) -> None:
        if not len(lengths):
            raise DataError("no clips are left to train on; look at data.min_frames, data.max_frames and the manifest")
        self.batches = make_batches(lengths, frames_per_batch, seed, crop_frames)
        self.batches_per_step = max(1, round(frames_per_step / frames_per_batch))
        self.steps_per_epoch = -(-len(self.batches) // self.batches_per_step)
        self._seed = seed
        self._lengths, self._crop_frames = lengths, crop_frames
        self._shuffled = functools.lru_cache(maxsize=4)(self._shuffle)

    def _shuffle(self, epoch: int) -> np.ndarray:
        return np.random.RandomState((self._seed + epoch) % 2**32).permutation(len(self.batches))

    def largest(self) -> list[int]:
        """The micro-batch with the most frames, padding counted."""
        return max(self.batches, key=lambda batch: len(batch) * self._longest(batch))

    def _longest(self, batch: list[int]) -> int:
        return batch_frames([self._lengths[index] for index in batch], True, self._crop_frames)

    def step(self, number: int) -> tuple[int, list[list[int]]]:
        """Epoch and micro-batches (lists of indices) of step `number`, counted from 0."""
        epoch, place = divmod(number, self.steps_per_epoch)
        first = place * self.batches_per_step
        return epoch, [self.batches[i] for i in self._shuffled(epoch)[first : first + self.batches_per_step]]


# --------------------------------------------------------------------------- loading ahead
class Loader:
    """Batches of a dataset in a given order, loaded ahead by `workers` threads (0: when they are asked for).

    The batches are the same whatever the number of workers. An error of a clip is raised where its batch would come.
    """

    def __init__(self, dataset: ClipDataset, workers: int = 0) -> None:
        self.dataset = dataset
        self.workers = workers

    def batches(self, wanted: Iterable[tuple[int, Sequence[int]]]) -> Iterator[Batch]:
        """A batch for each (epoch, indices); `wanted` may be endless."""
        if self.workers == 0:
            for epoch, indices in wanted:
                yield self.dataset.batch(indices, epoch)
            return
        # each thread would otherwise start as many more for torch's own loops as there are cores
        pool = ThreadPoolExecutor(self.workers, "avhubert-loader", torch.set_num_threads, (1,))
        waiting: deque[Future[Batch]] = deque()
        try:
            for epoch, indices in wanted:
                waiting.append(pool.submit(self.dataset.batch, indices, epoch))
                if len(waiting) > 2 * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def steps(
        self, order: StepOrder, first: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Sequence[tuple[int, Batch]]]:
        """For each step from `first` on, without end: this rank's (place in the step's list, batch).

        The micro-batches of a step are dealt out in turn. Each is loaded when its turn comes: go through a step's
        sequence once, from first to last, before the next step.
        """

        def mine(number: int) -> tuple[int, list[tuple[int, list[int]]]]:
            epoch, micro_batches = order.step(number)
            return epoch, list(enumerate(micro_batches))[rank::world_size]

        def wanted() -> Iterator[tuple[int, list[int]]]:
            for number in itertools.count(first):
                epoch, micro_batches = mine(number)
                for _, indices in micro_batches:
                    yield epoch, indices

        with contextlib.closing(self.batches(wanted())) as stream:  # type: ignore[type-var]
            for number in itertools.count(first):
                step = _Step([place for place, _ in mine(number)[1]], stream)
                yield step
                assert step.done, "a step's micro-batches must all be taken before the next step"


class _Step(Sequence[tuple[int, Batch]]):
    """Micro-batches of a step; each can be taken once, in order, so that no more than one is held."""

    def __init__(self, places: list[int], stream: Iterator[Batch]) -> None:
        self._places, self._stream, self._taken = places, stream, 0

    @property
    def done(self) -> bool:
        return self._taken == len(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: Any) -> Any:
        place = self._places[number]  # IndexError ends an iteration
        assert number == self._taken, "a step's micro-batches come once and in order"
        self._taken += 1
        return place, next(self._stream)
