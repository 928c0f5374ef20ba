"""The interface of feature extractors, and the extractor of a specification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from avhubert.data.manifest import Clip
from avhubert.devices import AUTO
from avhubert.features.layer import LayerExtractor
from avhubert.features.mfcc import MfccExtractor
from avhubert.features.specification import FeatureSpec


class Extractor(Protocol):
    """Computes the features of clips.

    Attributes:
        dtype: number format in which the features are stored.
        identity: what the features depend on, besides the clips, as JSON.
    """

    dtype: type[np.floating[Any]]
    identity: dict[str, Any]

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[int, np.ndarray]]:
        """Position in `clips` and features float [F, D] of every clip, in any order."""
        ...


def make_extractor(spec: FeatureSpec, device: str = AUTO, precision: str = AUTO) -> Extractor:
    """The extractor of a specification; a layer is computed from audio and video.

    Args:
        spec: what to extract.
        device: of a model's layer, see `devices.resolve`; MFCC are computed on the CPU.
        precision: of a model's layer, see `devices.resolve`.
    """
    if spec.model is None:
        return MfccExtractor()
    return LayerExtractor(spec.model, spec.layer, device=device, precision=precision)
