"""Loading by what a place holds: model directories, run directories, published checkpoints; and what is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import avhubert
from avhubert.checkpoints.directory import save_model
from avhubert.checkpoints.fairseq.write import to_fairseq
from avhubert.checkpoints.load import describe, load, load_encoder, load_recognizer
from avhubert.config.schema import DecodeConfig, DecoderConfig, ModelConfig
from avhubert.data.tokenizer import Tokenizer, train_tokenizer
from avhubert.errors import CheckpointError
from avhubert.model.encoder import AVHubert
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer

pytestmark = pytest.mark.quick

MODEL = {
    "visual_width": 4, "visual_blocks": [1, 1, 1, 1], "encoder_layers": 2, "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48, "encoder_attention_heads": 4, "conv_pos": 16, "conv_pos_groups": 4, "final_dim": 8,
}  # fmt: skip


PRETRAINED = {"steps": 12, "masking": {}, "data": "four speakers"}  # metadata


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the quick brown fox jumps over the lazy dog", "a wizard's job is to vex chumps"], 60)


@pytest.fixture(scope="module")
def places(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pretrained`, `recognizer`, `run` (a run directory), `pretrained.pt` and `recognizer.pt`: only to be read."""
    folder = tmp_path_factory.mktemp("places")
    encoder = AVHubert(ModelConfig(**MODEL, num_classes=[14, 9]))
    save_model(folder / "pretrained", encoder, metadata=ModelMetadata.from_dict(PRETRAINED))
    decoder = DecoderConfig(layers=1, ffn_embed_dim=16, attention_heads=4, ctc=True, vocab_size=tokenizer.vocab_size)
    recognizer = Recognizer.from_config(ModelConfig(**MODEL), decoder)
    recognizer.decode_settings = DecodeConfig(beam=7, lenpen=0.5)
    save_model(folder / "recognizer", recognizer, tokenizer.serialized, ModelMetadata(modalities=["av"], step=3))
    shutil.copytree(folder / "recognizer", folder / "run")
    (folder / "run" / "resolved.yaml").write_text("seed: 1\n", encoding="utf-8")
    (folder / "run" / "metrics.jsonl").write_text("{}\n", encoding="utf-8")
    (folder / "run" / "state").mkdir()
    (folder / "run" / "state" / "step_3.pt").write_bytes(b"the trainer's, which loading leaves alone")
    to_fairseq(folder / "pretrained", folder / "pretrained.pt")
    to_fairseq(folder / "recognizer", folder / "recognizer.pt")
    (folder / "recognizer.pth").write_bytes((folder / "recognizer.pt").read_bytes())
    return folder


@pytest.mark.parametrize("name", ["pretrained", "pretrained.pt"])
def test_a_pretrained_model(places: Path, name: str) -> None:
    model = load(places / name)
    assert isinstance(model, AVHubert)
    assert model.config == ModelConfig(**MODEL, num_classes=[14, 9])
    assert not model.training
    assert isinstance(load_encoder(str(places / name)), AVHubert)


@pytest.mark.parametrize("name", ["recognizer", "run", "recognizer.pt", "recognizer.pth"])
def test_a_recognizer(places: Path, name: str, tokenizer: Tokenizer) -> None:
    model = load(places / name)
    assert isinstance(model, Recognizer)
    assert not model.training
    assert model.tokenizer.serialized == tokenizer.serialized
    published = ".pt" in name  # which has no place for decoding settings, nor for a CTC head
    assert model.decode_settings == (DecodeConfig() if published else DecodeConfig(beam=7, lenpen=0.5))
    assert (model.ctc is None) == published
    assert isinstance(load_recognizer(str(places / name)), Recognizer)


@pytest.mark.parametrize("kind", ["pretrained", "recognizer"])
def test_a_directory_and_its_published_form_are_the_same_model(places: Path, kind: str) -> None:
    directory, published = load(places / kind).state_dict(), load(places / f"{kind}.pt").state_dict()
    assert {name for name in directory if not name.startswith("ctc.")} == published.keys()
    assert all(torch.equal(directory[name], tensor) for name, tensor in published.items())


