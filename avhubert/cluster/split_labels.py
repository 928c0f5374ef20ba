"""Labels of the splits of a data directory, and their statistics."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from avhubert.cluster.kmeans import assign
from avhubert.cluster.label_model import LabelModel
from avhubert.cluster.metrics import JointCounts, at_frame_rate, label_metrics
from avhubert.data.labels import write_dictionary, write_labels
from avhubert.data.manifest import Clip
from avhubert.data.transcripts import read_phones_of
from avhubert.errors import DataError
from avhubert.features.shards import Shards
from avhubert.files import sha256
from avhubert.report import progress

MAX_EMPTY = 0.05  # a larger share of empty clusters is an error


@dataclass(frozen=True)
class SplitFeatures:
    """The clips of each split of a data directory, and their features."""

    data_dir: Path
    clips: dict[str, list[Clip]]
    shards: dict[str, Shards]


@dataclass
class SplitLabels:
    """Statistics of the labels of a split.

    Attributes:
        counts: int64 [K], frames of each cluster at the labels' own rate.
        joint: counts of clusters and true phones at 25 Hz; None if the phones are unknown.
        sha256: of the `.km` file.
    """

    counts: np.ndarray
    joint: JointCounts | None
    sha256: str = field(default="")

    def metrics(self) -> dict[str, float | int]:
        """Frames, entropy (nats) and empty clusters; with known phones also PNMI and purities."""
        share = self.counts[self.counts > 0] / max(1, self.counts.sum())
        metrics: dict[str, float | int] = {
            "frames": int(self.counts.sum()),
            "entropy": abs(float((share * np.log(share)).sum())),
            "empty_clusters": int((self.counts == 0).sum()),
        }
        if self.joint is not None and self.joint.counts.sum():
            metrics.update(label_metrics(self.joint.counts))
        return metrics


def write_split_labels(
    folder: Path, features: SplitFeatures, model: LabelModel, device: torch.device, allow_empty: bool
) -> dict[str, SplitLabels]:
    """Assign a cluster to every frame; writes the `.km` file of each split and dict.km.txt.

    Args:
        folder: where to write.
        features: of the data directory.
        model: its centroids are the clusters.
        device: where distances are computed.
        allow_empty: whether clusters without training frames are accepted.

    Raises:
        DataError: over 5 % of the clusters have no training frames; a `.phn` file that does not fit.
    """
    splits = {}
    with progress() as bar:
        for split, clips in features.clips.items():
            task = bar.add_task(f"labels: {split}", total=len(clips), unit="clips")
            phones = read_phones_of(features.data_dir / f"{split}.phn", clips)
            joint = None if phones is None else JointCounts(model.info.clusters)
            labels = SplitLabels(np.zeros(model.info.clusters, np.int64), joint)
            rows = []
            for index, frames in enumerate(features.shards[split].clips()):
                row = assign(frames, model.centroids, device)
                rows.append(row)
                labels.counts += np.bincount(row, minlength=model.info.clusters)
                if joint is not None and phones is not None:
                    joint.add(at_frame_rate(row, model.info.rate), phones[index])
                bar.advance(task)
            if split == "train" and not allow_empty:
                _check_empty(labels.counts)
            write_labels(folder / f"{split}.km", rows)
            labels.sha256 = sha256(folder / f"{split}.km")
            splits[split] = labels
    counts = splits["train" if "train" in splits else next(iter(splits))].counts
    write_dictionary(folder / "dict.km.txt", {str(k): int(n) for k, n in enumerate(counts)})
    return splits


def _check_empty(counts: np.ndarray) -> None:
    empty = int((counts == 0).sum())
    if empty > MAX_EMPTY * len(counts):
        raise DataError(
            f"{empty} of {len(counts)} clusters are empty: {counts.sum()} training frames do not fill so many; "
            f"ask for fewer clusters, such as --clusters {max(2, (len(counts) - empty) // 2)}"
        )
