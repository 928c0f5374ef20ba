"""The HTML report of a label folder."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from avhubert.cluster import metrics as quality
from avhubert.cluster.split_labels import SplitResult
from avhubert.report import Page


# --------------------------------------------------------------------------- the page
def label_report(figures: dict[str, Any], results: dict[str, SplitResult]) -> Page:
    page = Page(f"Labels: {figures['clusters']} clusters of {figures['source']}")
    page.text(
        f"{figures['rate']} labels per second, learned from {figures['learned_frames']:,} frames of the training "
        f"split. Entropy is in nats, at most {math.log(figures['clusters']):.3g}. PNMI and purities compare labels "
        "with the true phones at 25 per second."
    )
    names = ("frames", "empty_clusters", "entropy", "pnmi", "purity", "cluster_purity")
    page.table(
        ("split", "frames", "empty clusters", "entropy", "PNMI", "phone purity", "cluster purity"),
        [(split, *(figures.get(f"{split}_{name}", "phones not known") for name in names)) for split in results],
    )
    page.heading("Occupancy")
    ranks = list(range(1, figures["clusters"] + 1))
    shares = {
        split: (ranks, (np.sort(result.counts)[::-1] / max(1, result.counts.sum())).tolist())
        for split, result in results.items()
    }
    page.plot(shares, "cluster, by size", "share of frames", "share of the frames in each cluster, largest first")
    for split, result in results.items():
        if result.joint is not None and result.joint.counts.sum():
            page.heading(f"Clusters and phones, {split}")
            caption = "P(phone | cluster); clusters are ordered by their most frequent phone"
            page.heatmap(*_picture(result.joint), caption=caption)
    return page


def _picture(joint: quality.JointCounts) -> tuple[np.ndarray, str, str, list[str]]:
    """P(phone | cluster) [phones, clusters], both ordered so that a good labelling shows as a diagonal."""
    counts = joint.counts
    by_size = np.argsort(-counts.sum(0), kind="stable")
    counts = counts[:, by_size]
    share = counts / np.maximum(1, counts.sum(1, keepdims=True))
    order = np.lexsort((-share.max(1), share.argmax(1)))
    return share[order].T, "cluster", "phone", [joint.phones[i] for i in by_size]
