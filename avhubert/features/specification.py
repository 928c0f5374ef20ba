"""Feature specifications: `mfcc` or `MODEL:LAYER`."""

from __future__ import annotations

from dataclasses import dataclass

from avhubert.constants import FRAME_RATE
from avhubert.errors import ConfigError

MFCC = "mfcc"
MFCC_RATE = 100  # feature frames per second


@dataclass(frozen=True)
class FeatureSpec:
    """MFCC (model and layer are None), or a layer of a model."""

    model: str | None
    layer: int | None

    @property
    def rate(self) -> int:
        """Feature frames per second."""
        return MFCC_RATE if self.model is None else FRAME_RATE

    def __str__(self) -> str:
        return MFCC if self.model is None else f"{self.model}:{self.layer}"


def parse(text: str) -> FeatureSpec:
    """The specification in a text, `mfcc` or `MODEL:LAYER` (split at the last colon).

    Raises:
        ConfigError: the text is neither.
    """
    if text == MFCC:
        return FeatureSpec(None, None)
    model, _, layer = text.rpartition(":")
    if not model or not (layer.isascii() and layer.isdigit()):
        raise ConfigError(f"features '{text}' are neither 'mfcc' nor MODEL:LAYER, such as runs/iter1:9")
    return FeatureSpec(model, int(layer))
