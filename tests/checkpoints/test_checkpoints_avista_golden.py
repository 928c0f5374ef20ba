"""AVista models against what the published port computes with the same folders (`../shared/golden/avista`)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import avhubert
from avhubert.checkpoints.avista.config import SpecialTokens
from avhubert.checkpoints.avista.read import convert
from avhubert.checkpoints.avista.tokenizer import read_tokenizer
from avhubert.checkpoints.avista.write import to_avista
from avhubert.checkpoints.torchfile import TorchFile
from avhubert.constants import BOS, EOS, PAD
from avhubert.data.tokenizer import Tokenizer
from avhubert.decode.beam_search import beam_search
from avhubert.model.encoder import AVHubert
from avhubert.model.inputs import ModelInputs
from avhubert.model.recognizer import Recognizer

pytestmark = pytest.mark.quick

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "golden" / "avista"
if not FOLDER.is_dir():
    pytest.skip("the folder ../shared/golden/avista is not part of the package", allow_module_level=True)

NAMES = sorted(file.stem for file in FOLDER.glob("*.npz") if (FOLDER / file.stem).is_dir())
RECOGNIZERS = [name for name in NAMES if name.startswith("s2s") and name != "s2s-postnorm"]
MODELS = [name for name in NAMES if name in RECOGNIZERS or name == "pretrained"]
CASES = ("a", "v", "av", "a_pad", "v_pad", "av_pad", "a_blackvideo", "v_zeroaudio")
MAX_NEW_TOKENS = 16  # of the recorded searches
FILE_INPUTS = np.load(FOLDER / "inputs.npz")
LENGTHS = FILE_INPUTS["lengths"].tolist()


def inputs(case: str) -> ModelInputs:
    audio = torch.from_numpy(FILE_INPUTS["audio"]).transpose(1, 2)
    video = ((torch.from_numpy(FILE_INPUTS["frames"]).float() / 255 - 0.421) / 0.165)[:, None]
    mask = None
    if case.endswith("_pad"):
        mask = torch.from_numpy(FILE_INPUTS["padding_mask"]) > 0
        audio, video = audio.masked_fill(mask[:, None], 0), video.masked_fill(mask[:, None, :, None, None], 0)
    if case == "a_blackvideo":
        return ModelInputs(audio, torch.full_like(video, (0 - 0.421) / 0.165))
    if case == "v_zeroaudio":
        return ModelInputs(torch.zeros_like(audio), video)
    streams = case.removesuffix("_pad")
    return ModelInputs(audio if "a" in streams else None, video if "v" in streams else None, mask)


def real(case: str, values: Any) -> Tensor:
    """The frames [N, D] of [3, T, D] that are not padding."""
    lengths = LENGTHS if case.endswith("_pad") else [12] * 3
    return torch.cat([torch.as_tensor(row[:length]) for row, length in zip(values, lengths, strict=True)])


class Golden:
    """A folder, our model of it, and the recorded numbers."""

    def __init__(self, name: str) -> None:
        self.model = avhubert.load(FOLDER / name)
        self.recorded = np.load(FOLDER / f"{name}.npz")
        if isinstance(self.model, Recognizer):
            special = json.loads((FOLDER / name / "config.json").read_text(encoding="utf-8"))
            ids = SpecialTokens(*(special[f"{key}_token_id"] for key in ("bos", "eos", "pad")))
            order = read_tokenizer(FOLDER / name / "tokenizer.json", ids, special["vocab_size"]).order
            self.theirs = torch.tensor(order)  # of each of our ids
            self.ours = self.theirs.argsort()

    @property
    def encoder(self) -> AVHubert:
        return self.model.encoder if isinstance(self.model, Recognizer) else self.model

    def texts(self, key: str) -> list[list[int]]:
        """The recorded texts in our ids, without start symbol and padding."""
        rows = self.ours[torch.from_numpy(self.recorded[key])].reshape(-1, self.recorded[key].shape[-1]).tolist()
        assert all(row[0] == BOS for row in rows)
        # after </s> there is padding; before it <pad> is a symbol of the text
        return [row[1 : row.index(EOS) + 1] if EOS in row else row[1:] for row in rows]


@pytest.fixture(scope="module", params=MODELS)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


@pytest.fixture(scope="module", params=RECOGNIZERS)
def recognizer(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


@pytest.mark.parametrize("case", CASES)
def test_encoder_computes_the_recorded_states(golden: Golden, case: str) -> None:
    batch, encoder, recorded = inputs(case), golden.encoder, golden.recorded
    with torch.no_grad():
        features = real(case, encoder.front_ends(batch))
        layers = [real(case, encoder(batch, layer=layer)) for layer in (0, 1, None)]
    expected = real(case, recorded[f"{case}/features"])
    assert (features - expected).abs().max() / expected.abs().max() <= 1e-5
    states = recorded[f"{case}/hidden_states"]
    for ours, theirs in zip(layers, (recorded[f"{case}/fused"], states[1], states[2]), strict=True):
        assert (ours - real(case, theirs)).abs().max() <= 1e-4


@pytest.mark.parametrize("case", CASES)
def test_recognizer_computes_the_recorded_logits(recognizer: Golden, case: str) -> None:
    tokens = recognizer.ours[torch.from_numpy(FILE_INPUTS["tokens"])]
    with torch.no_grad():
        logits = recognizer.model(tokens, inputs(case))
    present = tokens != PAD
    expected = torch.from_numpy(recognizer.recorded[f"{case}/logits_nomask"])[..., recognizer.theirs]
    assert (logits - expected)[present].abs().max() <= 1e-4


def search(golden: Golden, batch: ModelInputs, **settings: Any) -> list[Any]:
    model = golden.model
    assert isinstance(model, Recognizer)
    chosen = replace(model.decode_settings, max_len_a=0.0, max_len_b=MAX_NEW_TOKENS - 1, **settings)
    with torch.inference_mode():
        return beam_search(model, model.encode(batch), batch.mask, chosen)


def test_greedy_texts_are_the_recorded_ones(recognizer: Golden) -> None:
    compared = 0
    for case in CASES:
        if f"{case}/greedy" in recognizer.recorded:
            found = [best[0].tokens for best in search(recognizer, inputs(case), beam=1)]
            assert found == recognizer.texts(f"{case}/greedy"), case
            compared += 1
    assert compared >= 2


def test_beam_search_finds_all_recorded_hypotheses_of_each_utterance_alone(recognizer: Golden) -> None:
    compared = 0
    for case in ("a_pad", "av_pad"):
        batch = inputs(case)
        results = search(recognizer, batch, beam=5)
        for row, hypotheses in enumerate(results):
            key = f"{case}/alone{row}_beam5"
            if key in recognizer.recorded:
                scores = recognizer.recorded[f"{key}_scores"]
                assert [hypothesis.tokens for hypothesis in hypotheses] == recognizer.texts(key), key
                assert np.abs([hypothesis.score for hypothesis in hypotheses] - scores).max() <= 1e-5
                compared += 1
    assert compared >= 3


def test_tokenizer_reads_and_writes_the_recorded_texts(recognizer: Golden) -> None:
    tokenizer = recognizer.model.tokenizer
    assert isinstance(tokenizer, Tokenizer)
    cases = json.loads((FOLDER / "tokenizer_cases.json").read_text(encoding="utf-8"))
    for case in cases:
        ids = recognizer.ours[torch.tensor(case["ids"])].tolist()
        assert (ids[0], ids[-1]) == (BOS, EOS)
        if case["text"] == case["text"].rstrip():  # ours leaves blanks at the end of a text out
            assert tokenizer.encode(case["text"]) == ids[1:-1], case["text"]
        assert tokenizer.decode(ids).replace("<unk>", "").split() == case["decoded"].split()  # ours shows <unk>


@pytest.mark.parametrize("name", MODELS)
def test_folder_becomes_a_model_directory_and_again_the_same_folder(name: str, tmp_path: Path) -> None:
    convert(FOLDER / name, tmp_path / "ours")
    to_avista(tmp_path / "ours", tmp_path / "theirs")
    assert {file.name for file in (tmp_path / "theirs").iterdir()} == {file.name for file in (FOLDER / name).iterdir()}
    for file in (FOLDER / name).iterdir():
        written = tmp_path / "theirs" / file.name
        if file.suffix == ".json":
            assert json.loads(written.read_text(encoding="utf-8")) == json.loads(file.read_text(encoding="utf-8"))
            continue
        before, after = tensors(file), tensors(written)
        assert before.keys() == after.keys()
        for key, tensor in before.items():
            assert tensor.dtype == after[key].dtype
            assert torch.equal(tensor, after[key]), key
    converted, direct = avhubert.load(tmp_path / "ours").state_dict(), avhubert.load(FOLDER / name).state_dict()
    assert converted.keys() == direct.keys()
    assert all(torch.equal(tensor, converted[key]) for key, tensor in direct.items())


def tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    file = TorchFile(path)
    return {name: file.tensor(record) for name, record in file.content.items()}
