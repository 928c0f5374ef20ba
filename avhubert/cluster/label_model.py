"""The label model: the centroids that assign a cluster to each frame."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avhubert.data.arrays import parse_array
from avhubert.data.labels import LabelInfo, read_label_info
from avhubert.encoding import placeholder_message
from avhubert.errors import DataError
from avhubert.files import read_bytes, read_json_object

LARGEST_BYTES = 1 << 30  # of the centroids; 2000 of a layer of Large have 8 MB
CENTROIDS, SETTINGS = "centroids.npy", "label_model.json"


@dataclass(frozen=True)
class LabelModel:
    """Assigns clusters to features, by `kmeans.assign`.

    Attributes:
        info: the contents of labels.json.
        centroids: float32 [K, D].
        model_sha256: of the model whose layer was clustered; None for MFCC.
    """

    info: LabelInfo
    centroids: np.ndarray
    model_sha256: str | None


def read_label_model(folder: str | Path) -> LabelModel:
    """The label model of a label folder.

    Raises:
        DataError: the folder has none, or its parts do not belong together.
    """
    folder = Path(folder)
    info = read_label_info(folder)
    path = folder / CENTROIDS
    try:
        centroids = parse_array(read_bytes(path, LARGEST_BYTES))
    except (OSError, ValueError) as error:
        problem = placeholder_message(path) or f"{path} is missing or damaged; make the labels again"
        raise DataError(problem, path=path) from error
    if centroids.ndim != 2 or len(centroids) != info.clusters or centroids_hash(centroids) != info.centroids:
        raise DataError(f"{path} and labels.json do not belong together; make the labels again", path=path)
    return LabelModel(info, centroids, read_json_object(folder / SETTINGS).get("model_sha256"))


def centroids_hash(centroids: np.ndarray) -> str:
    """SHA-256 of centroids, as in labels.json."""
    return hashlib.sha256(np.ascontiguousarray(centroids, "<f4").tobytes()).hexdigest()
