"""The HTML report of a label folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from avhubert.cluster.metrics import JointCounts
from avhubert.cluster.split_labels import SplitLabels
from avhubert.report import Page

METRICS = ("frames", "empty_clusters", "entropy", "pnmi", "purity", "cluster_purity")
COLUMNS = ("split", "frames", "empty clusters", "entropy", "PNMI", "phone purity", "cluster purity")


def label_report(metrics: Mapping[str, Any], splits: Mapping[str, SplitLabels]) -> Page:
    """The page of a label folder.

    Args:
        metrics: the contents of quality.json.
        splits: statistics of the labels of each split.
    """
    page = Page(f"Labels: {metrics['clusters']} clusters of {metrics['source']}")
    page.text(
        f"{metrics['rate']} labels per second, learned from {metrics['learned_frames']:,} frames of the training "
        f"split. Entropy is in nats, at most {math.log(metrics['clusters']):.3g}. PNMI and purities compare labels "
        "with the true phones (GRID: words) at 25 per second."
    )
    page.table(
        COLUMNS,
        [(split, *(metrics.get(f"{split}_{name}", "phones unknown") for name in METRICS)) for split in splits],
    )
    page.heading("Occupancy")
    ranks = list(range(1, metrics["clusters"] + 1))
    shares = {
        split: (ranks, (np.sort(labels.counts)[::-1] / max(1, labels.counts.sum())).tolist())
        for split, labels in splits.items()
    }
    page.plot(shares, "cluster, by size", "share of frames", "share of the frames in each cluster, largest first")
    for split, labels in splits.items():
        if labels.joint is not None and labels.joint.counts.sum():
            page.heading(f"Clusters and phones, {split}")
            share, phones = _phone_shares(labels.joint)
            caption = "P(phone | cluster); clusters are ordered by their most frequent phone"
            page.heatmap(share, "cluster", "phone", phones, caption=caption)
    return page


def _phone_shares(joint: JointCounts) -> tuple[np.ndarray, list[str]]:
    """P(phone | cluster) [phones, clusters] and the phones, ordered so that good labels make a diagonal."""
    counts = joint.counts
    by_size = np.argsort(-counts.sum(0), kind="stable")
    counts = counts[:, by_size]
    share = counts / np.maximum(1, counts.sum(1, keepdims=True))
    order = np.lexsort((-share.max(1), share.argmax(1)))
    return share[order].T, [joint.phones[i] for i in by_size]
