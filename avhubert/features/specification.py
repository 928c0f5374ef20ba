"""Feature specifications: `mfcc` or `MODEL:LAYER`."""

from __future__ import annotations

from dataclasses import dataclass

from avhubert.errors import ConfigError

MFCC_RATE, LAYER_RATE = 100, 25  # feature frames per second


# --------------------------------------------------------------------------- specification
@dataclass(frozen=True)
class FeatureSpec:
    """`mfcc` (model and layer None) or a layer of a model."""

    model: str | None
    layer: int | None

    @property
    def rate(self) -> int:
        """Frames per second."""
        return MFCC_RATE if self.model is None else LAYER_RATE

    def __str__(self) -> str:
        return "mfcc" if self.model is None else f"{self.model}:{self.layer}"


def parse(text: str) -> FeatureSpec:
    """`mfcc` or `MODEL:LAYER` (split at the last colon); ConfigError for anything else."""
    if text == "mfcc":
        return FeatureSpec(None, None)
    model, _, layer = text.rpartition(":")
    if not model or not (layer.isascii() and layer.isdigit()):
        raise ConfigError(f"features '{text}' are neither 'mfcc' nor MODEL:LAYER, such as runs/iter1:9")
    return FeatureSpec(model, int(layer))
