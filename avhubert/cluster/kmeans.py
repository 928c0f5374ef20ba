"""K-means over data that never has to fit in memory: seeding on a sample, a mini-batch pass, then exact Lloyd passes.

1. A uniform sample of the rows is drawn in one pass (reservoir by random keys).
2. Several seedings by greedy k-means++ (Arthur & Vassilvitskii, 2007) and local search (Lattanzi & Sohler, 2019), each
   polished by a few Lloyd steps on the sample; the one with the least inertia wins.
3. One pass of mini-batch updates with per-centroid learning rates 1/n (Sculley, 2010) brings in the rest of the data.
4. Lloyd passes over all rows until the inertia hardly falls.

Rows come as blocks of any size and are cut anew into batches of `BATCH`, so how they are stored changes nothing.
Results depend on the rows, their order and the seed alone. N rows, D values each, K clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avhubert.cluster.kmeans_sample import BATCH, draw_sample, rebatch
from avhubert.cluster.lloyd import CentroidTable, LloydStep, group_sums
from avhubert.cluster.seeding import initial_centroids
from avhubert.errors import DataError
from avhubert.report import progress

Blocks = Callable[[], Iterable[np.ndarray]]


@dataclass(frozen=True)
class KMeansResult:
    """What `fit` found. `inertia` and `counts` belong to exactly these centroids, over all rows."""

    centroids: np.ndarray  # float32 [K, D]
    inertia: float  # sum over rows of the squared distance to the nearest centroid
    counts: np.ndarray  # int64 [K], rows nearest to each centroid
    rows: int  # N
    passes: int  # Lloyd passes over all rows


def fit(
    blocks: Blocks,
    clusters: int,
    seed: int = 0,
    inits: int = 3,
    passes: int = 20,
    tolerance: float = 1e-3,
    device: str = "auto",
) -> KMeansResult:
    """Cluster the rows that `blocks()` yields; called once per pass, it gives the same float arrays [n, D].

    `inits` seedings are tried on a sample; at most `passes` Lloyd passes follow, fewer when the inertia falls by less
    than the share `tolerance`. `device`: auto | cpu | cuda[:N]. A centroid that loses all rows moves to a row of the
    sample drawn by its squared distance. Memory: the sample (256 MB at most), a few batches and K·D.

    Raises:
        DataError: fewer rows than clusters, rows of differing width, or values that are not finite.
    """
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    rng = np.random.default_rng(seed)
    with torch.inference_mode(), progress() as bar:
        task = bar.add_task("k-means: sample", total=None, unit="rows")

        def batches(what: str, total: int | None = None) -> Iterator[np.ndarray]:
            bar.reset(task, description=f"k-means: {what}", total=total)
            for batch in rebatch(blocks()):
                yield batch
                bar.advance(task, len(batch))

        sample, rows = draw_sample(batches("sample"), clusters, rng)
        shift = sample.mean(0, dtype=np.float64).astype(np.float32)  # small numbers lose less in ‖x‖² − 2xc + ‖c‖²
        x = torch.from_numpy(sample).to(where).sub_(torch.from_numpy(shift).to(where))

        def moved(batch: np.ndarray) -> Tensor:
            return torch.from_numpy(batch - shift).to(where)

        bar.reset(task, description=f"k-means: {inits} seedings", total=inits)
        best, least = x[:0], math.inf
        for _ in range(inits):
            centroids, inertia = initial_centroids(x, clusters, rng)
            if inertia < least:
                best, least = centroids, inertia
            bar.advance(task)
        centroids = best

        if rows > len(x):
            centroids = _mini_batch_pass(map(moved, batches("mini-batches", rows)), centroids)
        previous = math.inf
        for done in range(1, passes + 1):
            step = LloydStep(centroids)
            for batch in batches(f"pass {done}", rows):
                step.add(moved(batch))
            if done == passes or step.inertia >= previous * (1 - tolerance):
                break
            previous = step.inertia
            centroids = step.update(x, rng)
        return KMeansResult(
            step.centroids.cpu().numpy() + shift, step.inertia, step.counts.cpu().numpy().astype(np.int64), rows, done
        )


def assign(x: np.ndarray, centroids: np.ndarray, device: str = "cpu") -> np.ndarray:
    """int32 [N]: the nearest centroid (the first of equals) of every row of x float [N, D]; centroids float [K, D]."""
    if x.ndim != 2 or x.shape[1] != centroids.shape[1]:
        raise DataError(f"features of shape {list(x.shape)} do not fit centroids of width {centroids.shape[1]}")
    shift = centroids.mean(0, dtype=np.float64).astype(np.float32)
    table = CentroidTable(torch.from_numpy(centroids.astype(np.float32) - shift).to(device))
    labels = np.empty(len(x), np.int32)
    with torch.inference_mode():
        for start in range(0, len(x), BATCH):
            batch = torch.from_numpy(x[start : start + BATCH].astype(np.float32) - shift).to(device)
            labels[start : start + BATCH] = table.nearest(batch)[0].cpu().numpy()
    return labels


def _mini_batch_pass(batches: Iterable[Tensor], centroids: Tensor) -> Tensor:
    """One pass of mini-batch k-means: every centroid is the running mean of the rows that came to it."""
    seen = torch.zeros(len(centroids), device=centroids.device)
    for x in batches:
        sums, counts = group_sums(x, CentroidTable(centroids).nearest(x)[0], len(centroids))
        seen += counts
        centroids = centroids + (sums - counts[:, None] * centroids) / seen.clamp_min(1)[:, None]
    return centroids
