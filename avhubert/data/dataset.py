"""Clips → examples → batches, in an order that is a pure function of the seed.

B batch, T video frames at 25 Hz. Everything random comes from (seed, epoch, index of the clip), in evaluation from
the clip's id, never from a worker or rank. Batches: ICLR 2022, appendix; a budget counts frames with padding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from torch import Tensor

from avhubert.config.schema import DataConfig, FinetuneDataConfig
from avhubert.constants import CROP_SIZE, EOS, FRAME_RATE, MODALITIES, MOUTH_SIZE
from avhubert.data.audio import read_audio
from avhubert.data.collate import Batch, Example, batch_frames, collate, empty_batch
from avhubert.data.corruption import parse_fault, with_fault
from avhubert.data.filterbank import audio_features
from avhubert.data.labels import LabelInfo
from avhubert.data.manifest import DRIFT_SECONDS, Clip
from avhubert.data.noise import mix, snr_of
from avhubert.data.shards import clip_frames, clip_samples
from avhubert.data.tokenizer import Tokenizer
from avhubert.data.video import transform
from avhubert.errors import ConfigError, DataError, MediaError

OFFSETS = MOUTH_SIZE - CROP_SIZE + 1  # places of the crop in a mouth clip, each way


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
        batch = self.collate(examples) if examples else empty_batch()
        batch.left_out = left_out
        return batch
