"""scikit-learn's MiniBatchKMeans with the published settings."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import MiniBatchKMeans


def fit(rows: np.ndarray, clusters: int, inits: int = 20) -> float:
    """The mean squared distance of the rows [n, d] from their nearest centre after the fit."""
    model = MiniBatchKMeans(
        clusters, init="k-means++", batch_size=10_000, max_iter=100, n_init=inits, max_no_improvement=100, tol=0.0,
        reassignment_ratio=0.0, random_state=0, compute_labels=False,
    ).fit(rows)  # fmt: skip
    return -float(model.score(rows)) / len(rows)
