"""Log mel filterbank features of audio, stacked to 25 Hz, as `python_speech_features.logfbank` computes them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from avhubert.config.input_preparation import INTEGERS, UNIT
from avhubert.constants import FILTERS, SAMPLE_RATE, STACKED_FRAMES

WINDOW, HOP, FFT = 400, 160, 512  # samples: 25 ms, 10 ms, size of the transform
PRE_EMPHASIS = 0.97
UNIT_POWER = 2.0**-30  # power of samples between -1 and 1, relative to that of 16-bit integers


WARPED_SHARE = 0.8  # of the frequencies up to 8 kHz: formants above are hardly those of speech


@dataclass(frozen=True)
class VoiceChange:
    """How a training clip's voice differs from the recorded one.

    Attributes:
        formants: factor of the frequencies of the formants; above 1: of a shorter vocal tract.
        gains: of each filter in dB, [26].
    """

    formants: float
    gains: np.ndarray


@functools.lru_cache(maxsize=256)
def _mel_filters(formants: float = 1.0) -> Tensor:
    """Triangular filters float64 [257, 26] between 0 and 8 kHz, with corners rounded down to FFT bins.

    `formants` other than 1 divides the frequencies of the corners (vocal tract length perturbation, Jaitly and Hinton
    2013): by this factor up to a limit, above it by a varying one, so that 8 kHz stays where it is.
    """
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, FILTERS + 2) / 2595) - 1)
    if formants != 1:
        highest = SAMPLE_RATE / 2
        limit = WARPED_SHARE * highest * min(1.0, formants)
        hertz = np.interp(hertz, [0, limit, highest], [0, limit / formants, highest])
    corners = np.floor((FFT + 1) * hertz / SAMPLE_RATE)
    bins = np.arange(FFT // 2 + 1)[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins - left) / np.maximum(centre - left, 1)
    falling = (right - bins) / np.maximum(right - centre, 1)
    filters = np.where((left <= bins) & (bins < centre), rising, 0)
    return torch.from_numpy(np.where((centre <= bins) & (bins < right), falling, filters))


def filterbank(samples: np.ndarray, change: VoiceChange | None = None, scale: str = INTEGERS) -> Tensor:
    """Compute the log mel filterbank at 100 Hz, equal to `python_speech_features.logfbank`.

    Pre-emphasis, rectangular windows of 25 ms every 10 ms (the last one zero-padded), power spectrum |X|² / 512, mel
    filters, natural logarithm with zeros replaced by the epsilon of float64.

    Args:
        samples: int16 [N], 16 kHz mono, N ≥ 1.
        change: of the voice; None: none.
        scale: of the samples, a value of `InputPreparation.audio_scale`.

    Returns:
        float64 [F, 26], F = 1 + ceil((N − 400) / 160), or 1 if N ≤ 400.
    """
    signal = torch.from_numpy(np.asarray(samples, np.float64))
    signal = torch.cat([signal[:1], signal[1:] - PRE_EMPHASIS * signal[:-1]])
    count = 1 + max(0, -(-(len(signal) - WINDOW) // HOP))
    windows = F.pad(signal, (0, (count - 1) * HOP + WINDOW - len(signal))).unfold(0, WINDOW, HOP)
    # in blocks: an hour of audio at once would need gigabytes
    filters = _mel_filters(change.formants if change else 1.0)
    energy = torch.cat([_power(block) @ filters for block in windows.split(4096)])
    if change is not None:
        energy = energy * torch.from_numpy(10 ** (change.gains / 10))
    if scale == UNIT:
        energy = energy * UNIT_POWER
    return torch.where(energy == 0, torch.finfo(torch.float64).eps, energy).log()


def _power(windows: Tensor) -> Tensor:
    """The power spectrum [F, 257] of windows [F, 400]."""
    spectrum = torch.fft.rfft(windows, FFT)
    power: Tensor = (spectrum.real.square() + spectrum.imag.square()) / FFT  # five times faster than abs().square()
    return power


def stack_frames(features: Tensor) -> Tensor:
    """Stack four frames into one: [F, 26] at 100 Hz → [ceil(F / 4), 104] at 25 Hz, padded with zero frames."""
    features = F.pad(features, (0, 0, 0, -len(features) % STACKED_FRAMES))
    return features.reshape(-1, STACKED_FRAMES * features.shape[1])


def normalise(features: Tensor) -> Tensor:
    """Apply layer norm to each frame of [T, D], without learned parameters."""
    return F.layer_norm(features, features.shape[-1:])


def stacked_frames(samples: int) -> int:
    """T, the frames at 25 Hz that `audio_features` makes of a number of samples."""
    return -(-(1 + max(0, -(-(samples - WINDOW) // HOP))) // STACKED_FRAMES)


def audio_features(
    samples: np.ndarray, frames: int | None = None, change: VoiceChange | None = None, scale: str = INTEGERS
) -> Tensor:
    """Compute the model's audio input: stacked and normalised filterbank frames at 25 Hz.

    Args:
        samples: int16 [N], 16 kHz mono, N ≥ 1.
        frames: T, the frames of the clip's video: the features are cut, or padded with zeros before the normalisation;
            None: T follows from N.
        change: of the voice; None: none.
        scale: as in `filterbank`.

    Returns:
        float32 [T, 104].
    """
    stacked = stack_frames(filterbank(samples, change, scale).float())
    if frames is not None:
        stacked = F.pad(stacked[:frames], (0, 0, 0, max(0, frames - len(stacked))))
    return normalise(stacked)