def test_where_a_model_comes_from(places: Path) -> None:
    assert load(places / "pretrained").metadata.to_dict() == PRETRAINED
    assert load(places / "run").metadata == ModelMetadata(modalities=["av"], step=3)
    assert load(places / "recognizer.pt").metadata == ModelMetadata(
        converted_from="recognizer.pt", fine_tuned_on="audio, video"
    )


def test_a_run_directory_has_its_newest_weights(places: Path, tmp_path: Path) -> None:
    shutil.copytree(places / "run", tmp_path / "run")
    before = load(tmp_path / "run").state_dict()
    model = load(places / "recognizer")
    assert isinstance(model, Recognizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    save_model(tmp_path / "run", model, model.tokenizer.serialized)
    shutil.copytree(places / "recognizer", tmp_path / "run" / "best")
    newest, best = load(tmp_path / "run").state_dict(), load(tmp_path / "run" / "best").state_dict()
    assert torch.equal(newest["encoder.audio.bias"], before["encoder.audio.bias"] + 1)
    assert torch.equal(best["encoder.audio.bias"], before["encoder.audio.bias"])


@pytest.mark.parametrize("name", ["pretrained", "run", "pretrained.pt", "recognizer.pt"])
def test_loading_draws_no_random_numbers(places: Path, name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load(places / name)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["pretrained", "pretrained.pt"])
def test_a_pretrained_model_is_no_recognizer(places: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=r"pre-trained model without a decoder.*`avhubert finetune`") as raised:
        load_recognizer(places / name)
    assert str(raised.value).startswith(f"{places / name} is a pre-trained model")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["run", "recognizer.pt"])
def test_a_recognizer_is_no_pretrained_model(places: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="give the one that it was fine-tuned from") as raised:
        load_encoder(places / name)
    assert str(raised.value).startswith(f"{places / name} is a fine-tuned recognizer")
    assert "\n" not in str(raised.value)


def copied(name: str, damage: Callable[[Path], Any]) -> Callable[[Path, Path], None]:
    def make(places: Path, target: Path) -> None:
        shutil.copytree(places / name, target)
        damage(target)

    return make


def written(content: bytes) -> Callable[[Path, Path], Any]:
    return lambda places, target: target.write_bytes(content)


