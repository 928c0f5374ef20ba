"""Statistics of our masks against those of the published ones."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from avhubert.model.masking import span_mask
from avhubert.model.masking import spans as runs

CASES = [f"{stream}_T{frames}" for stream in ("audio", "video") for frames in (200, 75, 40, 30, 12)]
SEEDS = 500


@pytest.fixture(scope="module")
def statistics(golden):
    return json.loads(golden("mask_statistics.json").read_text())


def drawn(lengths, prob, span) -> Iterator[np.ndarray]:
    for seed in range(SEEDS):
        yield span_mask(lengths, max(lengths), prob, span, True, np.random.default_rng(seed))


@pytest.mark.parametrize("case", CASES)
def test_fractions_and_runs(case, statistics):
    facts = statistics[case]
    masks = list(drawn([facts["T"]] * facts["B"], facts["mask_prob"], facts["mask_length"]))
    fractions = [mask.mean() for mask in masks]
    deviation = 4 * facts["std_of_batch_mean"] * np.sqrt(2 / SEEDS)  # both sides are means over 500 draws
    assert np.mean(fractions) == pytest.approx(facts["mean_fraction"], abs=deviation)
    assert np.std(fractions) == pytest.approx(facts["std_of_batch_mean"], rel=0.25, abs=0.004)
    mean_runs = np.mean([len(runs(mask)) / len(mask) for mask in masks])
    assert mean_runs == pytest.approx(facts["mean_runs_per_row"], rel=0.05)
    assert all(len(set(mask.sum(1))) == 1 for mask in masks)


@pytest.mark.parametrize(("stream", "prob", "span"), [("audio", 0.8, 10), ("video", 0.3, 5)])
def test_a_short_row_thins_all(stream, prob, span, statistics):
    counts = np.mean([mask.sum(1) for mask in drawn([200, 150, 100, 60], prob, span)], axis=0)
    np.testing.assert_allclose(counts, statistics[f"{stream}_padded_200_150_100_60"]["mean_masked_per_row"], rtol=0.03)


def test_union(statistics):
    lengths = [200] * 4
    pairs = zip(drawn(lengths, 0.3, 5), reversed(list(drawn(lengths, 0.8, 10))), strict=True)
    fraction = np.mean([(video | audio).mean() for video, audio in pairs])
    assert fraction == pytest.approx(statistics["union_T200"]["mean_fraction"], abs=0.008)
