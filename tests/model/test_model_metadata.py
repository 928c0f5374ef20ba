from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from avhubert.errors import CheckpointError
from avhubert.model.metadata import LabelSet, ModelMetadata

LABELS = {"rate": 100, "clusters": 50, "source": "mfcc", "layer": None, "centroids": "c" * 64, "files": {"train": "d"}}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"stage": "pre-training", "step": 3, "seed": 1, "data": "lrs3", "modalities": "av", "labels": [LABELS]},
        {"step": 3, "note": "of mine", "stage": "fine-tuning", "modalities": ["av", "v"], "noise": False},
        {"license": None, "data": "x", "ctc_weight": 1, "masking": {}, "extra": 1, "key_order": [2]},
    ],
)
def test_a_file_that_is_read_and_written_is_unchanged(values: dict[str, Any]) -> None:
    assert json.dumps(ModelMetadata.from_dict(values).to_dict()) == json.dumps(values)


def test_new_keys_follow_those_of_the_file() -> None:
    metadata = ModelMetadata.from_dict({"step": 4, "note": "of mine", "stage": "fine-tuning"})
    changed = dataclasses.replace(metadata, step=6, averaged=[6, 4], data="lrs3")
    assert list(changed.to_dict().items()) == [
        ("step", 6), ("note", "of mine"), ("stage", "fine-tuning"), ("data", "lrs3"), ("averaged", [6, 4]),
    ]  # fmt: skip
    assert metadata.step == 4


def test_a_new_record_has_the_order_of_its_fields_and_no_empty_keys() -> None:
    metadata = ModelMetadata(seed=1, stage="fine-tuning", noise=False)
    assert json.dumps(metadata.to_dict()) == '{"stage": "fine-tuning", "seed": 1, "noise": false}'
    assert ModelMetadata().to_dict() == {}


def test_equal_values_in_another_order_are_equal() -> None:
    assert ModelMetadata.from_dict({"step": 4, "seed": 1}) == ModelMetadata(seed=1, step=4)
    assert ModelMetadata.from_dict({"step": 4}) != ModelMetadata.from_dict({"step": 4, "note": "of mine"})


def test_label_sets_are_records() -> None:
    [labels] = ModelMetadata.from_dict({"labels": [LABELS]}).labels or []
    assert (labels.clusters, labels.layer, labels.extra) == (50, None, {"files": {"train": "d"}})
    assert LabelSet.from_dict(LABELS).to_dict() == LABELS
    older = ModelMetadata.from_dict({"labels": LABELS})  # before a model could have several label sets
    assert older.to_dict() == {"labels": [LABELS]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step": "4"}, r"^metadata\.step='4' must have the type int | None$"),
        ({"step": True}, r"^metadata\.step=True must have the type int"),
        ({"modalities": [1]}, r"^metadata\.modalities=\[1\] must have the type str \| list\[str\] \| None$"),
        ({"modalities": ["va"]}, r"^metadata\.modalities: unknown modality 'va'; known: a, av, v$"),
        ({"labels": [{"rate": "25"}]}, r"^metadata\.labels\.rate='25' must have the type int \| None$"),
        ({"labels": 3}, r"^metadata\.labels=3 must have the type list\[LabelSet\] \| None$"),
        ({"results": ["x"]}, r"^metadata\.results=\['x'\] must have the type"),
    ],
)
def test_wrong_types_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        ModelMetadata.from_dict(values)


@pytest.mark.parametrize(
    ("values", "supported", "default"),
    [
        ({}, ("av", "a", "v"), "av"),
        ({"modalities": []}, ("av", "a", "v"), "av"),
        ({"modalities": "av"}, ("av",), "av"),
        ({"modalities": "v"}, ("v",), "v"),
        ({"modalities": ["v", "av"]}, ("v", "av"), "av"),
        ({"modalities": ["v"]}, ("v",), "v"),
        ({"fine_tuned_on": "audio, video"}, ("av", "a", "v"), "av"),
        ({"fine_tuned_on": "audio"}, ("a",), "a"),
        ({"fine_tuned_on": "video"}, ("v",), "v"),
        ({"fine_tuned_on": "video", "modalities": ["a"]}, ("a",), "a"),
    ],
)
def test_supported_modalities(values: dict[str, Any], supported: tuple[str, ...], default: str) -> None:
    metadata = ModelMetadata.from_dict(values)
    assert metadata.supported_modalities() == supported
    assert metadata.default_modality() == default


def test_label_rate() -> None:
    assert ModelMetadata().label_rate() == 25
    assert ModelMetadata.from_dict({"labels": [LABELS, LABELS | {"rate": 25}]}).label_rate() == 100
