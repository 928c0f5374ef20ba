"""How the inputs of a model are made of a recording; a model directory carries it as `metadata.inputs`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avhubert.config.fields import choice
from avhubert.config.validate import from_dict, to_dict
from avhubert.constants import CROP_SIZE, MOUTH_SIZE

MEAN_FACE, NOSE_TO_CHIN = "mean-face", "nose-to-chin"
CLIP_SIZES = {MEAN_FACE: MOUTH_SIZE, NOSE_TO_CHIN: CROP_SIZE}  # height and width of a mouth clip, pixels
CROPS = tuple(CLIP_SIZES)
INTEGERS, UNIT = "int16", "unit"
BY_VIDEO, BY_AUDIO = "video", "audio"


@dataclass(frozen=True)
class InputPreparation:
    """The choices in which models differ; the defaults are those of the published AV-HuBERT models."""

    crop: str = choice(
        MEAN_FACE,
        CROPS,
        "Mouth clip: 96×96 pixels around the lips after stabilisation on a mean face (mean-face, published), or 88×88 "
        "pixels from nose to chin, without stabilisation (nose-to-chin).",
    )
    audio_scale: str = choice(
        INTEGERS, (INTEGERS, UNIT), "Audio samples as 16-bit integers, or between -1 and 1 (unit)."
    )
    length: str = choice(
        BY_VIDEO, (BY_VIDEO, BY_AUDIO), "Stream that decides the length; the other one is cut, padded or repeated."
    )

    @classmethod
    def from_values(cls, values: dict[str, Any], source: str) -> InputPreparation:
        """The record of a JSON object. ConfigError if a key or value is unknown."""
        preparation: InputPreparation = from_dict(cls, values, source)
        return preparation

    def recorded(self) -> dict[str, Any] | None:
        """The JSON object for the metadata of a model; None where the inputs are as published."""
        return None if self == PUBLISHED else self.values()

    def values(self) -> dict[str, Any]:
        """The JSON object."""
        return to_dict(self)


PUBLISHED = InputPreparation()
