"""The label model: the centroids that assign a cluster to each frame."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avhubert.data.labels import LabelInfo, read_label_info
from avhubert.errors import DataError
from avhubert.files import read_json


@dataclass(frozen=True)
class LabelModel:
    """What turns features into cluster ids, by `kmeans.assign`."""

    info: LabelInfo
    centroids: np.ndarray  # float32 [K, D]
    model_sha256: str | None  # of the model whose layer was clustered; None for MFCC


def read_label_model(folder: str | Path) -> LabelModel:
    """The label model of a label folder; DataError if it has none or a part does not belong to the others."""
    folder = Path(folder)
    info = read_label_info(folder)
    path = folder / "centroids.npy"
    try:
        centroids = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is missing or damaged; make the labels again") from error
    if centroids.ndim != 2 or len(centroids) != info.clusters or centroids_hash(centroids) != info.centroids:
        raise DataError(f"{path} holds other centroids than labels.json beside it says; make the labels again")
    return LabelModel(info, centroids, read_json(folder / "label_model.json").get("model_sha256"))


def centroids_hash(centroids: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(centroids, "<f4").tobytes()).hexdigest()
