"""Initial centroids: greedy k-means++ and local search on a sample, then a few Lloyd steps.

N rows, D values each, K clusters.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from avhubert.cluster.lloyd import CentroidTable, LloydStep, cpu_chunk, draw_weighted, sums_by_label
from avhubert.devices import to_device, to_host

SEEDING_ROWS_PER_CLUSTER = 32  # rows of the sample that seeding uses, for each cluster: its cost grows with K²
MIN_SEEDING_ROWS = 8_000
MIN_SWAPS = 25  # local search tries this many swaps, or K / 4
LLOYD_STEPS = 5  # on the whole sample, after seeding


def initial_centroids(x: Tensor, clusters: int, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Centroids [K, D] for a sample x [N, D], and their inertia over it."""
    rows = min(len(x), max(MIN_SEEDING_ROWS, SEEDING_ROWS_PER_CLUSTER * clusters))
    part = x[to_device(torch.from_numpy(rng.permutation(len(x))[:rows]), x.device)]
    with _one_thread():
        centroids = _local_search(part, _greedy_kmeans_plus_plus(part, clusters, rng), rng)
    for _ in range(LLOYD_STEPS):
        step = LloydStep(centroids)
        step.add(x)
        centroids = step.update(x, rng)
    inertia = CentroidTable(centroids).nearest(x)[1].sum(dtype=torch.float64)
    return centroids, float(to_host(inertia))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one CPU thread: for thousands of small operations, synchronising threads costs more than it saves.

    On a busy machine ten times as much.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _greedy_kmeans_plus_plus(x: Tensor, clusters: int, rng: np.random.Generator) -> Tensor:
    """Each next centroid is the best, by inertia, of 2 + ln K rows drawn in proportion to their squared distance."""
    trials = 2 + int(math.log(clusters))
    squares = x.square().sum(1)
    first = torch.tensor([int(rng.integers(len(x)))], device=x.device)
    chosen = [first]
    distance = (x - x[first]).square().sum(1)
    for _ in range(1, clusters):
        candidates = draw_weighted(distance.double(), rng.random(trials))
        distances = torch.addmm(squares, x[candidates], x.T, alpha=-2).add_(squares[candidates, None])
        distances = torch.minimum(distances.clamp_min_(0), distance)
        best = distances.sum(1).argmin().view(1)
        distance = distances.index_select(0, best)[0]
        chosen.append(candidates.gather(0, best))
    return x[torch.cat(chosen)]


def _local_search(x: Tensor, centroids: Tensor, rng: np.random.Generator) -> Tensor:
    """Replace centroids by rows drawn in proportion to their squared distance, where that lowers the inertia.

    The centroid whose loss costs least is replaced. This repairs what k-means++ leaves: two centroids in one group of
    rows and none in another. Each swap waits for the device.
    """
    clusters = len(centroids)
    if clusters < 2:
        return centroids
    distance, index = _two_nearest(x, centroids)
    for _ in range(max(MIN_SWAPS, clusters // 4)):
        candidate = x[draw_weighted(distance[:, 0].double(), rng.random(1))]
        to_candidate = (x - candidate).square().sum(1)
        with_candidate = torch.minimum(to_candidate, distance[:, 0])
        # what each row costs more if its own centroid is removed, summed for each centroid
        increase = torch.minimum(to_candidate, distance[:, 1]) - with_candidate
        increases = sums_by_label(increase.double()[:, None], index[:, 0], clusters)[0][:, 0]
        removed = increases.argmin().view(1)
        after = with_candidate.sum(dtype=torch.float64) + increases.gather(0, removed)[0]
        before = distance[:, 0].sum(dtype=torch.float64)
        after_value, before_value, removed_value = to_host(torch.stack([after, before, removed[0].double()])).tolist()
        if after_value >= before_value:
            continue
        replaced = int(removed_value)
        centroids[replaced] = candidate[0]
        stale = (index == replaced).any(1) | (to_candidate < distance[:, 1])
        rows = to_device(to_host(stale).nonzero().squeeze(1), x.device)
        distance[rows], index[rows] = _two_nearest(x[rows], centroids)
    return centroids


def _two_nearest(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """The two nearest centroids of rows x [N, D]: squared distances float32 [N, 2] and indices int64 [N, 2]."""
    square, product = centroids.square().sum(1), centroids.T
    nearest = [
        torch.addmm(square, part, product, alpha=-2).topk(2, largest=False)
        for part in torch.split(x, cpu_chunk(len(centroids)))
    ]
    distance = torch.cat([part.values for part in nearest]) + x.square().sum(1)[:, None]
    return distance.clamp_min_(0), torch.cat([part.indices for part in nearest])
