"""Agreement of cluster labels with phones: purity, PNMI and entropy (Hsu et al., HuBERT, 2021, § IV-D "Metrics").

All metrics are computed from the joint counts n[cluster, phone] over frames. Labels are compared at the video's 25 Hz:
a row of labels of another rate is read where pre-training reads its targets, at `row[int(t * rate / 25)]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.errors import DataError


class JointCounts:
    """Counts of (cluster, phone) pairs, added clip by clip; memory depends on clusters and phones, not on frames."""

    def __init__(self, clusters: int) -> None:
        self.clusters = clusters
        self._columns: dict[str, np.ndarray] = {}

    def add(self, labels: np.ndarray, phones: Sequence[str]) -> None:
        """Count a clip: labels int [n] and phones [m] of the same frames; the end of the longer one is not counted."""
        n = min(len(labels), len(phones))
        names = np.asarray(phones[:n])
        for phone in np.unique(names):
            counts = np.bincount(labels[:n][names == phone], minlength=self.clusters)
            self._columns[str(phone)] = self._columns.get(str(phone), 0) + counts

    @property
    def phones(self) -> list[str]:
        """The phones seen so far, sorted."""
        return sorted(self._columns)

    @property
    def counts(self) -> np.ndarray:
        """int64 [clusters, phones]."""
        columns = [self._columns[phone] for phone in self.phones]
        return np.stack(columns, 1).astype(np.int64) if columns else np.zeros((self.clusters, 0), np.int64)


def at_frame_rate(row: np.ndarray, rate: int) -> np.ndarray:
    """Labels of video frames t = 0, 1, … (25 Hz) in a row of `rate` Hz: row[int(t * rate / 25)] until the row ends."""
    frames = -(-len(row) * FRAME_RATE // rate)
    return row[np.arange(frames) * rate // FRAME_RATE]


def joint_counts(labels: Sequence[Any] | np.ndarray, phones: Sequence[Any] | np.ndarray) -> np.ndarray:
    """int64 [distinct labels, distinct phones] from two equally long sequences over frames (ints or strings).

    Raises:
        DataError: they are empty or differ in length.
    """
    label_array, phone_array = np.asarray(labels), np.asarray(phones)
    if label_array.shape != phone_array.shape or label_array.ndim != 1 or not label_array.size:
        raise DataError(
            f"need one phone for every label, at least one of each; got {label_array.shape} and {phone_array.shape}"
        )
    rows, row = np.unique(label_array, return_inverse=True)
    columns, column = np.unique(phone_array, return_inverse=True)
    return np.bincount(row * len(columns) + column, minlength=len(rows) * len(columns)).reshape(len(rows), len(columns))


def entropy(labels: Sequence[Any] | np.ndarray) -> float:
    """Entropy of the label distribution, nats."""
    return _entropy(np.unique(np.asarray(labels), return_counts=True)[1])


def purity(labels: Sequence[Any] | np.ndarray, phones: Sequence[Any] | np.ndarray) -> float:
    """Phone purity: share of frames whose phone is the most frequent one of their cluster."""
    return label_metrics(joint_counts(labels, phones))["purity"]


def cluster_purity(labels: Sequence[Any] | np.ndarray, phones: Sequence[Any] | np.ndarray) -> float:
    """Cluster purity: share of frames whose cluster is the most frequent one of their phone."""
    return label_metrics(joint_counts(labels, phones))["cluster_purity"]


def pnmi(labels: Sequence[Any] | np.ndarray, phones: Sequence[Any] | np.ndarray) -> float:
    """Phone-normalised mutual information I(phone; label) / H(phone), 0…1; 1 if there is only one phone."""
    return label_metrics(joint_counts(labels, phones))["pnmi"]


def label_metrics(counts: np.ndarray) -> dict[str, float]:
    """`pnmi`, `purity`, `cluster_purity` (all 0…1) from joint counts int [clusters, phones] with at least one frame."""
    total = counts.sum()
    phone_entropy = _entropy(counts.sum(0))
    information = _entropy(counts.sum(1)) + phone_entropy - _entropy(counts)
    return {
        "pnmi": float(np.clip(information / phone_entropy, 0, 1)) if phone_entropy > 0 else 1.0,
        "purity": float(counts.max(1).sum() / total),
        "cluster_purity": float(counts.max(0).sum() / total),
    }


def _entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())
