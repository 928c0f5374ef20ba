"""Error rates, their intervals and comparisons."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avhubert.errors import DataError
from avhubert.evaluation.comparison import compare
from avhubert.evaluation.conditions import Condition
from avhubert.evaluation.metrics import align_words, bootstrap, group_rates, length, score, speaker, summarise
from avhubert.evaluation.report import stream_comparisons, worst_utterances
from avhubert.evaluation.results import read_hypotheses
from avhubert.files import write_json

pytestmark = pytest.mark.quick


def test_counts_and_rates_of_known_errors() -> None:
    utterances = score(
        ["a", "b", "c"],
        ["bin blue at f two now", "lay red", "place white"],
        [[("bin blue at s two now", 0.0)], [("lay red again", -1.0), ("lay red", -1.5)], [("", -2.0)]],
    )
    result = summarise(utterances, Condition("v"), 10.0, 2.0)
    assert (result.substitutions, result.insertions, result.deletions) == (1, 1, 2)
    assert result.words == 10
    assert utterances[1].others == [("lay red", -1.5)]
    assert result.wer == pytest.approx(40.0)
    assert result.interval[0] <= result.wer <= result.interval[1]
    assert [utterance.id for utterance in worst_utterances(result, 2)] == ["c", "a"]
    assert str(result.condition) == "v, clean"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=30))
def test_the_interval_is_within_the_extremes_and_reproducible(pairs) -> None:
    errors, words = np.array(pairs).T
    low, high = bootstrap(errors, words)
    rates = 100 * errors / words
    assert rates.min() - 1e-9 <= low <= high <= rates.max() + 1e-9
    assert bootstrap(errors, words) == (low, high)


def test_the_interval_covers_the_true_rate() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        errors = rng.binomial(6, 0.3, size=60)
        low, high = bootstrap(errors, np.full(60, 6))
        covered += low <= 30 <= high
    assert covered >= 85


def result(modality: str, wrong: int, snr: int | None = None):
    texts = ["a b c d"] * (10 - wrong) + ["a b c x"] * wrong
    scored = score([f"s{n % 2}/{n}" for n in range(10)], ["a b c d"] * 10, [[(text, 0.0)] for text in texts])
    return summarise(scored, Condition(modality, None, snr), 10.0, 1.0)


def test_two_streams_are_compared_with_the_better_one() -> None:
    results = [result("a", 2), result("v", 6), result("av", 2), result("a", 8, 0), result("av", 7, 0)]
    assert [(row[0], row[4]) for row in stream_comparisons(results)] == [("av, clean", True), ("av, 0 dB", False)]
    assert [c.condition.file_name for c in results[2:4]] == ["av-clean", "a-0dB"]
    assert stream_comparisons(results[2:]) == []


def test_groups_and_alignment() -> None:
    assert group_rates(result("v", 1).utterances, speaker) == [("s0", 5, 20, 0.0), ("s1", 5, 20, 5.0)]
    assert group_rates(result("v", 1).utterances, length) == [("  1 to 5 words", 10, 40, 2.5)]
    known = score(["x/1", "x/2"], ["a b"] * 2, [[("a b", 0.0)], [("a c", 0.0)]], ["s1", "s2"])
    assert group_rates(known, speaker) == [("s1", 1, 2, 0.0), ("s2", 1, 2, 50.0)]
    assert summarise(known, Condition("v"), 1.0, 1.0).summary()["speakers"] == [
        {"name": "s1", "utterances": 1, "words": 2, "wer": 0.0},
        {"name": "s2", "utterances": 1, "words": 2, "wer": 50.0},
    ]
    assert align_words("bin blue at f", "bin blew at f now") == [
        ("equal", "bin", "bin"), ("substitute", "blue", "blew"), ("equal", "at f", "at f"), ("insert", "", "now"),
    ]  # fmt: skip


def test_a_paired_test_is_more_sensitive_than_intervals(tmp_path) -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(200)  # utterances differ far more than the two systems
    first, second = (
        score(
            [str(n) for n in range(200)],
            ["a b c d"] * 200,
            [[(" ".join("x" if h > limit else w for w in "abcd"), 0.0)] for h in hard],
        )
        for limit in (0.50, 0.44)
    )
    comparison = compare(first, second)
    assert comparison.difference > 0
    assert comparison.interval[0] > 0
    assert comparison.p < 0.01
    assert comparison.interval[0] <= comparison.difference <= comparison.interval[1]
    same = compare(first, first)
    assert (same.difference, same.interval, same.p) == (0.0, (0.0, 0.0), 1.0)
    with pytest.raises(DataError, match="different clips or references"):
        compare(first, second[:-1])
    from dataclasses import asdict

    write_json(tmp_path / "h.json", [asdict(utterance) for utterance in first])
    assert read_hypotheses(tmp_path / "h.json") == list(first)
    texts = {"id": "a", "reference": "b", "hypothesis": "c", "score": 0.5}
    counts = {"words": 1, "substitutions": 1, "deletions": 0, "insertions": "0"}
    for wrong in ({"results": []}, [{"id": "a"}], [], [texts | counts]):
        write_json(tmp_path / "w.json", wrong)
        with pytest.raises(DataError, match=r"w\.json"):
            read_hypotheses(tmp_path / "w.json")
