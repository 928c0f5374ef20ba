"""Noise lists, and mixing noise into speech at a signal-to-noise ratio."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avhubert.data.manifest import read_lines
from avhubert.errors import DataError


# --------------------------------------------------------------------------- noise
def mix(speech: np.ndarray, noises: Sequence[np.ndarray], snr: float) -> np.ndarray:
    """Speech int16 [N] with noise at `snr` dB, int16 [N] (Interspeech 2022, § 3).

    Several noises are averaged first, cut to the shortest. Noise shorter than the speech is repeated, longer noise
    cut from its start; levels are root mean squares over the whole clip. A mixture that leaves int16's range is
    scaled down as a whole. Silent noise changes nothing.
    """
    noise, clean = _fitted(noises, len(speech)), speech.astype(np.float32)
    clean_level, noise_level = _level(clean), _level(noise)
    if noise_level == 0:
        return speech.copy()
    mixed = clean + noise * np.float32(clean_level / 10 ** (snr / 20) / noise_level)
    limits = np.iinfo(np.int16)
    if mixed.max() > limits.max or mixed.min() < limits.min:
        high, low = float(mixed.max()), float(mixed.min())
        mixed *= np.float32(limits.max / high if high >= -low else limits.min / low)
    return mixed.astype(np.int16)


def snr_of(mixed: np.ndarray, speech: np.ndarray, noises: Sequence[np.ndarray]) -> float | None:
    """dB between the parts of speech and of noise in a mixture that `mix` made, by least squares; None: one is silent.

    All int16; the mixture as long as the speech.
    """
    parts = np.stack([speech.astype(np.float64), _fitted(noises, len(speech)).astype(np.float64)], 1)
    levels = np.sqrt(np.mean(parts**2, axis=0))
    if not levels.all():
        return None
    shares = np.abs(np.linalg.lstsq(parts, mixed.astype(np.float64), rcond=None)[0]) * levels
    return float(20 * np.log10(shares[0] / shares[1]))


def _fitted(noises: Sequence[np.ndarray], length: int) -> np.ndarray:
    """The mean of the noises, float32 [length], repeated or cut."""
    noise = noises[0]
    if len(noises) > 1:
        shortest = min(map(len, noises))
        noise = np.floor(np.mean([item[:shortest] for item in noises], axis=0))
    return np.resize(noise, length).astype(np.float32)


def _level(samples: np.ndarray) -> float:
    """Root mean square, rounded to float32 as in the published mixtures, which come out bit for bit."""
    return float(np.float32(np.sqrt(np.mean(samples.astype(np.float64) ** 2))))


# --------------------------------------------------------------------------- noise
def read_noise_list(path: str | Path, split: str) -> list[Path]:
    """Wav files of a noise list: one path a line, relative ones from the list's folder.

    `path` is a list or a folder with {train,valid,test}.tsv, of which `split` is taken.

    Raises:
        DataError: the list is missing or empty, or names a file that does not exist.
    """
    path = Path(path)
    if path.is_dir():
        path = path / f"{split}.tsv"
    found = [Path(os.path.abspath(path.parent / line)) for line in read_lines(path, "noise list") if line]
    if not found:
        raise DataError(f"noise list {path} names no files; make one with `avhubert noise`")
    for file in dict.fromkeys(found):  # a balanced list repeats its files
        if not file.is_file():
            raise DataError(f"noise list {path} names {file}, which does not exist; make the list again")
    return found
