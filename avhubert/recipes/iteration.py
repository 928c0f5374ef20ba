"""One iteration of a pre-training recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avhubert.config.schema import PretrainConfig


@dataclass(frozen=True)
class Iteration:
    """One iteration of a recipe.

    Attributes:
        number: 1 for the first.
        folder: RUN/iterN.
        features: What is clustered: 'mfcc' or MODEL:LAYER.
        clusters: Number of clusters.
        config: The configuration of pre-training.
    """

    number: int
    folder: Path
    features: str
    clusters: int
    config: PretrainConfig

    @property
    def labels(self) -> Path:
        """The label folder."""
        return self.folder / "labels"

    @property
    def model(self) -> Path:
        """The run directory of pre-training."""
        return self.folder / "model"
