"""Whether crops show a mouth: a linear classifier on gradient histograms, trained by `benchmarks/train_mouth_check.py`.

It refuses a hand, a microphone or a mask before the mouth, walls, foreheads and smeared video. The weights were learned
from synthetic faces and from the GRID audiovisual sentence corpus (Cooke, Barker, Cunningham and Shao 2006, CC BY 4.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from avhubert.constants import MOUTH_SIZE
from avhubert.errors import MediaError

NO_MOUTH = "the crop shows no mouth"  # kind of rejection
WEIGHTS = Path(__file__).with_name("visible_mouth.safetensors")
ORIENTATIONS = 6
CELLS = 8  # in each direction
SCORED_EVERY = 5  # frames
LEAST_SCORE = -1.5  # median of the scores of a clip, below which it is refused; on GRID it is 3.2 to 7.0
MAX_TURN = 0.1  # `head_turn` up to which crops are judged: a mouth seen from the side has low scores too


def check_mouth(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the same crops, uint8 [96, 96]; at the end, MediaError if most of them show no mouth."""
    scores = []
    for index, frame in enumerate(frames):
        if index % SCORED_EVERY == 0:
            scores.append(mouth_score(frame))
        yield frame
    if scores and float(np.median(scores)) < LEAST_SCORE:
        raise MediaError(f"{NO_MOUTH} (a hand, a microphone, a mask, or no face)", kind=NO_MOUTH)


def mouth_score(crop: np.ndarray) -> float:
    """Positive if a crop, uint8 [96, 96], shows a mouth."""
    weights = _weights()
    return float(gradient_histogram(crop) @ weights["weight"] + weights["bias"][0])


def gradient_histogram(crop: np.ndarray) -> np.ndarray:
    """Gradients of a crop, uint8 [96, 96], by direction and place: float32 [384], of length 1; contrast is removed."""
    half = MOUTH_SIZE // 2
    image = np.asarray(crop, np.float32).reshape(half, 2, half, 2).mean((1, 3))
    down, right = np.gradient(image)
    strength = np.hypot(right, down)
    direction = (np.arctan2(down, right) % np.pi) / np.pi * ORIENTATIONS
    lower = np.floor(direction).astype(int) % ORIENTATIONS
    rest = direction - np.floor(direction)
    side = half // CELLS
    histogram = np.empty((ORIENTATIONS, CELLS, CELLS), np.float32)
    for number in range(ORIENTATIONS):
        share = (lower == number) * (1 - rest) + ((lower + 1) % ORIENTATIONS == number) * rest
        histogram[number] = (strength * share).reshape(CELLS, side, CELLS, side).sum((1, 3))
    values = np.sqrt(histogram.ravel())
    features: np.ndarray = values / (np.linalg.norm(values) + np.float32(0.05))
    return features


@cache
def _weights() -> dict[str, np.ndarray]:
    loaded: dict[str, np.ndarray] = load_file(WEIGHTS)
    return loaded
