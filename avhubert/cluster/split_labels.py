"""Labels of the splits of a data directory, and their statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avhubert.cluster import metrics as quality
from avhubert.cluster.kmeans import assign
from avhubert.data.labels import LabelInfo, write_dictionary, write_labels
from avhubert.data.manifest import Clip
from avhubert.data.transcripts import read_phones
from avhubert.errors import DataError
from avhubert.features.shards import Shards
from avhubert.report import progress

EMPTY_LIMIT = 0.05  # a larger share of empty clusters is refused


# --------------------------------------------------------------------------- labels and their figures
@dataclass
class SplitResult:
    """What the labels of a split are like."""

    counts: np.ndarray  # int64 [K], frames of each cluster at the labels' own rate
    joint: quality.JointCounts | None  # with the true phones at 25 Hz, where they are known

    def figures(self) -> dict[str, float | int]:
        share = self.counts[self.counts > 0] / max(1, self.counts.sum())
        found: dict[str, float | int] = {
            "frames": int(self.counts.sum()),
            "entropy": float(-(share * np.log(share)).sum()),
            "empty_clusters": int((self.counts == 0).sum()),
        }
        if self.joint is not None and self.joint.counts.sum():
            found.update(quality.figures(self.joint.counts))
        return found


def label_splits(
    folder: Path,
    data_dir: Path,
    manifests: dict[str, list[Clip]],
    shards: dict[str, Shards],
    info: LabelInfo,
    centroids: np.ndarray,
    refuse_empty: bool,
) -> dict[str, SplitResult]:
    results = {}
    with progress() as bar:
        for split, clips in manifests.items():
            task = bar.add_task(f"labels: {split}", total=len(clips), unit="clips")
            result = SplitResult(np.zeros(info.clusters, np.int64), None)
            phones = _phones(data_dir / f"{split}.phn", len(clips))
            if phones is not None:
                result.joint = quality.JointCounts(info.clusters)
            rows = []
            for index, row in enumerate(_assigned(shards[split], centroids)):
                rows.append(row)
                result.counts += np.bincount(row, minlength=info.clusters)
                if result.joint is not None and phones is not None:
                    result.joint.add(quality.at_frame_rate(row, info.rate), phones[index])
                bar.advance(task)
            if split == "train" and refuse_empty:
                _refuse_empty(result.counts)
            write_labels(folder / f"{split}.km", rows)
            results[split] = result
    counts = results["train" if "train" in results else next(iter(results))].counts
    write_dictionary(folder / "dict.km.txt", {str(k): int(n) for k, n in enumerate(counts)})
    return results


def _assigned(shards: Shards, centroids: np.ndarray) -> Iterator[np.ndarray]:
    for rows in shards.clips():
        yield assign(rows, centroids)


def _phones(path: Path, clips: int) -> list[list[str]] | None:
    if not path.exists():
        return None
    phones = read_phones(path)
    if len(phones) != clips:
        raise DataError(f"{path} has {len(phones)} lines but the manifest lists {clips} clips; make or remove it")
    return phones


def _refuse_empty(counts: np.ndarray) -> None:
    empty = int((counts == 0).sum())
    if empty > EMPTY_LIMIT * len(counts):
        raise DataError(
            f"{empty} of {len(counts)} clusters are empty: {counts.sum()} training frames do not fill so many; "
            f"ask for fewer clusters, such as --clusters {max(2, (len(counts) - empty) // 2)}"
        )
