"""MFCC features of the audio, 100 per second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import kaldi_native_fbank as knf
import numpy as np

from avhubert.constants import SAMPLE_RATE
from avhubert.data.manifest import Clip
from avhubert.data.shards import clip_samples
from avhubert.features.prefetch import prefetch
from avhubert.features.specification import MFCC

WINDOW = 400  # samples of an MFCC window
WIDTH = 39  # values of a feature frame
INT16_SCALE = 32768


def mfcc(samples: np.ndarray) -> np.ndarray:
    """13 MFCC with Δ and ΔΔ, float32 [F, 39] at 100 Hz, of int16 [N] at 16 kHz; F = 1 + floor((N - 400) / 160).

    Kaldi's defaults, without energy and dither. Audio shorter than a window is padded with zeros to one frame.
    """
    if len(samples) < WINDOW:
        samples = np.pad(samples, (0, WINDOW - len(samples)))
    options = knf.MfccOptions()
    options.frame_opts.dither = 0
    options.use_energy = False
    computer = knf.OnlineMfcc(options)
    computer.accept_waveform(SAMPLE_RATE, samples.astype(np.float32) / INT16_SCALE)
    computer.input_finished()
    static = np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])
    delta = _delta(static)
    return np.concatenate([static, delta, _delta(delta)], axis=1)


def _delta(x: np.ndarray) -> np.ndarray:
    """Slope over five frames by linear regression, the edges replicated."""
    n = len(x)
    padded = np.pad(x, ((2, 2), (0, 0)), mode="edge")
    slope: np.ndarray = (2 * (padded[4:] - padded[:n]) + (padded[3 : 3 + n] - padded[1 : 1 + n])) / 10
    return slope


# The first call initialises the library's access to NumPy. With kaldi-native-fbank 1.20, two threads that do it at once
# wait for each other for ever; a module is imported by one thread.
mfcc(np.zeros(WINDOW, np.int16))


class MfccExtractor:
    """MFCC of the audio of the clips; see `extractors.Extractor`."""

    def __init__(self) -> None:
        self.dtype: type[np.floating[Any]] = np.float32
        self.identity: dict[str, Any] = {"features": MFCC}

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[int, np.ndarray]]:
        """Position in `clips` and features [F, 39] of every clip, in order; a clip without audio has F = 0."""
        yield from enumerate(prefetch(_read, clips))


def _read(clip: Clip) -> np.ndarray:
    return mfcc(clip_samples(clip.audio)) if clip.audio_samples else np.zeros((0, WIDTH), np.float32)
