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

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avhubert.errors import DataError
from avhubert.report import progress

BATCH = 10_000  # rows of a mini-batch (the published recipe's), and of one transfer to the device
SAMPLE_PER_CLUSTER = 64  # rows of the sample for each cluster
SAMPLE_LEAST = 20_000
SEEDING_PER_CLUSTER = 32  # rows of the sample that seeding looks at, for each cluster: its cost grows with K²
SEEDING_LEAST = 8_000
SAMPLE_BYTES = 1 << 28  # limit of the sample, whatever K and D
SWAPS_LEAST = 25  # local search tries this many swaps, or K / 4
SCORES = 1 << 20  # distances computed at a time on a CPU: they stay in its cache

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
            for batch in _rebatch(blocks()):
                yield batch
                bar.advance(task, len(batch))

        sample, rows = _sample(batches("sample"), clusters, rng)
        shift = sample.mean(0, dtype=np.float64).astype(np.float32)  # small numbers lose less in ‖x‖² − 2xc + ‖c‖²
        x = torch.from_numpy(sample).to(where).sub_(torch.from_numpy(shift).to(where))

        def moved(batch: np.ndarray) -> Tensor:
            return torch.from_numpy(batch - shift).to(where)

        bar.reset(task, description=f"k-means: {inits} seedings", total=inits)
        best, least = x[:0], math.inf
        for _ in range(inits):
            centroids, inertia = _start(x, clusters, rng)
            if inertia < least:
                best, least = centroids, inertia
            bar.advance(task)
        centroids = best

        if rows > len(x):
            centroids = _mini_batch_pass(map(moved, batches("mini-batches", rows)), centroids)
        previous = math.inf
        for done in range(1, passes + 1):
            step = _Step(centroids)
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
    table = _Table(torch.from_numpy(centroids.astype(np.float32) - shift).to(device))
    labels = np.empty(len(x), np.int32)
    with torch.inference_mode():
        for start in range(0, len(x), BATCH):
            batch = torch.from_numpy(x[start : start + BATCH].astype(np.float32) - shift).to(device)
            labels[start : start + BATCH] = table.nearest(batch)[0].cpu().numpy()
    return labels


