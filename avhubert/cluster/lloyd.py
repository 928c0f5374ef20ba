"""Arithmetic of k-means: nearest centroids and Lloyd steps."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SCORES = 1 << 20  # distances computed at a time on a CPU: they stay in its cache


# --------------------------------------------------------------------------- arithmetic
class CentroidTable:
    """Centroids [K, D], ready to find the nearest one of many rows."""

    def __init__(self, centroids: Tensor) -> None:
        self.centroids = centroids
        self._transposed = centroids.T.contiguous()
        self._half = -0.5 * centroids.square().sum(1)

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Index int64 [n] of the nearest centroid and the squared distance float32 [n] to it, for rows x [n, D]."""
        rows = len(x) if x.is_cuda else max(64, SCORES // len(self.centroids))
        found = [torch.addmm(self._half, part, self._transposed).max(1) for part in x.split(rows)]
        score, label = torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])
        return label, (x.square().sum(1) - 2 * score).clamp_min_(0)


class LloydStep:
    """One Lloyd step: rows are added batch by batch, then `update` gives the new centroids."""

    def __init__(self, centroids: Tensor) -> None:
        self.centroids = centroids
        self._table = CentroidTable(centroids)
        self.sums = torch.zeros(centroids.shape, dtype=torch.float64, device=centroids.device)
        self.counts = torch.zeros(len(centroids), dtype=torch.float64, device=centroids.device)
        self.inertia = 0.0

    def add(self, x: Tensor) -> None:
        label, distance = self._table.nearest(x)
        sums, counts = group_sums(x, label, len(self.centroids))
        self.sums += sums
        self.counts += counts
        self.inertia += float(distance.sum(dtype=torch.float64))

    def update(self, sample: Tensor, rng: np.random.Generator) -> Tensor:
        """Means of the rows of each centroid; an empty one moves to a row of the sample, far ones more likely."""
        centroids = (self.sums / self.counts.clamp_min(1)[:, None]).float()
        empty = (self.counts == 0).nonzero().squeeze(1)
        if len(empty):
            weight = CentroidTable(centroids[self.counts > 0]).nearest(sample)[1].double()
            for index in empty.tolist():
                chosen = draw_weighted(weight, rng.random(1))[0]
                centroids[index] = sample[chosen]
                weight = torch.minimum(weight, (sample - sample[chosen]).square().sum(1).double())
        return centroids


def group_sums(x: Tensor, label: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Sums float32 [K, D] and counts float32 [K] of the rows of x [n, D] by label [n]; the same in every run."""
    if x.is_cuda:  # adding by index is not deterministic there, a product is
        chosen = torch.nn.functional.one_hot(label, clusters).to(x)
        return chosen.T @ x, chosen.sum(0)
    return x.new_zeros(clusters, x.shape[1]).index_add_(0, label, x), torch.bincount(label, minlength=clusters).to(x)


def draw_weighted(weight: Tensor, uniform: np.ndarray) -> Tensor:
    """Indices drawn with probability ∝ weight float64 [S], one for each number of `uniform` in [0, 1)."""
    upper = weight.cumsum(0)
    found = torch.searchsorted(upper, torch.from_numpy(uniform).to(upper) * upper[-1], right=True)
    return found.clamp_max_(len(weight) - 1)
