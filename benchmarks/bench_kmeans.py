"""K-means with the published settings, against scikit-learn's MiniBatchKMeans; the inertia is compared.

    python benchmarks/bench_kmeans.py --memory --rows 10000000 [--record]

measures the memory of a fit over rows that are made as they are read.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator

import numpy as np
from measure import Case, Claim, Form
from record import record

from avhubert.cluster.kmeans import fit

ROWS, WIDTH, CLUSTERS, INITS = 20_000, 256, 200, 20


def data(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Rows around 2000 centres of unequal weight and spread, in a space where a few directions dominate; float32."""
    rng = np.random.default_rng(seed)
    scale = (1 / np.sqrt(1 + np.arange(width) / 8)).astype(np.float32)
    centres = rng.standard_normal((2000, width), np.float32) * scale
    weight = rng.gamma(1.0, size=2000)
    which = rng.choice(2000, rows, p=weight / weight.sum())
    spread = rng.uniform(0.3, 1.0, 2000).astype(np.float32)[which, None]
    return centres[which] + rng.standard_normal((rows, width), np.float32) * scale * spread


def sizes(smoke: bool) -> tuple[int, int, int, int]:
    return (600, 16, 10, 2) if smoke else (ROWS, WIDTH, CLUSTERS, INITS)


def published(smoke: bool) -> Callable[[], np.ndarray]:
    from baseline.kmeans import fit as baseline_fit

    rows, width, clusters, inits = sizes(smoke)
    x = data(rows, width)

    def repeat() -> np.ndarray:
        return np.array([baseline_fit(x, clusters, inits)])

    return repeat


def ours(smoke: bool) -> Callable[[], np.ndarray]:
    rows, width, clusters, _ = sizes(smoke)
    x = data(rows, width)

    def repeat() -> np.ndarray:
        return np.array([fit(lambda: [x], clusters, seed=0, device="cpu").inertia / rows])

    return repeat


CLAIM = Claim(
    "kmeans",
    "k-means",
    [
        Case(
            "kmeans",
            f"k-means of {ROWS} × {WIDTH} values, {CLUSTERS} clusters",
            [Form("baseline", published), Form("ours", ours)],
            seconds=60,
        )
    ],
    "The baseline is scikit-learn's MiniBatchKMeans with the published settings (20 inits, batches of 10 000). "
    "Difference: of the mean squared distance from the nearest centre, below 0 where ours is lower (better).",
)


def memory(rows: int, width: int, clusters: int) -> tuple[float, float]:
    """Seconds and peak memory in GB of a fit over rows that are made as they are read."""
    block = data(10_000, width)

    def blocks() -> Iterator[np.ndarray]:
        for number in range(rows // len(block)):
            yield np.roll(block, number, axis=1)

    start = time.perf_counter()
    found = fit(blocks, clusters, seed=0, inits=1, passes=1, device="cpu")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = time.perf_counter() - start
    print(f"{found.rows} rows, {clusters} clusters: {seconds:.0f} s, at most {peak:.2f} GB resident")
    return seconds, peak


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--memory", action="store_true", required=True)
    options.add_argument("--rows", type=int, default=200_000)
    options.add_argument("--record", action="store_true", help="write the figures into docs/results.json")
    given = options.parse_args()
    seconds, peak = memory(given.rows, 256, 500)
    if given.record:
        record("kmeans-memory", [["peak resident memory, GB", round(peak, 2)], ["time, s", round(seconds)]])


if __name__ == "__main__":
    main()
