"""K-means over data that need not fit in memory: seeding on a sample, a mini-batch pass, then exact Lloyd passes.

1. A uniform sample of the rows is drawn in one pass (`kmeans_sample`).
2. Several seedings by greedy k-means++ (Arthur & Vassilvitskii, 2007) and local search (Lattanzi & Sohler, 2019), each
   improved by a few Lloyd steps on the sample; the one with the least inertia is used (`seeding`).
3. One pass of mini-batch updates with per-centroid learning rates 1/n (Sculley, 2010) includes the rest of the data.
4. Lloyd passes over all rows until the inertia hardly falls (`lloyd`).

Rows come as blocks of any size and are regrouped into batches of equal size, so the way they are stored does not
change the result. On one device, it depends on the rows, their order and the seed only. N rows, D values each, K
clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from avhubert.cluster.kmeans_sample import BATCH_ROWS, draw_sample, rebatch
from avhubert.cluster.lloyd import CentroidTable, LloydStep, sums_by_label
from avhubert.cluster.seeding import initial_centroids
from avhubert.devices import AUTO, float64_device, resolve_device, to_device, to_host
from avhubert.errors import DataError
from avhubert.report import progress

if TYPE_CHECKING:
    from rich.progress import Progress

Blocks = Callable[[], Iterable[np.ndarray]]


@dataclass(frozen=True)
class KMeansResult:
    """Centroids, and their inertia and counts over all rows.

    Attributes:
        centroids: float32 [K, D].
        inertia: sum over the rows of the squared distance to the nearest centroid.
        counts: int64 [K], rows nearest to each centroid.
        rows: N.
        passes: Lloyd passes over all rows.
    """

    centroids: np.ndarray
    inertia: float
    counts: np.ndarray
    rows: int
    passes: int


def fit(
    blocks: Blocks,
    clusters: int,
    seed: int = 0,
    inits: int = 3,
    passes: int = 20,
    tolerance: float = 1e-3,
    device: str | torch.device = AUTO,
) -> KMeansResult:
    """Cluster rows.

    A centroid that loses all its rows moves to a row of the sample, drawn in proportion to its squared distance. The
    memory is that of the sample (at most 256 MB), a few batches and K·D values.

    Args:
        blocks: called once per pass; must give the same float arrays [n, D] each time.
        clusters: K.
        seed: of all random numbers.
        inits: seedings tried on the sample.
        passes: largest number of Lloyd passes.
        tolerance: Lloyd passes end when the inertia falls by less than this share.
        device: where to compute, see `devices.resolve`. Apple's GPU has no float64: the CPU takes its place.

    Raises:
        DataError: fewer rows than clusters, rows of differing width, or values that are not finite.
        ConfigError: the device is unknown or not on this machine.
    """
    target = float64_device(resolve_device(device))
    rng = np.random.default_rng(seed)
    with torch.inference_mode(), progress() as bar:
        reader = _Reader(blocks, bar)
        sample, reader.rows = draw_sample(reader.batches("sample"), clusters, rng)
        # centred values are small, so that ‖x‖² − 2xc + ‖c‖² loses less precision
        shift = sample.mean(0, dtype=np.float64).astype(np.float32)
        x = to_device(torch.from_numpy(sample), target).sub_(to_device(torch.from_numpy(shift), target))

        def batches(stage: str) -> Iterator[Tensor]:
            return (to_device(torch.from_numpy(batch - shift), target) for batch in reader.batches(stage))

        reader.start(f"{inits} seedings", inits)
        centroids, least = x[:0], math.inf
        for _ in range(inits):
            candidate, inertia = initial_centroids(x, clusters, rng)
            if inertia < least:
                centroids, least = candidate, inertia
            reader.advance()
        if reader.rows > len(x):
            centroids = _mini_batch_pass(batches("mini-batches"), centroids)
        step, done = _lloyd_passes(batches, centroids, x, rng, passes, tolerance)
        counts = to_host(step.counts).numpy().astype(np.int64)
        return KMeansResult(to_host(step.centroids).numpy() + shift, step.inertia, counts, reader.rows, done)


def assign(x: np.ndarray, centroids: np.ndarray, device: str | torch.device = "cpu") -> np.ndarray:
    """The nearest centroid of every row, int32 [N]; of equally near ones the first.

    Args:
        x: float [N, D].
        centroids: float [K, D].
        device: where to compute, see `devices.resolve`.

    Raises:
        DataError: the widths of rows and centroids differ.
    """
    if x.ndim != 2 or x.shape[1] != centroids.shape[1]:
        raise DataError(f"features of shape {list(x.shape)} do not fit centroids of width {centroids.shape[1]}")
    target = resolve_device(device)
    shift = centroids.mean(0, dtype=np.float64).astype(np.float32)
    table = CentroidTable(to_device(torch.from_numpy(centroids.astype(np.float32) - shift), target))
    labels = np.empty(len(x), np.int32)
    with torch.inference_mode():
        for start in range(0, len(x), BATCH_ROWS):
            rows = x[start : start + BATCH_ROWS].astype(np.float32) - shift
            nearest = table.nearest(to_device(torch.from_numpy(rows), target))[0]
            labels[start : start + BATCH_ROWS] = to_host(nearest).numpy()
    return labels


class _Reader:
    """Passes over the rows, with a progress bar."""

    def __init__(self, blocks: Blocks, bar: Progress) -> None:
        self.rows: int | None = None  # known after the first pass
        self._blocks = blocks
        self._bar = bar
        self._task = bar.add_task("k-means: sample", total=None, unit="rows")

    def start(self, stage: str, total: int | None) -> None:
        """Name the stage in the progress bar."""
        self._bar.reset(self._task, description=f"k-means: {stage}", total=total)

    def advance(self, amount: int = 1) -> None:
        """Move the progress bar."""
        self._bar.advance(self._task, amount)

    def batches(self, stage: str) -> Iterator[np.ndarray]:
        """One pass over all rows, in batches."""
        self.start(stage, self.rows)
        for batch in rebatch(self._blocks()):
            yield batch
            self.advance(len(batch))


def _mini_batch_pass(batches: Iterable[Tensor], centroids: Tensor) -> Tensor:
    """One pass of mini-batch k-means: every centroid is the running mean of the rows nearest to it."""
    seen = torch.zeros(len(centroids), device=centroids.device)
    for x in batches:
        sums, counts = sums_by_label(x, CentroidTable(centroids).nearest(x)[0], len(centroids))
        seen += counts
        centroids = centroids + (sums - counts[:, None] * centroids) / seen.clamp_min(1)[:, None]
    return centroids


def _lloyd_passes(
    batches: Callable[[str], Iterator[Tensor]],
    centroids: Tensor,
    sample: Tensor,
    rng: np.random.Generator,
    passes: int,
    tolerance: float,
) -> tuple[LloydStep, int]:
    """The last Lloyd step and the number of passes; its sums, counts and inertia belong to its centroids."""
    previous = math.inf
    for done in range(1, passes + 1):
        step = LloydStep(centroids)
        for batch in batches(f"pass {done}"):
            step.add(batch)
        inertia = step.inertia
        if done == passes or inertia >= previous * (1 - tolerance):
            break
        previous = inertia
        centroids = step.update(sample, rng)
    return step, done
