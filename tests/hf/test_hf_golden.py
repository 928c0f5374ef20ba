"""The models of transformers against what the published port computes with the same folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from transformers import AutoModel, AutoModelForSpeechSeq2Seq, AutoProcessor

import avhubert.hf as hf

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "golden" / "avista"
if not FOLDER.is_dir():
    pytest.skip("the folder ../shared/golden/avista is not part of the package", allow_module_level=True)

NAMES = sorted(file.stem for file in FOLDER.glob("*.npz") if (FOLDER / file.stem).is_dir())
RECOGNIZERS = [name for name in NAMES if name.startswith("s2s") and name != "s2s-postnorm"]
MODELS = [name for name in NAMES if name in RECOGNIZERS or name == "pretrained"]
CASES = ("a", "v", "av", "a_pad", "v_pad", "av_pad", "a_blackvideo", "v_zeroaudio")
INPUTS = np.load(FOLDER / "inputs.npz")
LENGTHS = INPUTS["lengths"].tolist()
NARROW = {"visual_width": 8}  # of the small checkpoints but for s2s-wide


def load(name: str) -> Any:
    auto = AutoModel if name == "pretrained" else AutoModelForSpeechSeq2Seq
    sizes = {} if name == "s2s-wide" else NARROW
    model, report = auto.from_pretrained(FOLDER / name, output_loading_info=True, dtype=torch.float32, **sizes)
    assert not any(report.values()), report
    return model


def inputs(case: str) -> dict[str, Tensor]:
    audio = torch.from_numpy(INPUTS["audio"])
    video = ((torch.from_numpy(INPUTS["frames"]).float() / 255 - 0.421) / 0.165)[:, :, None]
    mask = torch.from_numpy(INPUTS["padding_mask"])
    if case == "a_blackvideo":
        video = torch.full_like(video, (0 - 0.421) / 0.165)
    if case == "v_zeroaudio":
        audio = torch.zeros_like(audio)
    streams = case.removesuffix("_pad") if case.endswith("_pad") or len(case) <= 2 else "av"
    found = {"input_values": audio} if "a" in streams else {}
    found |= {"pixel_values": video} if "v" in streams else {}
    return found | ({"padding_mask": mask} if case.endswith("_pad") else {})


def real(case: str, values: Any) -> Tensor:
    """The frames [N, D] of [3, T, D] that are not padding."""
    lengths = LENGTHS if case.endswith("_pad") else [12] * 3
    return torch.cat([torch.as_tensor(row[:length]) for row, length in zip(values, lengths, strict=True)])


@pytest.fixture(scope="module", params=MODELS)
def named(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, load(request.param)


@pytest.fixture(scope="module", params=RECOGNIZERS)
def recognizer(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, load(request.param)


@pytest.mark.parametrize("case", CASES)
def test_hidden_states_are_the_recorded_ones(named: tuple[str, Any], case: str) -> None:
    name, model = named
    encoder = model if isinstance(model, hf.AVHubertModel) else model.get_encoder()
    with torch.no_grad():
        found = encoder(**inputs(case), output_hidden_states=True)
    recorded = np.load(FOLDER / f"{name}.npz")[f"{case}/hidden_states"]
    assert len(found.hidden_states) == len(recorded) == 3
    for ours, theirs in zip(found.hidden_states, recorded, strict=True):
        assert (real(case, ours) - real(case, theirs)).abs().max() <= 1e-4
    assert torch.equal(found.hidden_states[-1], found.last_hidden_state)


@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_recorded_ones_in_the_order_of_the_folder(recognizer: tuple[str, Any], case: str) -> None:
    name, model = recognizer
    tokens = torch.from_numpy(INPUTS["tokens"])
    with torch.no_grad():
        logits = model(**inputs(case), decoder_input_ids=tokens).logits
    expected = torch.from_numpy(np.load(FOLDER / f"{name}.npz")[f"{case}/logits_nomask"])
    present = tokens != model.config.pad_token_id
    assert (logits - expected)[present].abs().max() <= 1e-4


def test_greedy_texts_are_the_recorded_ones(recognizer: tuple[str, Any]) -> None:
    name, model = recognizer
    recorded = np.load(FOLDER / f"{name}.npz")
    compared = 0
    for case in CASES:
        if f"{case}/greedy" in recorded:
            found = model.generate(**inputs(case), max_new_tokens=16, num_beams=1)
            assert np.array_equal(found.numpy(), recorded[f"{case}/greedy"]), case
            compared += 1
    assert compared >= 2


def test_all_five_hypotheses_of_an_utterance_alone_are_the_recorded_ones(recognizer: tuple[str, Any]) -> None:
    name, model = recognizer
    recorded = np.load(FOLDER / f"{name}.npz")
    compared = 0
    for case in ("a_pad", "av_pad"):
        for row in range(3):
            key = f"{case}/alone{row}_beam5"
            if key not in recorded:
                continue
            alone = {
                key: tensor[row : row + 1, : LENGTHS[row]]
                for key, tensor in inputs(case).items()
                if key != "padding_mask"
            }
            found = model.generate(
                **alone,
                max_new_tokens=16,
                num_return_sequences=5,
                output_scores=True,
                return_dict_in_generate=True,
            )
            assert np.array_equal(found.sequences.numpy(), recorded[key]), key
            assert np.abs(found.sequences_scores.numpy() - recorded[f"{key}_scores"]).max() <= 1e-5
            compared += 1
    assert compared >= 3


def test_texts_of_a_batch_are_those_of_each_utterance_alone(recognizer: tuple[str, Any]) -> None:
    """In release 4.53, with which `beam5` was recorded, utterances went on because of others in their batch."""
    name, model = recognizer
    recorded = np.load(FOLDER / f"{name}.npz")
    compared = 0
    for case in ("a_pad", "av_pad"):
        found = model.generate(**inputs(case), max_new_tokens=16, num_return_sequences=5).reshape(3, 5, -1)
        for row in range(3):
            if f"{case}/alone{row}_beam5" in recorded:
                alone = torch.from_numpy(recorded[f"{case}/alone{row}_beam5"])
                length = min(alone.shape[1], found.shape[2])
                assert torch.equal(found[row, :, :length], alone[:, :length])
                assert (found[row, :, length:] == model.config.pad_token_id).all()
                compared += 1
    assert compared >= 3


def test_processor_encodes_the_recorded_texts() -> None:
    for name in RECOGNIZERS:
        processor = AutoProcessor.from_pretrained(FOLDER / name)
        for case in json.loads((FOLDER / "tokenizer_cases.json").read_text(encoding="utf-8")):
            assert processor(text=case["text"]).labels[0].tolist() == case["ids"][1:]
            assert processor.decode(case["ids"]) == case["decoded"]
