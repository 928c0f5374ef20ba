"""Phones to mouth shapes: visemes with coarticulation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.corpora.synthetic.voice import Segment


class Viseme(NamedTuple):
    """The mouth shape of a phone.

    Attributes:
        opening: 0…1.
        width: -1 rounded … 1 spread.
        rounding: 0…1.
        tongue: Tongue tip at the teeth, 0…1.
        bite: Teeth edge to edge, 0…1.
        strength: Weight against neighbouring phones.
    """

    opening: float
    width: float
    rounding: float
    tongue: float
    bite: float
    strength: float


_TABLE: dict[str, tuple[float, float, float, float, float, float]] = {
    "i": (0.21, 0.95, 0.0, 0.0, 0.6, 1.0),
    "ɪ": (0.30, 0.55, 0.0, 0.0, 0.3, 0.8),
    "e": (0.48, 0.65, 0.0, 0.0, 0.1, 1.0),
    "ɛ": (0.58, 0.45, 0.0, 0.0, 0.0, 1.0),
    "æ": (0.82, 0.55, 0.0, 0.0, 0.0, 1.0),
    "a": (0.92, 0.25, 0.0, 0.0, 0.0, 1.0),
    "ɑ": (1.00, 0.00, 0.0, 0.0, 0.0, 1.0),
    "ɐ": (0.45, 0.15, 0.0, 0.0, 0.0, 0.6),
    "ʌ": (0.62, 0.10, 0.0, 0.0, 0.0, 1.0),
    "ə": (0.38, 0.05, 0.0, 0.0, 0.0, 0.5),
    "ɜ": (0.42, -0.25, 0.3, 0.0, 0.0, 0.9),
    "ɚ": (0.36, -0.25, 0.3, 0.0, 0.0, 0.8),
    "ɒ": (0.80, -0.35, 0.4, 0.0, 0.0, 1.0),
    "ɔ": (0.58, -0.60, 0.7, 0.0, 0.0, 1.0),
    "o": (0.44, -0.70, 0.8, 0.0, 0.0, 1.0),
    "ʊ": (0.24, -0.85, 0.9, 0.0, 0.0, 1.0),
    "u": (0.20, -1.00, 1.0, 0.0, 0.0, 1.2),
    "ʉ": (0.20, -0.85, 0.9, 0.0, 0.0, 1.2),
    "p": (0.00, 0.05, 0.0, 0.0, 0.0, 1.0),
    "b": (0.00, 0.05, 0.0, 0.0, 0.0, 1.0),
    "m": (0.00, 0.05, 0.0, 0.0, 0.0, 1.0),
    "f": (0.20, 0.15, 0.0, 0.0, 0.0, 1.2),
    "v": (0.20, 0.15, 0.0, 0.0, 0.0, 1.2),
    "θ": (0.24, 0.15, 0.0, 1.0, 0.0, 1.6),
    "ð": (0.24, 0.15, 0.0, 1.0, 0.0, 1.6),
    "t": (0.16, 0.30, 0.0, 0.5, 0.5, 0.8),
    "d": (0.16, 0.30, 0.0, 0.5, 0.5, 0.8),
    "n": (0.18, 0.25, 0.0, 0.6, 0.2, 0.8),
    "ɾ": (0.26, 0.20, 0.0, 0.5, 0.2, 0.6),
    "s": (0.13, 0.60, 0.0, 0.0, 1.0, 1.4),
    "z": (0.13, 0.60, 0.0, 0.0, 1.0, 1.4),
    "l": (0.34, 0.25, 0.0, 0.9, 0.0, 1.0),
    "ʃ": (0.19, -0.55, 0.8, 0.0, 1.0, 1.4),
    "ʒ": (0.19, -0.55, 0.8, 0.0, 1.0, 1.4),
    "k": (0.34, 0.20, 0.0, 0.0, 0.0, 0.5),
    "ɡ": (0.34, 0.20, 0.0, 0.0, 0.0, 0.5),
    "ŋ": (0.34, 0.20, 0.0, 0.0, 0.0, 0.5),
    "ʔ": (0.30, 0.10, 0.0, 0.0, 0.0, 0.2),
    "h": (0.40, 0.10, 0.0, 0.0, 0.0, 0.3),
    "j": (0.26, 0.70, 0.0, 0.0, 0.5, 0.9),
    "ɹ": (0.21, -0.50, 0.7, 0.0, 0.2, 1.0),
    "r": (0.22, -0.35, 0.5, 0.3, 0.2, 1.0),
    "w": (0.13, -1.00, 1.0, 0.0, 0.0, 1.6),
    "ʍ": (0.13, -1.00, 1.0, 0.0, 0.0, 1.6),
    "ᵻ": (0.30, 0.45, 0.0, 0.0, 0.2, 0.6),
    # Russian, in espeak-ng's letters
    "y": (0.32, 0.40, 0.0, 0.0, 0.2, 1.0),
    "ɵ": (0.40, -0.60, 0.7, 0.0, 0.0, 0.9),
    "ɭ": (0.34, 0.15, 0.0, 0.8, 0.0, 1.0),
    "ʑ": (0.20, 0.10, 0.3, 0.0, 1.0, 1.4),
    "x": (0.38, 0.10, 0.0, 0.0, 0.0, 0.4),
}
VISEMES = {phone: Viseme(*values) for phone, values in _TABLE.items()}
REST = Viseme(0.0, 0.0, 0.0, 0.0, 0.0, 1.2)
LIPS_TOGETHER, LIP_TO_TEETH = "pbm", "fv"
STEP = 0.005  # seconds between the times at which targets are blended
SPREAD = 0.045  # seconds by which a phone influences its neighbours
SHORTEST_CLOSURE = 0.07  # seconds, so that at least one frame of 40 ms shows it


@dataclass(frozen=True)
class MouthShapes:
    """The mouth in each video frame, arrays [T].

    Attributes:
        gap: Between the lips, 0…1 of the speaker's widest; exactly 0 while they are shut.
        width: -1 rounded … 1 spread.
        rounding: 0…1.
        tongue: Tongue tip at the upper teeth, 0…1.
        bite: Teeth edge to edge, 0…1.
        tuck: Lower lip at the upper teeth, as in F, 0…1.
        press: Lips pressed together, as in P, 0…1.
    """

    gap: np.ndarray
    width: np.ndarray
    rounding: np.ndarray
    tongue: np.ndarray
    bite: np.ndarray
    tuck: np.ndarray
    press: np.ndarray


def mouth_shapes(phones: Sequence[Segment], frames: int) -> MouthShapes:
    """Mouth shapes of `frames` video frames (frame t shows time (t + ½) / 25 s) for phones with times in seconds.

    Each phone is weighted by its viseme's strength, which decreases with the distance in time (dominance blending,
    Cohen and Massaro 1993). The closures of P, B, M and the bite of F, V are imposed afterwards, because
    coarticulation never opens them.
    """
    seconds = (frames + 1) / FRAME_RATE
    times = np.arange(0, seconds, STEP)
    targets, spans = _targets(phones, seconds)
    start, end = spans[:, :1], spans[:, 1:]
    outside = np.maximum(np.maximum(start - times, times - end), 0.0)
    weight = targets[:, 5:] * np.exp(-((outside / SPREAD) ** 2)) + 1e-9
    opening, width, rounding, tongue, bite = (targets[:, :5].T @ weight) / weight.sum(0)
    # lips and jaw have inertia, tongue and teeth do not
    opening, width, rounding = (_smooth(values, 0.018) for values in (opening, width, rounding))
    shut = _imposed(phones, times, LIPS_TOGETHER)
    tuck = _imposed(phones, times, LIP_TO_TEETH)
    gap = opening * (1 - shut)
    gap[gap < 0.02] = 0.0
    frame_times = (np.arange(frames) + 0.5) / FRAME_RATE
    index = np.minimum(np.rint(frame_times / STEP).astype(int), len(times) - 1)
    return MouthShapes(*(values[index] for values in (gap, width, rounding, tongue, bite, tuck, shut)))


def _targets(phones: Sequence[Segment], seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Targets [K, 6] and their times [K, 2]: two for a diphthong or affricate, lips at rest for a pause."""
    rows, spans = [], []
    cursor = 0.0
    for phone in phones:
        if phone.start - cursor > 0.03:
            rows.append(REST)
            spans.append((cursor, phone.start))
        parts = [VISEMES[letter] for letter in phone.label if letter in VISEMES]
        cuts = np.linspace(phone.start, phone.end, len(parts) + 1)
        rows.extend(parts)
        spans.extend(itertools.pairwise(cuts))
        cursor = phone.end
    rows.append(REST)
    spans.append((cursor + 0.03, max(seconds, cursor + 0.03)))
    return np.array(rows), np.array(spans)


def _imposed(phones: Sequence[Segment], times: np.ndarray, labels: str) -> np.ndarray:
    """1 during a phone of `labels`, decreasing smoothly to 0 within 50 ms around it."""
    value = np.zeros_like(times)
    for phone in phones:
        if phone.label[0] in labels:
            # a stop ends with its burst, when the lips are already apart
            end = phone.end - 0.35 * (phone.end - phone.start)
            start = min(phone.start, end - SHORTEST_CLOSURE)
            distance = np.maximum(np.maximum(start - times, times - end), 0.0)
            value = np.maximum(value, 0.5 + 0.5 * np.cos(np.pi * np.clip(distance / 0.05, 0, 1)))
    return value


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    reach = int(3 * sigma / STEP)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * STEP / sigma) ** 2)
    return np.convolve(np.pad(values, reach, mode="edge"), kernel / kernel.sum(), mode="valid")
