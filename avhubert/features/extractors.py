"""What is clustered: MFCC of the sound at 100 Hz, or one layer of a model at 25 Hz, written to disk in shards.

A specification is `mfcc` or `MODEL:LAYER`. F frames of a clip, D values each; T video frames at 25 Hz.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from avhubert.data.manifest import Clip
from avhubert.features.layer import LayerExtractor
from avhubert.features.mfcc import MfccExtractor
from avhubert.features.specification import FeatureSpec


# --------------------------------------------------------------------------- what computes features
class Extractor(Protocol):
    """Computes the features of clips, in any order: (position in `clips`, float [F, D])."""

    dtype: type[np.floating]
    identity: dict[str, Any]

    def over(self, clips: Sequence[Clip]) -> Iterator[tuple[int, np.ndarray]]: ...


def extractor(spec: FeatureSpec) -> Extractor:
    """What computes the features of a specification, both modalities for a layer."""
    return MfccExtractor() if spec.model is None else LayerExtractor(spec.model, spec.layer)