NO_MODELS: dict[str, tuple[str, Callable[[Path, Path], Any], str]] = {
    "nothing": ("x", lambda places, target: None, "does not exist; give a model directory"),
    "nothing, as a checkpoint": ("x.pt", lambda places, target: None, "does not exist; give"),
    "an empty folder": ("x", lambda places, target: target.mkdir(), "is a folder without a config.json; give"),
    "a folder called as a checkpoint": ("x.pt", lambda places, target: target.mkdir(), "folder without a config.json"),
    "a file of another kind": ("x.txt", written(b"words"), "is a file of another kind; give"),
    "the weights alone": (
        "x.safetensors",
        lambda places, target: shutil.copy(places / "run" / "model.safetensors", target),
        "is a file of another kind; give",
    ),
    "text as a checkpoint": ("x.pt", written(b"words"), "is damaged or not a checkpoint of torch"),
    "an empty checkpoint": ("x.pt", written(b""), "is damaged or not a checkpoint of torch"),
    "half a checkpoint": (
        "x.pt",
        lambda places, target: target.write_bytes((places / "recognizer.pt").read_bytes()[:100_000]),
        "is damaged or not a checkpoint of torch",
    ),
    "a checkpoint of something else": (
        "x.pt",
        lambda places, target: torch.save({"weight": torch.zeros(2)}, target),
        "is not a published AV-HuBERT checkpoint",
    ),
    "a folder of something else": (
        "x",
        lambda places, target: (
            target.mkdir(),
            (target / "config.json").write_text('{"hidden_size": 768}', encoding="utf-8"),
        ),
        "is not of a model directory: it has no 'format'",
    ),
    "no weights": ("x", copied("run", lambda d: (d / "model.safetensors").unlink()), "but no model.safetensors"),
    "damaged weights": (
        "x", copied("run", lambda d: (d / "model.safetensors").write_bytes(b"x" * 99)), "model.safetensors is damaged",
    ),
    "no tokenizer": (
        "x", copied("run", lambda d: (d / "tokenizer.model").unlink()), "a recognizer without a usable tokenizer",
    ),
    "a damaged tokenizer": (
        "x",
        copied("run", lambda d: (d / "tokenizer.model").write_bytes(b"x" * 99)),
        "a recognizer without a usable tokenizer: .* is not a SentencePiece model",
    ),
    "a tokenizer of another model": (
        "x",
        copied("run", lambda d: (d / "tokenizer.model").write_bytes(train_tokenizer(["a b c d e"], 12).serialized)),
        r"its tokenizer has \d+ symbols, its decoder \d+: they do not belong together",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_MODELS)
def test_what_is_no_model_is_named(places: Path, tmp_path: Path, name: str) -> None:
    called, make, sentence = NO_MODELS[name]
    make(places, tmp_path / called)
    for read in (load, load_encoder, load_recognizer, describe):
        with pytest.raises(CheckpointError, match=sentence) as raised:
            read(tmp_path / called)
        assert str(tmp_path / called) in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_description_of_a_pretrained_model(places: Path) -> None:
    told = describe(places / "pretrained")
    parameters = sum(parameter.numel() for parameter in load(places / "pretrained").parameters())
    assert told == {
        "kind": "pre-trained model",
        "parameters": f"{parameters:,}",
        "encoder": "2 layers of 32",
        "attention heads": 4,
        "visual front end": "width 4, blocks [1, 1, 1, 1]",
        "classes": "14, 9",
        "steps": 12,
        "data": "four speakers",
    }


def test_a_description_of_a_recognizer(places: Path, tokenizer: Tokenizer) -> None:
    told = describe(places / "run")
    assert told["kind"] == "recognizer"
    assert told["decoder"] == f"1 layers, {tokenizer.vocab_size} symbols"
    assert told["CTC head"] == "yes"
    assert told["decoding"] == "beam 7, length penalty 0.5"
    assert told["modalities"] == ["av"]
    assert "classes" not in told
    json.dumps(told)  # `avhubert` prints it
    published = describe(places / "recognizer.pt")
    assert published["CTC head"] == "no"
    assert published["converted_from"] == "recognizer.pt"


def test_loading_is_part_of_the_package(places: Path) -> None:
    assert isinstance(avhubert.load(places / "pretrained"), AVHubert)


@pytest.mark.parametrize("name", ["", None, 5])
def test_what_can_be_no_name_is_told_as_such(name: Any) -> None:
    with pytest.raises(CheckpointError, match=f"{name!r} is not the name of a model; give a model directory"):
        load(name)


def test_a_loaded_pretrained_model_is_no_recognizer_either(places: Path) -> None:
    with pytest.raises(CheckpointError, match="the model is a pre-trained model without a decoder"):
        avhubert.transcribe("talk.mp4", load(places / "pretrained"))  # type: ignore[call-overload]


POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 12345\n"
)
PAGE = "\n<!DOCTYPE html>\n<html><head><title>Hugging Face</title></head></html>\n"


@pytest.mark.parametrize("name", ["a.pt", "a.bin", "a"])
def test_files_that_stand_in_for_a_checkpoint_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER, encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"{name} is a Git LFS pointer, not the file itself; run `git lfs pull`"):
        load(tmp_path / name)
    (tmp_path / name).write_text(PAGE, encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=rf"{name} is a web page \(HTML\), not the file itself; download it again"
    ):
        load(tmp_path / name)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model", "config.json"])
def test_a_model_directory_cloned_without_git_lfs(places: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(places / "recognizer", tmp_path / "model")
    (tmp_path / "model" / name).write_text(POINTER, encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"{name} is a Git LFS pointer, not the file itself; run `git lfs pull`"):
        load(tmp_path / "model")
