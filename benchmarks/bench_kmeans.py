"""K-means against scikit-learn's MiniBatchKMeans with the published settings: ratio of time, at equal or lower inertia.

    python benchmarks/bench_kmeans.py [--rows 200000] [--width 256] [--clusters 500]
    python benchmarks/bench_kmeans.py --memory --rows 10000000    # peak memory of ours, rows made as they are read

Published: k-means++, batches of 10 000, at most 100 iterations, 20 inits, stop after 100 batches without improvement,
tolerance 0, reassignment ratio 0. Both run in this process with the same number of threads.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np
from record import record
from sklearn.cluster import MiniBatchKMeans

from avhubert.cluster.kmeans import fit


def data(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Rows around 2000 centres of unequal weight and spread, in a space where a few directions dominate; float32."""
    rng = np.random.default_rng(seed)
    scale = (1 / np.sqrt(1 + np.arange(width) / 8)).astype(np.float32)
    centres = rng.standard_normal((2000, width), np.float32) * scale
    weight = rng.gamma(1.0, size=2000)
    which = rng.choice(2000, rows, p=weight / weight.sum())
    spread = rng.uniform(0.3, 1.0, 2000).astype(np.float32)[which, None]
    return centres[which] + rng.standard_normal((rows, width), np.float32) * scale * spread


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
    options.add_argument("--rows", type=int, default=200_000)
    options.add_argument("--width", type=int, default=256)
    options.add_argument("--clusters", type=int, default=500)
    options.add_argument("--memory", action="store_true")
    options.add_argument("--record", action="store_true", help="write the figures into docs/results.json")
    size = options.parse_args()
    if size.memory:
        seconds, peak = memory(size.rows, size.width, size.clusters)
        if size.record:
            record("kmeans-memory", [["peak resident memory, GB", round(peak, 2)], ["time, s", round(seconds)]])
        return
    x = data(size.rows, size.width)

    start = time.perf_counter()
    ours = fit(lambda: [x], size.clusters, seed=0, device="cpu")
    ours_seconds = time.perf_counter() - start
    print(f"ours: {ours_seconds:.1f} s, inertia {ours.inertia:.6g}, {ours.passes} passes", flush=True)

    start = time.perf_counter()
    theirs = MiniBatchKMeans(
        size.clusters, init="k-means++", batch_size=10_000, max_iter=100, n_init=20, max_no_improvement=100, tol=0.0,
        reassignment_ratio=0.0, random_state=0, compute_labels=False,
    ).fit(x)  # fmt: skip
    their_seconds = time.perf_counter() - start
    inertia = -theirs.score(x)
    print(f"scikit-learn: {their_seconds:.1f} s, inertia {inertia:.6g}")
    print(f"ratio of time {their_seconds / ours_seconds:.1f}, of inertia (ours / theirs) {ours.inertia / inertia:.4f}")
    if size.record:
        own = ["ours", round(ours_seconds), round(ours.inertia / inertia, 3)]
        record("kmeans-speed", [own, ["scikit-learn", round(their_seconds), 1]])


if __name__ == "__main__":
    main()
