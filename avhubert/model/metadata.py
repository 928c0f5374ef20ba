"""The metadata of a model: how it was made, what it can read, and under which licence it may be used.

`config.json` of a model directory holds it under the key `metadata`. A record keeps the order of the keys and the keys
that this version does not know, so that a file that is read and written again is unchanged.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from avhubert.config.input_preparation import PUBLISHED, InputPreparation
from avhubert.constants import FRAME_RATE, MODALITIES
from avhubert.errors import CheckpointError, ConfigError, one_of

R = TypeVar("R", bound="JsonRecord")

_OWN_FIELDS = ("extra", "key_order")  # of JsonRecord; all other fields are keys of the JSON object


@dataclass(kw_only=True)
class JsonRecord:
    """A JSON object with known, typed keys. A field that is None is left out unless the file had the key.

    Attributes:
        extra: Unknown keys and their values.
        key_order: The keys as the file has them, in order.
    """

    extra: dict[str, Any] = field(default_factory=dict)
    key_order: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def from_dict(cls: type[R], values: Mapping[str, Any], name: str = "") -> R:
        """The record of a JSON object.

        Args:
            values: The object.
            name: The object's dotted name, for messages.

        Raises:
            CheckpointError: A known key has a value of another type.
        """
        annotations = {item.name: str(item.type) for item in dataclasses.fields(cls)}
        kinds = {key: kind for key, kind in typing.get_type_hints(cls).items() if key not in _OWN_FIELDS}
        for key, value in values.items():
            if key in kinds and not _has_type(value, kinds[key]):
                raise CheckpointError(f"{name}{key}={value!r} must have the type {annotations[key]}")
        known = {key: value for key, value in values.items() if key in kinds}
        extra = {key: value for key, value in values.items() if key not in kinds}
        return cls(**known, extra=extra, key_order=tuple(values))

    def to_dict(self) -> dict[str, Any]:
        """The JSON object: the keys of the file in their order, then the others."""
        known = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        values = {key: _plain(value) for key, value in known.items() if key not in _OWN_FIELDS} | self.extra
        present = [key for key, value in values.items() if value is not None or key in self.key_order]
        in_file = [key for key in self.key_order if key in present]
        return {key: values[key] for key in dict.fromkeys(in_file + present)}


@dataclass(kw_only=True)
class LabelSet(JsonRecord):
    """The frame labels of one clustering that a model was pre-trained with."""

    rate: int | None = None  # labels per second
    clusters: int | None = None
    source: str | None = None  # 'mfcc' or the model that the features came from
    layer: int | None = None  # of that model
    centroids: str | None = None  # SHA-256 of the centroids


@dataclass(kw_only=True)
class ModelMetadata(JsonRecord):
    """How a model was made; every field is None if it is not known."""

    stage: str | None = None  # 'pre-training' or 'fine-tuning'
    step: int | None = None  # optimizer steps of that stage
    seed: int | None = None
    data: str | None = None  # the data directory
    pretrained: str | None = None  # the model that fine-tuning started from
    modalities: str | list[str] | None = None  # one for pre-training, a list for fine-tuning
    longest_frames: int | None = None  # longest clip of fine-tuning
    ctc_weight: float | None = None  # of the fine-tuning loss; 1: the decoder is not trained
    noise: bool | None = None  # whether fine-tuning added noise
    labels: list[LabelSet] | None = None
    masking: dict[str, Any] | None = None  # the section `masking` of the pre-training configuration
    averaged: list[int] | None = None  # the steps whose weights were averaged
    converted_from: str | None = None  # file name of the published checkpoint
    fine_tuned_on: str | None = None  # the streams that the published checkpoint was fine-tuned on, joined by ', '
    assumed: str | None = None  # settings that the published checkpoint lacks
    source: str | None = None  # name on the Hub, or of the folder, that the model was converted from
    commit: str | None = None  # of `source`
    inputs: dict[str, Any] | None = None  # see `InputPreparation`; None: as published
    license: str | None = None  # the Hub's identifier
    attribution: str | None = None  # authors and licence of the training data, as its licence demands
    results: list[dict[str, Any]] | None = None  # rows of results.json

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], name: str = "metadata.") -> ModelMetadata:
        """The record of the object `metadata` of a `config.json`; see `JsonRecord.from_dict`."""
        labels = values.get("labels")
        if isinstance(labels, dict):  # older versions had one label set
            labels = [labels]
        if isinstance(labels, list) and all(isinstance(item, dict) for item in labels):
            records = [LabelSet.from_dict(item, f"{name}labels.") for item in labels]
            values = {key: records if key == "labels" else value for key, value in values.items()}
        record = super().from_dict(values, name)
        for modality in record.supported_modalities():
            if modality not in MODALITIES:
                raise CheckpointError(f"{name}modalities: {one_of('modality', modality, MODALITIES)}")
        record.preparation()
        return record

    def preparation(self) -> InputPreparation:
        """How the inputs of the model are made. CheckpointError if `inputs` is not understood."""
        if self.inputs is None:
            return PUBLISHED
        try:
            return InputPreparation.from_values(self.inputs, "metadata.inputs")
        except ConfigError as error:
            raise CheckpointError(str(error)) from error

    def supported_modalities(self) -> tuple[str, ...]:
        """The modalities that the model was trained for; all of MODALITIES if that is not known."""
        if isinstance(self.modalities, str):
            return (self.modalities,)
        if self.modalities:
            return tuple(self.modalities)
        for modality, streams in MODALITIES.items():
            if len(streams) == 1 and self.fine_tuned_on == streams[0]:
                return (modality,)
        return tuple(MODALITIES)

    def default_modality(self) -> str:
        """The modality `av` if the model was trained for it, else the first that it was trained for."""
        supported = self.supported_modalities()
        return "av" if "av" in supported else supported[0]

    def label_rate(self) -> int:
        """Labels per second of the first label set; the frame rate if that is not known."""
        rate = self.labels[0].rate if self.labels else None
        return FRAME_RATE if rate is None else rate


def _has_type(value: Any, kind: Any) -> bool:
    """Whether a JSON value has the type of an annotation."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(_has_type(value, option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        return isinstance(value, list) and all(_has_type(item, typing.get_args(kind)[0]) for item in value)
    if typing.get_origin(kind) is dict:
        return isinstance(value, dict)
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind


def _plain(value: Any) -> Any:
    """A field's value as JSON."""
    if isinstance(value, list):
        return [item.to_dict() if isinstance(item, JsonRecord) else item for item in value]
    return value
