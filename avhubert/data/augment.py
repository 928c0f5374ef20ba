"""All random choices about a clip: modality, crop, flip, noise, corruption, variation, time masks, start of a crop.

Each choice has its own random generator, keyed by (seed, epoch, clip index, choice) in training and by the clip's id in
evaluation. The choices do not depend on the worker, the rank or the order of loading.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from torch import Tensor

from avhubert.config.schema import DataConfig, FinetuneDataConfig
from avhubert.constants import CROP_SIZE, FILTERS, FRAME_RATE, MODALITIES, MOUTH_SIZE
from avhubert.data.corruption import parse_corruption
from avhubert.data.filterbank import VoiceChange
from avhubert.data.manifest import Clip
from avhubert.data.noise import without_voice
from avhubert.data.variation import ImageChange
from avhubert.errors import ConfigError

TONE_WAVES = 3  # of the frequency, whose sum is the gain of a filter
CROP_OFFSETS = MOUTH_SIZE - CROP_SIZE + 1  # possible offsets of the crop in a mouth clip, in each direction


class Choice(IntEnum):
    """The random choices; part of the key of the random generator."""

    MODALITY = 0
    CROP_AND_FLIP = 1
    NOISE = 2
    START = 3
    TIME_MASK = 4
    CORRUPTION = 5
    SPEED = 6
    IMAGES = 7
    VOICE = 8
    WRONG_VIDEO = 9


@dataclass(frozen=True)
class NoiseDraw:
    """The noise of an utterance.

    Attributes:
        files: wav files; several are averaged.
        snr: signal-to-noise ratio in dB.
    """

    files: tuple[Path, ...]
    snr: float


@dataclass(frozen=True)
class CropDraw:
    """A random crop of the video.

    Attributes:
        top: first row in pixels.
        left: first column in pixels.
        flip: whether the frames are mirrored horizontally.
    """

    top: int
    left: int
    flip: bool


class Augmentation:
    """The random choices of a data set.

    Args:
        config: data settings; only FinetuneDataConfig has random modalities, video corruption and time masks.
        training: augment the clips; otherwise only the noise and the start of a crop are random, keyed by the clip's
            id.
        seed: of the run.
        noise: wav files; None: no noise.
        noise_speakers: whose voices these files contain, as far as it is known: a clip is never mixed with the voice of
            its own speaker.

    Raises:
        ConfigError: noise_num exceeds the number of noise files; a kind of video corruption is unknown.
    """

    def __init__(
        self,
        config: DataConfig,
        training: bool,
        seed: int,
        noise: Sequence[Path] | None = None,
        noise_speakers: Mapping[Path, frozenset[str]] | None = None,
    ) -> None:
        self._config = config
        self._finetuning = config if training and isinstance(config, FinetuneDataConfig) else None
        self._training = training
        self._seed = seed
        self._noise = noise
        self._noise_speakers = noise_speakers or {}
        self._noise_of: dict[str, Sequence[Path]] = {}  # by speaker
        for name in config.faults if isinstance(config, FinetuneDataConfig) else ():
            parse_corruption(name)
        if noise is not None and len(noise) < config.noise_num:
            raise ConfigError(f"data.noise_num={config.noise_num} but the noise list has {len(noise)} files")

    def check_speakers(self, clips: Sequence[Clip]) -> None:
        """Check that there is noise for each speaker. ConfigError if only noise with his own voice is left."""
        if self._noise is None or not self._config.noise_prob:
            return
        for speaker in sorted({clip.speaker for clip in clips if clip.audio_samples}):
            usable = len(self._usable_noise(speaker))
            if usable < self._config.noise_num:
                raise ConfigError(
                    f"{usable} files of the noise list are without the voice of the speaker '{speaker}', and "
                    f"{self._config.noise_num} are needed; make the noise from more speakers (`avhubert noise`)"
                )

    def _usable_noise(self, speaker: str) -> Sequence[Path]:
        if self._noise is None:
            return []
        if speaker not in self._noise_of:
            self._noise_of[speaker] = without_voice(self._noise, self._noise_speakers, speaker)
        return self._noise_of[speaker]

    def _rng(self, choice: Choice, index: int, epoch: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, epoch, index, choice))

    def modality(self, clip: Clip, index: int, epoch: int) -> str:
        """The modality of an utterance in fine-tuning.

        It is drawn with the weights draw_av, draw_a and draw_v among those whose streams the clip has and
        `data.modalities` includes; `data.modalities` if there is none, and outside fine-tuning.
        """
        config = self._finetuning
        if config is None:
            return self._config.modalities
        weights = {"av": config.draw_av, "a": config.draw_a, "v": config.draw_v}
        available = {stream[0] for stream in clip.streams(MODALITIES[config.modalities])}
        possible = [name for name in weights if weights[name] > 0 and set(name) <= available]
        if not possible:
            return config.modalities
        probabilities = np.array([weights[name] for name in possible])
        rng = self._rng(Choice.MODALITY, index, epoch)
        return possible[rng.choice(len(possible), p=probabilities / probabilities.sum())]

    def wrong_video(self, index: int, epoch: int, videos: Sequence[int]) -> int | None:
        """The clip whose video replaces that of an utterance in fine-tuning.

        Args:
            index: the utterance.
            epoch: of the training.
            videos: indices of the clips with a video.

        Returns:
            One of `videos`; None: the utterance keeps its video.
        """
        config = self._finetuning
        if config is None or not config.wrong_video_prob:
            return None
        rng = self._rng(Choice.WRONG_VIDEO, index, epoch)
        if rng.random() >= config.wrong_video_prob:
            return None
        return videos[int(rng.integers(len(videos)))]

    def crop_and_flip(self, index: int, epoch: int) -> CropDraw | None:
        """The random crop and flip of a training clip; None: centred, not flipped."""
        if not (self._training and self._config.augment):
            return None
        rng = self._rng(Choice.CROP_AND_FLIP, index, epoch)
        top, left = rng.integers(0, CROP_OFFSETS, size=2)
        return CropDraw(int(top), int(left), bool(rng.random() < 0.5))

    def corruption(self, clip: Clip, index: int, epoch: int) -> tuple[str, str] | None:
        """The corruption of a clip's video in fine-tuning.

        Returns:
            The arguments `corruption` and `clip_id` of `data.corruption.corrupt`; None: no corruption.
        """
        config = self._finetuning
        if config is None or not config.faults:
            return None
        rng = self._rng(Choice.CORRUPTION, index, epoch)
        if rng.random() >= config.fault_prob:
            return None
        return config.faults[rng.integers(len(config.faults))], f"{self._seed} {epoch} {clip.id}"

    def speed(self, index: int, epoch: int) -> float:
        """The speed of a clip relative to the recorded one."""
        config = self._finetuning
        if config is None or not config.vary_speed:
            return 1.0
        return _around_1(self._rng(Choice.SPEED, index, epoch), config.vary_speed)

    def images(self, index: int, epoch: int) -> ImageChange | None:
        """How the frames of a clip change in fine-tuning; None: not at all."""
        config = self._finetuning
        if config is None or not any(
            (config.vary_scale, config.vary_rotation, config.vary_light, config.vary_sharpness)
        ):
            return None
        rng = self._rng(Choice.IMAGES, index, epoch)
        return ImageChange(
            scale=_around_1(rng, config.vary_scale),
            degrees=rng.uniform(-config.vary_rotation, config.vary_rotation),
            sharpness=1 - rng.uniform(0, config.vary_sharpness),
            gamma=_around_1(rng, config.vary_light),
            contrast=_around_1(rng, config.vary_light),
            brightness=rng.uniform(-0.5, 0.5) * config.vary_light,
        )

    def voice(self, index: int, epoch: int) -> VoiceChange | None:
        """How the voice of a clip changes in fine-tuning; None: not at all."""
        config = self._finetuning
        if config is None or not (config.vary_formants or config.vary_tone):
            return None
        rng = self._rng(Choice.VOICE, index, epoch)
        formants = round(_around_1(rng, config.vary_formants), 2)  # few different filterbanks are kept in memory
        waves, phases = rng.uniform(-1, 1, TONE_WAVES), rng.uniform(0, 2 * np.pi, TONE_WAVES)
        periods = np.arange(1, TONE_WAVES + 1) / 2 * np.linspace(0, 2 * np.pi, FILTERS)[:, None]
        gains: np.ndarray = (waves * np.sin(periods + phases)).mean(1)
        return VoiceChange(formants, config.vary_tone * gains)

    def noise(self, clip: Clip, index: int, epoch: int) -> NoiseDraw | None:
        """The noise of a clip; None: no noise."""
        if self._training:
            return self._draw_noise(self._rng(Choice.NOISE, index, epoch), clip.speaker)
        return self.noise_in_evaluation(clip.id, clip.speaker)

    def noise_in_evaluation(self, utterance_id: str, speaker: str = "") -> NoiseDraw | None:
        """The noise of an utterance in evaluation; None: no noise.

        It depends on the id, the noise list and, if the list says whose voices it has, the speaker only.
        """
        return self._draw_noise(np.random.default_rng([*hashlib.sha256(utterance_id.encode()).digest()]), speaker)

    def _draw_noise(self, rng: np.random.Generator, speaker: str) -> NoiseDraw | None:
        if self._noise is None or rng.random() >= self._config.noise_prob:
            return None
        files = self._usable_noise(speaker)
        chosen = rng.choice(len(files), size=self._config.noise_num, replace=False)
        low, high = self._config.noise_snr
        snr = low if low == high else int(rng.integers(low, high + 1))
        return NoiseDraw(tuple(files[number] for number in chosen), snr)

    def mask_time(self, streams: Sequence[Tensor], index: int, epoch: int) -> None:
        """Set random spans of each stream to 0, which is the mean (Ma et al., ICASSP 2023, § 3.3).

        Args:
            streams: float [T, …], changed in place; each has its own spans.
            index: of the clip in the data set.
            epoch: counted from 0.
        """
        config = self._finetuning
        if config is None or not config.time_mask_rate:
            return
        rng = self._rng(Choice.TIME_MASK, index, epoch)
        for stream in streams:
            frames = len(stream)
            for _ in range(rng.poisson(config.time_mask_rate * frames / FRAME_RATE)):
                length = int(rng.integers(1, min(config.time_mask_frames, frames) + 1))
                start = int(rng.integers(0, frames - length + 1))
                stream[start : start + length] = 0

    def start(self, clip_id: str, frames: int, size: int, index: int, epoch: int) -> int:
        """The first frame of a crop.

        Args:
            clip_id: key of the choice in evaluation.
            frames: of the clip.
            size: frames of the crop.
            index: of the clip in the data set, key of the choice in training.
            epoch: the same.

        Returns:
            0 without random_crop, or if the clip is not longer than `size`.
        """
        if frames <= size or not self._config.random_crop:
            return 0
        if self._training:
            rng = self._rng(Choice.START, index, epoch)
        else:
            rng = np.random.default_rng([*hashlib.sha256(clip_id.encode()).digest(), Choice.START])
        return int(rng.integers(0, frames - size + 1))


def _around_1(rng: np.random.Generator, largest: float) -> float:
    """A factor between 1 / (1 + largest) and 1 + largest; the logarithm is uniform."""
    return float(np.exp(rng.uniform(-1, 1) * np.log1p(largest)))
