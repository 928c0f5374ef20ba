"""Noise: mixing it into speech at a signal-to-noise ratio (SNR), and reading noise lists."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from avhubert.data.manifest import read_lines
from avhubert.errors import DataError
from avhubert.files import read_json_object

NOISE_SPEAKERS = "speakers.json"  # in a noise folder: the known speakers in each file


def mix(speech: np.ndarray, noises: Sequence[np.ndarray], snr: float) -> np.ndarray:
    """Mix noise into speech (Interspeech 2022, § 3).

    Several noises are averaged, all cut to the length of the shortest. Noise that is shorter than the speech is
    repeated; of longer noise the beginning is used. The SNR is that of root mean squares over the whole clip. A mixture
    that exceeds the range of int16 is scaled down as a whole. Silent noise leaves the speech unchanged.

    Args:
        speech: int16 [N].
        noises: at least one, int16 [M].
        snr: signal-to-noise ratio in dB.

    Returns:
        int16 [N], a new array.
    """
    noise, clean = _average_noise(noises, len(speech)), speech.astype(np.float32)
    clean_level, noise_level = _rms(clean), _rms(noise)
    if noise_level == 0:
        return np.array(speech)
    mixed: np.ndarray = clean + noise * np.float32(clean_level / 10 ** (snr / 20) / noise_level)
    limits = np.iinfo(np.int16)
    if mixed.max() > limits.max or mixed.min() < limits.min:
        high, low = float(mixed.max()), float(mixed.min())
        mixed *= np.float32(limits.max / high if high >= -low else limits.min / low)
    return mixed.astype(np.int16)


def snr_of(mixed: np.ndarray, speech: np.ndarray, noises: Sequence[np.ndarray]) -> float | None:
    """Measure the SNR of a mixture by least squares, given its components.

    Args:
        mixed: int16 [N], from `mix`.
        speech: int16 [N].
        noises: as given to `mix`.

    Returns:
        The SNR in dB; None if the speech or the noise is silent.
    """
    components = np.stack([speech.astype(np.float64), _average_noise(noises, len(speech)).astype(np.float64)], 1)
    levels = np.sqrt(np.mean(components**2, axis=0))
    if not levels.all():
        return None
    gains = np.abs(np.linalg.lstsq(components, mixed.astype(np.float64), rcond=None)[0])
    mixed_levels = gains * levels
    return float(20 * np.log10(mixed_levels[0] / mixed_levels[1]))


def _average_noise(noises: Sequence[np.ndarray], length: int) -> np.ndarray:
    """The mean of the noises, float32 [length], repeated or cut."""
    noise = noises[0]
    if len(noises) > 1:
        shortest = min(map(len, noises))
        noise = np.floor(np.mean([item[:shortest] for item in noises], axis=0))
    return np.resize(noise, length).astype(np.float32)


def _rms(samples: np.ndarray) -> float:
    """Root mean square, rounded to float32: only then are mixtures bit-identical to the published ones."""
    return float(np.float32(np.sqrt(np.mean(samples.astype(np.float64) ** 2))))


def read_noise_list(path: str | Path, split: str) -> list[Path]:
    """Read the paths of a noise list.

    Args:
        path: a list, or a folder with the lists {train,valid,test}.tsv. A list has one path per line; relative paths
            start at the folder of the list.
        split: which list of a folder to read.

    Returns:
        Absolute paths of wav files, in the order of the list.

    Raises:
        DataError: the list is missing or empty, or a file in it does not exist.
    """
    path = Path(path)
    if path.is_dir():
        path = path / f"{split}.tsv"
    files = [Path(os.path.abspath(path.parent / line)) for line in read_lines(path, "noise list") if line]
    if not files:
        raise DataError(f"noise list {path} lists no files; make one with `avhubert noise`")
    for file in dict.fromkeys(files):  # a balanced list repeats its files
        if not file.is_file():
            raise DataError(f"noise list {path} lists {file}, which does not exist; make the list again")
    return files


def read_noise_speakers(path: str | Path) -> dict[Path, frozenset[str]]:
    """Whose voices the files of a noise folder contain, so that no speaker is mixed with his own voice.

    Args:
        path: a list, or a folder with lists.

    Returns:
        The known speakers by absolute path; empty if the folder does not say it.

    Raises:
        DataError: speakers.json is damaged.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    file = folder / NOISE_SPEAKERS
    if not file.is_file():
        return {}
    content = read_json_object(file)
    for name, speakers in content.items():
        if not (isinstance(speakers, list) and all(isinstance(speaker, str) for speaker in speakers)):
            raise DataError(f"{file}: {name} has no list of speakers; make the noise again", path=file)
    return {Path(os.path.abspath(folder / name)): frozenset(speakers) for name, speakers in content.items()}


def without_voice(noise: Sequence[Path], noise_speakers: Mapping[Path, frozenset[str]], speaker: str) -> Sequence[Path]:
    """The noise files that do not contain the voice of a speaker; all if he is unknown."""
    if not speaker or not noise_speakers:
        return noise
    return [file for file in noise if speaker not in noise_speakers.get(file, ())]
