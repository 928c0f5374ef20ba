"""The encoder's forward pass, Base sizes: mouth clips alone, both streams, and a batch of clips of mixed lengths."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from baseline.weights import baseline_recognizer
from forms import floors, make_inputs, make_recognizer, our_forms, real_frames
from measure import Case, Claim, Form

from avhubert.decode.batch_decoder import BatchDecoder

MIXED = [50, 75, 100, 125, 150, 175, 200, 250]
LENGTHS = {"lips": [75], "both": [100] * 4, "mixed": MIXED}
STREAMS = {"lips": "v", "both": "av", "mixed": "av"}


def lengths(case: str, smoke: bool) -> list[int]:
    return [max(2, length // 25) for length in LENGTHS[case]] if smoke else LENGTHS[case]


def published(smoke: bool, case: str) -> Callable[[], np.ndarray]:
    model = baseline_recognizer(make_recognizer(smoke))
    inputs = make_inputs(lengths(case, smoke), STREAMS[case])

    def repeat() -> np.ndarray:
        with torch.no_grad():
            return real_frames(model.encode(inputs.audio, inputs.video, inputs.padding_mask), inputs)

    return repeat


def ours(smoke: bool, case: str, precision: str) -> Callable[[], np.ndarray]:
    decoder = BatchDecoder(make_recognizer(smoke), "cpu", precision)
    inputs = make_inputs(lengths(case, smoke), STREAMS[case])
    return lambda: real_frames(decoder.encode(inputs), inputs)


def floor(smoke: bool, case: str) -> dict[str, float]:
    """Of one clip without padding, times the frames of all."""
    model = baseline_recognizer(make_recognizer(smoke)).to("meta")  # operations are counted, not done
    sizes = lengths(case, smoke)
    inputs = make_inputs([max(sizes)], STREAMS[case]).to("meta")
    return floors(lambda: model.encode(inputs.audio, inputs.video), sum(sizes) / max(sizes))


def case(name: str, title: str, goal: str, before: float, seconds: float) -> Case:
    forms = [
        Form("baseline", functools.partial(published, case=name)),
        *our_forms(functools.partial(ours, case=name), 2e-5),
    ]
    return Case(name, title, forms, goal, floor=functools.partial(floor, case=name), before=before, seconds=seconds)


CLAIM = Claim(
    "forward",
    "Forward pass of the encoder",
    [
        case("lips", "lips, 1 × 75 frames", "≥ 3.5 ×", 0.460, 30),
        case("both", "both, 4 × 100 frames", "≥ 5 × (fp32 ≥ 1.9 ×)", 2.75, 50),
        case("mixed", "both, 8 × 50 … 250 frames", "≥ 9 × (fp32 ≥ 3.3 ×), ≤ 0.6 of the memory", 16.8, 90),
    ],
    "Base sizes, random weights. The numbers that are compared are the features of all real frames.",
)