# --------------------------------------------------------------------------- reading
def _rebatch(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same rows, float32, in batches of BATCH (the last one shorter); checked."""
    parts: list[np.ndarray] = []
    held, width = 0, None
    for block in blocks:
        if block.ndim != 2 or width not in (None, block.shape[1]):
            raise DataError(f"a block of features has shape {list(block.shape)}, expected [rows, {width or 'values'}]")
        width = block.shape[1]
        start = 0
        while start < len(block):
            part = block[start : start + BATCH - held].astype(np.float32)
            if not np.isfinite(part).all():
                raise DataError("features hold values that are not finite; the model or audio behind them is damaged")
            parts.append(part)
            held += len(part)
            start += len(part)
            if held == BATCH:
                yield parts[0] if len(parts) == 1 else np.concatenate(parts)
                parts, held = [], 0
    if held:
        yield np.concatenate(parts)


def _sample(batches: Iterator[np.ndarray], clusters: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A uniform sample of rows, in their order, float32 [S, D], and N: rows get random keys and the S least stay."""
    kept = np.empty((0, 0), np.float32)
    keys = np.empty(0)
    places = np.empty(0, np.int64)
    rows, filled = 0, 0
    for batch in batches:
        if not rows:
            size = min(max(SAMPLE_LEAST, SAMPLE_PER_CLUSTER * clusters), SAMPLE_BYTES // (4 * batch.shape[1]))
            size = max(size, clusters)
            kept, keys, places = np.empty((size, batch.shape[1]), np.float32), np.full(size, np.inf), np.full(size, -1)
        drawn = rng.random(len(batch))
        first = min(len(batch), len(keys) - filled)
        kept[filled : filled + first] = batch[:first]
        keys[filled : filled + first] = drawn[:first]
        places[filled : filled + first] = np.arange(rows, rows + first)
        filled += first
        rest = np.arange(first, len(batch))[drawn[first:] < keys.max()]
        if len(rest):
            everything = np.concatenate([keys, drawn[rest]])
            least = np.zeros(len(everything), bool)
            least[np.argpartition(everything, len(keys) - 1)[: len(keys)]] = True
            leave, enter = np.flatnonzero(~least[: len(keys)]), rest[least[len(keys) :]]
            kept[leave], keys[leave], places[leave] = batch[enter], drawn[enter], rows + enter
        rows += len(batch)
    if rows < clusters:
        raise DataError(f"{rows} frames cannot make {clusters} clusters; ask for fewer clusters or give more data")
    order = np.argsort(places[:filled])
    return kept[order], rows


# --------------------------------------------------------------------------- arithmetic
class _Table:
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


class _Step:
    """One Lloyd step: rows are added batch by batch, then `update` gives the new centroids."""

    def __init__(self, centroids: Tensor) -> None:
        self.centroids = centroids
        self._table = _Table(centroids)
        self.sums = torch.zeros(centroids.shape, dtype=torch.float64, device=centroids.device)
        self.counts = torch.zeros(len(centroids), dtype=torch.float64, device=centroids.device)
        self.inertia = 0.0

    def add(self, x: Tensor) -> None:
        label, distance = self._table.nearest(x)
        sums, counts = _group(x, label, len(self.centroids))
        self.sums += sums
        self.counts += counts
        self.inertia += float(distance.sum(dtype=torch.float64))

    def update(self, sample: Tensor, rng: np.random.Generator) -> Tensor:
        """Means of the rows of each centroid; an empty one moves to a row of the sample, far ones more likely."""
        centroids = (self.sums / self.counts.clamp_min(1)[:, None]).float()
        empty = (self.counts == 0).nonzero().squeeze(1)
        if len(empty):
            weight = _Table(centroids[self.counts > 0]).nearest(sample)[1].double()
            for index in empty.tolist():
                chosen = _draw(weight, rng.random(1))[0]
                centroids[index] = sample[chosen]
                weight = torch.minimum(weight, (sample - sample[chosen]).square().sum(1).double())
        return centroids


def _group(x: Tensor, label: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Sums float32 [K, D] and counts float32 [K] of the rows of x [n, D] by label [n]; the same in every run."""
    if x.is_cuda:  # adding by index is not deterministic there, a product is
        chosen = torch.nn.functional.one_hot(label, clusters).to(x)
        return chosen.T @ x, chosen.sum(0)
    return x.new_zeros(clusters, x.shape[1]).index_add_(0, label, x), torch.bincount(label, minlength=clusters).to(x)


def _mini_batch_pass(batches: Iterable[Tensor], centroids: Tensor) -> Tensor:
    """One pass of mini-batch k-means: every centroid is the running mean of the rows that came to it."""
    seen = torch.zeros(len(centroids), device=centroids.device)
    for x in batches:
        sums, counts = _group(x, _Table(centroids).nearest(x)[0], len(centroids))
        seen += counts
        centroids = centroids + (sums - counts[:, None] * centroids) / seen.clamp_min(1)[:, None]
    return centroids


def _start(x: Tensor, clusters: int, rng: np.random.Generator, steps: int = 5) -> tuple[Tensor, float]:
    """A seeding of the sample, polished by Lloyd steps, and its inertia."""
    few = min(len(x), max(SEEDING_LEAST, SEEDING_PER_CLUSTER * clusters))
    part = x[torch.from_numpy(rng.permutation(len(x))[:few]).to(x.device)]
    with _one_thread():
        centroids = _improve(part, _seed(part, clusters, rng), rng)
    for _ in range(steps):
        step = _Step(centroids)
        step.add(x)
        centroids = step.update(x, rng)
    return centroids, float(_Table(centroids).nearest(x)[1].sum(dtype=torch.float64))


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
        candidates = _draw(distance.double(), rng.random(trials))
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
        candidate = x[_draw(near[:, 0].double(), rng.random(1))]
        to = (x - candidate).square().sum(1)
        kept = torch.minimum(to, near[:, 0])
        loss = torch.minimum(to, near[:, 1]) - kept  # what a row costs more when its own centroid goes
        losses = _group(loss.double()[:, None], who[:, 0], clusters)[0][:, 0]
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


def _draw(weight: Tensor, uniform: np.ndarray) -> Tensor:
    """Indices drawn with probability ∝ weight float64 [S], one for each number of `uniform` in [0, 1)."""
    upper = weight.cumsum(0)
    found = torch.searchsorted(upper, torch.from_numpy(uniform).to(upper) * upper[-1], right=True)
    return found.clamp_max_(len(weight) - 1)
