"""Log mel filterbank features of audio, stacked to 25 Hz, as `python_speech_features.logfbank` computes them."""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from avhubert.constants import FILTERS, SAMPLE_RATE, STACKED_FRAMES

WINDOW, HOP, FFT = 400, 160, 512  # 25 ms, 10 ms


PRE_EMPHASIS = 0.97


# --------------------------------------------------------------------------- features
@functools.cache
def _mel_filters() -> Tensor:
    """Triangular filters float64 [257, 26] between 0 and 8 kHz, their corners rounded down to FFT bins."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, FILTERS + 2) / 2595) - 1)
    corners = np.floor((FFT + 1) * hertz / SAMPLE_RATE)
    bins = np.arange(FFT // 2 + 1)[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (bins - left) / np.maximum(centre - left, 1)
    falling = (right - bins) / np.maximum(right - centre, 1)
    filters = np.where((left <= bins) & (bins < centre), rising, 0)
    return torch.from_numpy(np.where((centre <= bins) & (bins < right), falling, filters))


def filterbank(samples: np.ndarray) -> Tensor:
    """Log mel filterbank float64 [F, 26] at 100 Hz of int16 [N]; F = 1 + ceil((N - 400) / 160), 1 if N ≤ 400.

    What `python_speech_features.logfbank` computes: pre-emphasis, rectangular 25 ms windows every 10 ms with the
    last one zero-padded, power spectrum |X|²/512, natural logarithm with zeros replaced by float64's epsilon.
    """
    signal = torch.from_numpy(np.asarray(samples, np.float64))
    signal = torch.cat([signal[:1], signal[1:] - PRE_EMPHASIS * signal[:-1]])
    count = 1 + max(0, -(-(len(signal) - WINDOW) // HOP))
    windows = F.pad(signal, (0, (count - 1) * HOP + WINDOW - len(signal))).unfold(0, WINDOW, HOP)
    # in blocks, so that an hour of sound does not need gigabytes
    energy = torch.cat([_power(block) @ _mel_filters() for block in windows.split(4096)])
    return torch.where(energy == 0, torch.finfo(torch.float64).eps, energy).log()


def _power(windows: Tensor) -> Tensor:
    spectrum = torch.fft.rfft(windows, FFT)
    return (spectrum.real.square() + spectrum.imag.square()) / FFT  # five times as fast as abs().square()


def stack_frames(features: Tensor) -> Tensor:
    """[F, 26] at 100 Hz → [ceil(F / 4), 104] at 25 Hz, zero frames filling the last."""
    features = F.pad(features, (0, 0, 0, -len(features) % STACKED_FRAMES))
    return features.reshape(-1, STACKED_FRAMES * features.shape[1])


def normalise(features: Tensor) -> Tensor:
    """Layer norm of each frame of [T, D] on its own, without learned parameters."""
    return F.layer_norm(features, features.shape[-1:])


def audio_features(samples: np.ndarray, frames: int | None = None) -> Tensor:
    """The model's audio input, float32 [T, 104], of int16 [N].

    With `frames` (of the video beside it), T = frames: cut, or padded with zero frames before the normalisation.
    """
    stacked = stack_frames(filterbank(samples).float())
    if frames is not None:
        stacked = F.pad(stacked[:frames], (0, 0, 0, max(0, frames - len(stacked))))
    return normalise(stacked)
