"""Initial centroids: greedy k-means++ and local search on a sample."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from avhubert.cluster.lloyd import SCORES, CentroidTable, LloydStep, draw_weighted, group_sums

SEEDING_PER_CLUSTER = 32  # rows of the sample that seeding looks at, for each cluster: its cost grows with K²


SEEDING_LEAST = 8_000


SWAPS_LEAST = 25  # local search tries this many swaps, or K / 4


def initial_centroids(x: Tensor, clusters: int, rng: np.random.Generator, steps: int = 5) -> tuple[Tensor, float]:
    """A seeding of the sample, polished by Lloyd steps, and its inertia."""
    few = min(len(x), max(SEEDING_LEAST, SEEDING_PER_CLUSTER * clusters))
    part = x[torch.from_numpy(rng.permutation(len(x))[:few]).to(x.device)]
    with _one_thread():
        centroids = _improve(part, _seed(part, clusters, rng), rng)
    for _ in range(steps):
        step = LloydStep(centroids)
        step.add(x)
        centroids = step.update(x, rng)
    return centroids, float(CentroidTable(centroids).nearest(x)[1].sum(dtype=torch.float64))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """For thousands of small operations: threads that meet after each are slower, ten times so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seed(x: Tensor, clusters: int, rng: np.random.Generator) -> Tensor:
    """Greedy k-means++: of 2 + ln K rows drawn by squared distance, the one that lowers the inertia most is next."""
    trials = 2 + int(math.log(clusters))
    squares = x.square().sum(1)
    chosen = [int(rng.integers(len(x)))]
    distance = (x - x[chosen[0]]).square().sum(1)
    for _ in range(1, clusters):
        candidates = draw_weighted(distance.double(), rng.random(trials))
        to = torch.addmm(squares, x[candidates], x.T, alpha=-2).add_(squares[candidates, None])
        to = torch.minimum(to.clamp_min_(0), distance)
        best = int(to.sum(1).argmin())
        distance = to[best]
        chosen.append(int(candidates[best]))
    return x[chosen].clone()


def _improve(x: Tensor, centroids: Tensor, rng: np.random.Generator) -> Tensor:
    """Local search: a row drawn by squared distance replaces the centroid whose loss costs least, if that helps.

    It mends what k-means++ leaves: two centroids in one group of rows, none in another.
    """
    clusters = len(centroids)
    if clusters < 2:
        return centroids
    near, who = _two_nearest(x, centroids)
    for _ in range(max(SWAPS_LEAST, clusters // 4)):
        candidate = x[draw_weighted(near[:, 0].double(), rng.random(1))]
        to = (x - candidate).square().sum(1)
        kept = torch.minimum(to, near[:, 0])
        loss = torch.minimum(to, near[:, 1]) - kept  # what a row costs more when its own centroid goes
        losses = group_sums(loss.double()[:, None], who[:, 0], clusters)[0][:, 0]
        out = int(losses.argmin())
        if float(kept.sum(dtype=torch.float64) + losses[out]) >= float(near[:, 0].sum(dtype=torch.float64)):
            continue
        centroids[out] = candidate[0]
        stale = (who == out).any(1) | (to < near[:, 1])
        near[stale], who[stale] = _two_nearest(x[stale], centroids)
    return centroids


def _two_nearest(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances float32 [n, 2] to the nearest two centroids, and which they are, int64 [n, 2]."""
    square, product = centroids.square().sum(1), centroids.T
    found = [
        torch.addmm(square, part, product, alpha=-2).topk(2, largest=False)
        for part in x.split(max(64, SCORES // len(centroids)))
    ]
    distance = torch.cat([part.values for part in found]) + x.square().sum(1)[:, None]
    return distance.clamp_min_(0), torch.cat([part.indices for part in found])
