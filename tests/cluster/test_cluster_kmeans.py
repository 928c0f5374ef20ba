"""K-means: quality compared with scikit-learn, determinism, streaming, memory, empty clusters, errors."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import MiniBatchKMeans

from avhubert.cluster import kmeans_sample
from avhubert.cluster.kmeans import assign, fit
from avhubert.cluster.lloyd import LloydStep
from avhubert.errors import DataError


def blobs(rows: int, width: int, centres: int, seed: int = 0, spread: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal((centres, width)).astype(np.float32) * 2 + 5
    return middle[rng.integers(centres, size=rows)] + spread * rng.standard_normal((rows, width), dtype=np.float32)


def pieces(x: np.ndarray, sizes: tuple[int, ...]) -> Iterator[np.ndarray]:
    start, turn = 0, 0
    while start < len(x):
        yield x[start : start + sizes[turn % len(sizes)]]
        start += sizes[turn % len(sizes)]
        turn += 1


def exact(x: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, float]:
    distance = ((x[:, None].astype(np.float64) - centroids[None].astype(np.float64)) ** 2).sum(2)
    return distance.argmin(1), float(distance.min(1).sum())


@pytest.mark.parametrize(("centres", "clusters"), [(40, 40), (200, 40)])
def test_inertia_is_at_most_scikit_learns(centres: int, clusters: int) -> None:
    x = blobs(30_000, 16, centres)
    theirs = MiniBatchKMeans(
        clusters, init="k-means++", batch_size=10_000, max_iter=100, n_init=5, max_no_improvement=100,
        tol=0.0, reassignment_ratio=0.0, random_state=0,
    ).fit(x)  # fmt: skip
    ours = fit(lambda: [x], clusters, seed=0, device="cpu")
    assert ours.inertia <= -theirs.score(x) * 1.0001


def test_inertia_and_counts_belong_to_the_centroids() -> None:
    x = blobs(25_000, 8, 30)
    result = fit(lambda: [x], 20, device="cpu")
    labels, inertia = exact(x, result.centroids)
    assert result.inertia == pytest.approx(inertia, rel=1e-5)
    np.testing.assert_array_equal(assign(x, result.centroids), labels)
    np.testing.assert_allclose(result.counts, np.bincount(labels, minlength=20), atol=1)  # a tie may fall either way
    assert result.rows == len(x)
    assert result.centroids.dtype == np.float32
    assert assign(x, result.centroids).dtype == np.int32


@pytest.mark.parametrize("sizes", [(1_000,), (333, 12_001, 1), (40_000,)])
def test_the_result_does_not_depend_on_the_blocks(sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans_sample, "MIN_SAMPLE_ROWS", 5_000)  # so that the data is larger than the sample
    x = blobs(35_000, 8, 30)
    whole = fit(lambda: [x], 12, seed=3, device="cpu")
    cut = fit(lambda: pieces(x, sizes), 12, seed=3, device="cpu")
    np.testing.assert_array_equal(whole.centroids, cut.centroids)
    assert whole.inertia == cut.inertia


def test_the_result_depends_on_the_seed_only() -> None:
    x = blobs(8_000, 8, 60)
    first, again, other = (fit(lambda: [x], 25, seed=seed, device="cpu").centroids for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_more_seedings_are_not_worse_on_average() -> None:
    x = blobs(6_000, 4, 60, spread=0.1)
    inertia = [
        [fit(lambda: [x], 30, seed=seed, inits=inits, device="cpu").inertia for seed in range(4)] for inits in (1, 6)
    ]
    assert np.mean(inertia[1]) <= np.mean(inertia[0])


def test_lloyd_passes_lower_the_inertia(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans_sample, "MIN_SAMPLE_ROWS", 3_000)
    x = blobs(40_000, 8, 100)
    inertia = [fit(lambda: [x], 40, passes=passes, tolerance=0, device="cpu").inertia for passes in (1, 2, 4, 8)]
    assert inertia == sorted(inertia, reverse=True)
    assert inertia[-1] < inertia[0]


def test_the_sample_is_uniform_over_the_stream() -> None:
    x = np.arange(100_000, dtype=np.float32)[:, None]
    sample, rows = kmeans_sample.draw_sample(kmeans_sample.rebatch([x]), 2, np.random.default_rng(0))
    assert rows == 100_000
    assert len(np.unique(sample)) == len(sample) == kmeans_sample.MIN_SAMPLE_ROWS
    tenths = np.histogram(sample, bins=10, range=(0, 100_000))[0]
    assert (abs(tenths - 2_000) < 5 * 43).all()  # five standard deviations


def test_memory_does_not_grow_with_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans_sample, "MIN_SAMPLE_ROWS", 2_000)
    block = blobs(10_000, 32, 20)

    def peak(blocks: int) -> int:
        tracemalloc.start()
        fit(lambda: (block + i for i in range(blocks)), 10, passes=2, device="cpu")
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(2)  # imports and caches
    assert peak(24) < peak(3) + 1_000_000  # 21 blocks more are 27 MB more data


def test_equal_rows_leave_clusters_empty() -> None:
    x = np.repeat(np.eye(3, dtype=np.float32), 50, axis=0)
    result = fit(lambda: [x], 5, device="cpu")
    assert result.inertia == pytest.approx(0, abs=1e-6)
    assert (result.counts > 0).sum() == 3


def test_an_empty_cluster_moves_to_a_row() -> None:
    x = torch.from_numpy(blobs(500, 4, 5))
    centroids = torch.cat([x[:4], x.new_full((2, 4), 1e4)])
    step = LloydStep(centroids)
    step.add(x)
    assert (step.counts == 0).sum() == 2
    moved = LloydStep(step.update(x, np.random.default_rng(0)))
    moved.add(x)
    assert (moved.counts > 0).all()
    assert moved.inertia < step.inertia


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 9), st.integers(0, 99), st.floats(-1e3, 1e3))
def test_assign_finds_the_nearest(rows: int, width: int, clusters: int, seed: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, width)) + offset).astype(np.float32)
    centroids = (rng.standard_normal((clusters, width)) + offset).astype(np.float32)
    distance = ((x[:, None].astype(np.float64) - centroids[None]) ** 2).sum(2)
    taken = distance[np.arange(rows), assign(x, centroids)]
    np.testing.assert_allclose(taken, distance.min(1), atol=1e-4, rtol=1e-4)


def test_wrong_input_is_one_sentence() -> None:
    x = blobs(10, 4, 2)
    with pytest.raises(DataError, match="10 frames cannot make 11 clusters"):
        fit(lambda: [x], 11, device="cpu")
    with pytest.raises(DataError, match="0 frames cannot make 2 clusters"):
        fit(lambda: [], 2, device="cpu")
    with pytest.raises(DataError, match="not finite"):
        fit(lambda: [np.where(x == x[3, 1], np.nan, x)], 2, device="cpu")
    with pytest.raises(DataError, match=r"shape \[10, 3\], expected \[rows, 4\]"):
        fit(lambda: [x, x[:, :3]], 2, device="cpu")
    with pytest.raises(DataError, match="width 3"):
        assign(x, x[:2, :3])
