"""Paired significance test of two results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avhubert.errors import DataError
from avhubert.evaluation.metrics import RESAMPLES, Utterance, error_rate, resample_indices


@dataclass(frozen=True)
class Comparison:
    """Two word error rates and their difference.

    Attributes:
        first, second: word error rates in percent.
        difference: second minus first, in points.
        interval: 95 % interval of the difference.
        p: two-sided p-value.
        utterances: number of utterances.
    """

    first: float
    second: float
    difference: float
    interval: tuple[float, float]
    p: float
    utterances: int


def compare(first: Sequence[Utterance], second: Sequence[Utterance], seed: int = 0) -> Comparison:
    """Paired bootstrap over the utterances of two results.

    Raises:
        DataError: the results have different utterances or references.
    """
    by_id = {utterance.id: utterance for utterance in second}
    if len(by_id) != len(second) or {u.id: u.reference for u in first} != {u.id: u.reference for u in second}:
        raise DataError(
            "the two results are of different clips or references: evaluate both models on the same split of the "
            "same data"
        )
    words = np.array([utterance.words for utterance in first])
    first_errors = np.array([utterance.errors for utterance in first])
    second_errors = np.array([by_id[utterance.id].errors for utterance in first])
    drawn = resample_indices(len(words), seed)
    differences = 100 * (second_errors - first_errors)[drawn].sum(1) / np.maximum(words[drawn].sum(1), 1)
    low, high = np.percentile(differences, [2.5, 97.5])
    one_sided = (1 + min((differences <= 0).sum(), (differences >= 0).sum())) / (1 + RESAMPLES)
    return Comparison(
        first=error_rate(first_errors, words),
        second=error_rate(second_errors, words),
        difference=error_rate(second_errors, words) - error_rate(first_errors, words),
        interval=(float(low), float(high)),
        p=float(min(1.0, 2 * one_sided)),
        utterances=len(words),
    )
