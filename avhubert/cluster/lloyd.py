"""Arithmetic of k-means: nearest centroids, Lloyd steps and weighted draws.

Tensors are created on the device of the rows, and nothing here waits for a result unless its docstring says so.
N rows, D values each, K clusters.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from avhubert.devices import to_device, to_host

CPU_DISTANCES = 1 << 20  # distances computed at a time on a CPU, so that they stay in its cache


def cpu_chunk(clusters: int) -> int:
    """Rows whose distances to all centroids are computed at a time on a CPU."""
    return max(64, CPU_DISTANCES // clusters)


class CentroidTable:
    """Centroids [K, D], prepared for finding the nearest one of many rows."""

    def __init__(self, centroids: Tensor) -> None:
        self.centroids = centroids
        self._transposed = centroids.T.contiguous()
        self._half = -0.5 * centroids.square().sum(1)

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest centroid of each row x [N, D]: its index int64 [N] and the squared distance float32 [N]."""
        chunk = cpu_chunk(len(self.centroids)) if x.device.type == "cpu" else len(x)
        best = [torch.addmm(self._half, part, self._transposed).max(1) for part in torch.split(x, chunk)]
        score, label = torch.cat([part.values for part in best]), torch.cat([part.indices for part in best])
        return label, (x.square().sum(1) - 2 * score).clamp_min_(0)


class LloydStep:
    """One Lloyd step: rows are added batch by batch, then `update` gives the new centroids.

    Attributes:
        centroids: float32 [K, D].
        sums: float64 [K, D], sums of the rows nearest to each centroid.
        counts: float64 [K], numbers of these rows.
    """

    def __init__(self, centroids: Tensor) -> None:
        self.centroids = centroids
        self._table = CentroidTable(centroids)
        self.sums = torch.zeros(centroids.shape, dtype=torch.float64, device=centroids.device)
        self.counts = torch.zeros(len(centroids), dtype=torch.float64, device=centroids.device)
        self._inertia = torch.zeros((), dtype=torch.float64, device=centroids.device)

    @property
    def inertia(self) -> float:
        """Sum of squared distances of the rows to their nearest centroids; waits for the device."""
        return float(to_host(self._inertia))

    def add(self, x: Tensor) -> None:
        """Assign rows [N, D] to their nearest centroids."""
        label, distance = self._table.nearest(x)
        sums, counts = sums_by_label(x, label, len(self.centroids))
        self.sums += sums
        self.counts += counts
        self._inertia += distance.sum(dtype=torch.float64)

    def update(self, sample: Tensor, rng: np.random.Generator) -> Tensor:
        """Means of the rows of each centroid; waits for the device.

        A centroid without rows moves to a row of the sample, drawn in proportion to its squared distance.
        """
        centroids = (self.sums / self.counts.clamp_min(1)[:, None]).float()
        counts = to_host(self.counts)
        empty = (counts == 0).nonzero().squeeze(1).tolist()
        if empty:
            used = to_device((counts > 0).nonzero().squeeze(1), centroids.device)
            weight = CentroidTable(centroids[used]).nearest(sample)[1].double()
            for index in empty:
                row = sample[draw_weighted(weight, rng.random(1))]
                centroids[index] = row[0]
                weight = torch.minimum(weight, (sample - row).square().sum(1).double())
        return centroids


def sums_by_label(x: Tensor, label: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Sums float32 [K, D] and counts float32 [K] of rows x [N, D] by label [N], reproducible on every device."""
    if x.device.type != "cpu":  # adding by index is not deterministic on a GPU, a product is
        chosen = torch.nn.functional.one_hot(label, clusters).to(x.dtype)
        return chosen.T @ x, chosen.sum(0)
    sums = x.new_zeros(clusters, x.shape[1]).index_add_(0, label, x)
    return sums, torch.bincount(label, minlength=clusters).to(x.dtype)


def draw_weighted(weight: Tensor, uniform: np.ndarray) -> Tensor:
    """Indices drawn in proportion to weight float64 [N], one for each number of `uniform` float64 in [0, 1)."""
    cumulative = weight.cumsum(0)
    drawn = to_device(torch.from_numpy(uniform), weight.device)
    return torch.searchsorted(cumulative, drawn * cumulative[-1], right=True).clamp_max_(len(weight) - 1)
