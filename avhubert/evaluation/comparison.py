"""Paired significance test of two results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avhubert.errors import DataError
from avhubert.evaluation.metrics import RESAMPLES, Utterance, error_rate, resample_indices


# --------------------------------------------------------------------------- two results
@dataclass(frozen=True)
class Comparison:
    """WER of both in percent, the second's minus the first's with its 95 % interval, and a two-sided p-value."""

    first: float
    second: float
    difference: float
    interval: tuple[float, float]
    p: float
    utterances: int


def compare(first: Sequence[Utterance], second: Sequence[Utterance], seed: int = 0) -> Comparison:
    """Paired bootstrap over the utterances that both have decoded.

    Raises DataError when they are not of the same utterances and references.
    """
    others = {utterance.id: utterance for utterance in second}
    if len(others) != len(second) or {u.id: u.reference for u in first} != {u.id: u.reference for u in second}:
        raise DataError(
            "the two results are of different clips or references: evaluate both models on the same split of the "
            "same data"
        )
    words = np.array([utterance.words for utterance in first])
    errors = np.array([utterance.errors for utterance in first])
    other = np.array([others[utterance.id].errors for utterance in first])
    drawn = resample_indices(len(words), seed)
    differences = 100 * (other - errors)[drawn].sum(1) / np.maximum(words[drawn].sum(1), 1)
    low, high = np.percentile(differences, [2.5, 97.5])
    below = (1 + min((differences <= 0).sum(), (differences >= 0).sum())) / (1 + RESAMPLES)
    return Comparison(
        error_rate(errors, words),
        error_rate(other, words),
        error_rate(other, words) - error_rate(errors, words),
        (float(low), float(high)),
        float(min(1.0, 2 * below)),
        len(words),
    )
