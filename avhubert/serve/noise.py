"""Noise that the page adds to a recording, in the process that reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avhubert.data.noise import mix
from avhubert.transcription.reader import Reader

NO_NOISE, WHITE_NOISE, BABBLE = NOISES = ("none", "white noise", "babble of this recording's own voice")
BABBLE_VOICES = 6
WHITE_NOISE_LEVEL = 3000  # standard deviation of the samples, before it is scaled to the SNR


@dataclass(frozen=True)
class Noise:
    """Noise that is added to the audio: one of NOISES, at a signal-to-noise ratio in dB."""

    kind: str
    snr: float

    def add(self, samples: np.ndarray) -> np.ndarray:
        """int16 [N] with the noise."""
        if self.kind == NO_NOISE or not len(samples):
            return samples
        return mix(samples, make_noise(samples, self.kind), self.snr)


class NoisyReader(Reader):
    """A reader that adds noise to the audio."""

    def __init__(self, noise: Noise, file: str | Path, use_audio: bool, use_video: bool) -> None:
        super().__init__(file, use_audio, use_video)
        self._noise = noise

    def read_audio(self, begin: float, end: float) -> np.ndarray | None:
        """Samples between two times in seconds, with noise."""
        samples = super().read_audio(begin, end)
        return None if samples is None else self._noise.add(samples)


def make_noise(samples: np.ndarray, kind: str) -> list[np.ndarray]:
    """Noise for a recording int16 [N]: white noise, or voices: the recording backwards, shifted by several amounts."""
    rng = np.random.default_rng(0)
    if kind == WHITE_NOISE:
        return [(WHITE_NOISE_LEVEL * rng.standard_normal(len(samples))).astype(np.int16)]
    return [np.roll(samples[::-1], int(shift)) for shift in rng.integers(0, len(samples), BABBLE_VOICES)]
