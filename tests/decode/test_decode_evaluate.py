"""Error rates and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avhubert.decode.evaluate import bootstrap, score, summarise, worst


def test_counts_and_rates_of_known_errors() -> None:
    utterances = score(
        ["a", "b", "c"],
        ["bin blue at f two now", "lay red", "place white"],
        ["bin blue at s two now", "lay red again", ""],
        [0.0, -1.0, -2.0],
    )
    result = summarise(utterances, "v", None, 10.0, 2.0)
    assert (result.substitutions, result.insertions, result.deletions) == (1, 1, 2)
    assert result.words == 10
    assert result.wer == pytest.approx(40.0)
    assert result.interval[0] <= result.wer <= result.interval[1]
    assert [row[0] for row in worst(result, 2)] == ["c", "a"]
    assert result.condition == "v, clean"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=30))
def test_the_interval_lies_within_the_extremes_and_is_reproducible(pairs) -> None:
    errors, words = np.array(pairs).T
    low, high = bootstrap(errors, words)
    rates = 100 * errors / words
    assert rates.min() - 1e-9 <= low <= high <= rates.max() + 1e-9
    assert bootstrap(errors, words) == (low, high)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        errors = rng.binomial(6, 0.3, size=60)
        low, high = bootstrap(errors, np.full(60, 6))
        covered += low <= 30 <= high
    assert covered >= 85
