"""Purity, PNMI and entropy: hand-computed values, scikit-learn's homogeneity, and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import homogeneity_score

from avhubert.cluster.metrics import (
    JointCounts,
    at_frame_rate,
    cluster_purity,
    entropy,
    joint_counts,
    label_metrics,
    pnmi,
    purity,
)
from avhubert.errors import DataError

LABELS = [0, 0, 0, 1, 1, 1, 1, 2]
PHONES = ["a", "a", "b", "b", "b", "c", "c", "c"]

pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=60)


def test_values_computed_by_hand() -> None:
    # cluster 0: a a b; cluster 1: b b c c; cluster 2: c
    assert purity(LABELS, PHONES) == pytest.approx((2 + 2 + 1) / 8)
    # phone a: all in 0; b: 1 in 0, 2 in 1; c: 2 in 1, 1 in 2
    assert cluster_purity(LABELS, PHONES) == pytest.approx((2 + 2 + 2) / 8)
    assert entropy(LABELS) == pytest.approx(
        -(3 / 8 * math.log(3 / 8) + 1 / 2 * math.log(1 / 2) + 1 / 8 * math.log(1 / 8))
    )
    phone_entropy = -(2 / 8 * math.log(2 / 8) + 2 * 3 / 8 * math.log(3 / 8))
    given_cluster = 3 / 8 * -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) + 1 / 2 * math.log(2)
    assert pnmi(LABELS, PHONES) == pytest.approx((phone_entropy - given_cluster) / phone_entropy)


@given(pairs)
def test_pnmi_equals_the_homogeneity_of_scikit_learn(rows) -> None:
    labels, phones = np.array(rows).T
    assert 0 <= pnmi(labels, phones) <= 1
    assert pnmi(labels, phones) == pytest.approx(homogeneity_score(phones, labels), abs=1e-9)
    assert 0 < purity(labels, phones) <= 1
    assert 0 < cluster_purity(labels, phones) <= 1


@given(pairs, st.permutations(range(7)), st.randoms(use_true_random=False))
def test_names_of_clusters_and_order_of_frames_do_not_matter(rows, names, random) -> None:
    labels, phones = np.array(rows).T
    mixed = list(rows)
    random.shuffle(mixed)
    other, other_phones = np.array(mixed).T
    other = np.array(names)[other]
    for measure in (pnmi, purity, cluster_purity):
        assert measure(other, other_phones) == pytest.approx(measure(labels, phones), abs=1e-12)
    assert entropy(other) == pytest.approx(entropy(labels), abs=1e-12)


@given(st.lists(st.integers(0, 5), min_size=1))
def test_identical_labels_are_perfect(labels) -> None:
    assert pnmi(labels, labels) == pytest.approx(1)
    assert purity(labels, labels) == cluster_purity(labels, labels) == 1


def test_one_cluster_has_no_information() -> None:
    assert pnmi([3] * 8, PHONES) == pytest.approx(0, abs=1e-12)
    assert entropy([3] * 8) == 0


@given(pairs, st.integers(0, 60))
def test_counting_clip_by_clip_equals_counting_at_once(rows, cut) -> None:
    labels, phones = np.array(rows).T
    names = [f"p{phone}" for phone in phones]
    joint = JointCounts(7)
    joint.add(labels[:cut], names[:cut])
    joint.add(labels[cut:], names[cut:])
    whole = joint_counts(labels, names)
    assert joint.phones == sorted(set(names))
    np.testing.assert_array_equal(joint.counts[joint.counts.sum(1) > 0], whole)
    assert label_metrics(joint.counts) == pytest.approx(label_metrics(whole))


def test_labels_of_another_rate_are_read_at_the_positions_of_targets() -> None:
    row = np.arange(39)
    for rate in (25, 50, 100, 60):
        taken = at_frame_rate(row, rate)
        expected = []
        t = 0
        while int(t * rate / 25) < len(row):
            expected.append(row[int(t * rate / 25)])
            t += 1
        np.testing.assert_array_equal(taken, expected)
    assert at_frame_rate(np.empty(0, np.int32), 100).size == 0


def test_labels_and_phones_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(DataError, match="one phone for every label"):
        pnmi([1, 2], ["a"])
    with pytest.raises(DataError, match="at least one"):
        purity([], [])
