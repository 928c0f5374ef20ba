"""Beam search of texts of a fixed length, Base sizes; and the default decoding of a model that has a CTC head."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from baseline.search import Settings, beam_search
from baseline.weights import baseline_recognizer
from forms import make_recognizer, missing_precision, our_forms
from measure import Case, Claim, Form

from avhubert.decode.batch_decoder import BatchDecoder

TOKENS = 75  # and </s>: 76 steps
FRAMES = 100


def encoded(smoke: bool) -> torch.Tensor:
    """Random frames, the same in every process."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(1, 12 if smoke else FRAMES, 64 if smoke else 768, generator=generator)


def tokens(smoke: bool) -> int:
    return 8 if smoke else TOKENS


def published(smoke: bool, beam: int) -> Callable[[], np.ndarray]:
    model = baseline_recognizer(make_recognizer(smoke))
    frames, count = encoded(smoke), tokens(smoke)
    settings = Settings(beam, 1.0, count, count)
    return lambda: np.array(beam_search(model, frames, None, settings)[0][0].tokens)


def ours(smoke: bool, beam: int, precision: str) -> Callable[[], np.ndarray]:
    count = tokens(smoke)
    settings = {"beam": beam, "max_len_a": 0.0, "max_len_b": count, "min_len": count}
    decoder = BatchDecoder(make_recognizer(smoke), "cpu", precision, settings)
    frames = encoded(smoke)
    return lambda: np.array(decoder.search(frames, None)[0][0].tokens)


def default_published(smoke: bool) -> Callable[[], None]:
    """The published search knows no CTC; its length limit is the number of frames."""
    model = baseline_recognizer(make_recognizer(smoke))
    frames = encoded(smoke)

    def repeat() -> None:
        beam_search(model, frames, None, Settings())

    return repeat


def default_ours(smoke: bool, precision: str) -> Callable[[], None]:
    """Settings that a model with a CTC head has unless it says otherwise."""
    decoder = BatchDecoder(make_recognizer(smoke, ctc=True), "cpu", precision)
    frames = encoded(smoke)

    def repeat() -> None:
        decoder.search(frames, None)

    return repeat


def search(beam: int, goal: str, before: float) -> Case:
    forms = [
        Form("baseline", functools.partial(published, beam=beam)),
        *our_forms(functools.partial(ours, beam=beam), 0.0),
    ]
    return Case(f"beam{beam}", f"beam {beam} search, 100 frames, 76 steps", forms, goal, seconds=30, before=before)


def default_forms() -> list[Form]:
    own = [
        Form(f"ours, {name}", functools.partial(default_ours, precision=name), missing=missing_precision(name))
        for name in ("fp32", "bf16")
    ]
    return [Form("baseline", default_published), *own]


CLAIM = Claim(
    "search",
    "Beam search",
    [
        search(20, "≥ 3.5 × (fp32 ≥ 2.1 ×)", 3.65),
        search(50, "", 6.6),
        Case("ctc", "default decoding of a model with a CTC head, 100 frames", default_forms(), "≥ 8 ×", seconds=40),
    ],
    "Base sizes, random weights: every text has 75 tokens and `</s>`, and the best texts are compared. The times that "
    "were measured earlier are without the encoder. The published search has no CTC: the last row compares beam 50 "
    "with what ours does by default.",
)
