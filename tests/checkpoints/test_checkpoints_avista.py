"""AVista folders that this test makes: what is read, what is refused, and that nothing in them is executed."""

from __future__ import annotations

import json
import os
import pickle
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import avhubert
from avhubert.checkpoints.avista.names import DIRECTION, EMBEDDING, ENCODER, GAIN, OUTPUT, POSITIONS
from avhubert.checkpoints.avista.read import read_licence
from avhubert.checkpoints.card import licence
from avhubert.checkpoints.config_file import read_config
from avhubert.checkpoints.conversion import convert
from avhubert.cli.app import main
from avhubert.constants import UNK
from avhubert.decode.beam_search import beam_search
from avhubert.errors import CheckpointError
from avhubert.model.encoder import AVHubert
from avhubert.model.recognizer import Recognizer
from tests.avista_folder import LONGEST_TEXT, TEXTS, write_pretrained, write_recognizer

pytestmark = pytest.mark.quick

Change = Callable[[Path], Any]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_recognizer(tmp_path / "avista")


# --------------------------------------------------------------------------- what is read
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("safetensors", [True, False])
def test_both_files_and_both_output_embeddings_are_read(tmp_path: Path, shared: bool, safetensors: bool) -> None:
    model = avhubert.load(write_recognizer(tmp_path / "avista", shared, safetensors))
    assert isinstance(model, Recognizer)
    assert (model.decoder.output is None) == shared
    assert model.tokenizer is not None
    assert [model.tokenizer.decode(model.tokenizer.encode(text)) for text in TEXTS] == list(TEXTS)
    assert (model.decode_settings.beam, model.decode_settings.stop) == (5, "best")
    assert model.metadata.license == "apache-2.0"


@pytest.mark.parametrize("left_out", [EMBEDDING, OUTPUT])
def test_shared_embedding_may_have_either_name(folder: Path, left_out: str) -> None:
    before = avhubert.load(folder).state_dict()
    change_weights(folder, lambda state: state.pop(left_out))
    after = avhubert.load(folder).state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_older_names_of_the_position_convolution_are_read(folder: Path) -> None:
    before = avhubert.load(folder).state_dict()

    def rename(state: dict[str, Tensor]) -> None:
        base = ENCODER + "encoder.pos_conv_embed.conv"
        state[f"{base}.weight_g"] = state.pop(ENCODER + GAIN)
        state[f"{base}.weight_v"] = state.pop(ENCODER + DIRECTION)

    change_weights(folder, rename)
    after = avhubert.load(folder).state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_half_precision_is_converted(folder: Path) -> None:
    change_weights(folder, lambda state: state.update({name: x.half() for name, x in state.items() if x.dim() == 2}))
    assert {x.dtype for x in avhubert.load(folder).state_dict().values()} == {torch.float32, torch.int64}


def test_pretrained_model_has_features_and_no_decoder(tmp_path: Path) -> None:
    model = avhubert.load(write_pretrained(tmp_path / "avista"))
    assert isinstance(model, AVHubert)
    assert model.extract_features(audio=torch.zeros(1, 104, 5)).shape == (1, 5, 16)


def test_post_norm_encoder_is_read(tmp_path: Path) -> None:
    model = avhubert.load(write_pretrained(tmp_path / "avista", do_stable_layer_norm=False))
    assert isinstance(model, AVHubert)
    assert not model.config.layer_norm_first


def test_converted_directory_keeps_options_inputs_and_licence(folder: Path, tmp_path: Path) -> None:
    assert convert(folder, tmp_path / "ours") == []
    config = read_config(tmp_path / "ours")
    assert config.decoder is not None
    assert (config.decoder.activation, config.decoder.positions, config.decoder.start) == ("gelu", "interleaved", "<s>")
    assert config.decoder.longest_text == LONGEST_TEXT
    assert config.metadata.preparation().crop == "nose-to-chin"
    assert (licence(config.metadata), config.metadata.source) == ("apache-2.0", "avista")
    assert 'license: "apache-2.0"' in (tmp_path / "ours" / "README.md").read_text(encoding="utf-8")


def test_card_without_licence_is_reported(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("# A model\n", encoding="utf-8")
    assert "names no licence" in convert(folder, tmp_path / "ours")[0]
    assert licence(read_config(tmp_path / "ours").metadata) == "unknown"


@pytest.mark.parametrize(
    "text", ["", "---\n", "---\nlicense: [a, b]\n---\n", "---\n- 1\n---\n", "---\n{:\n---\n", "---\n&a [*a]\n---\n"]
)
def test_damaged_card_has_no_licence(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert read_licence(tmp_path / "README.md") is None


def test_command_converts_and_describes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["convert", str(folder), str(tmp_path / "ours")])
    main(["convert", "--to-avista", str(tmp_path / "ours"), str(tmp_path / "theirs")])
    assert sorted(file.name for file in (tmp_path / "theirs").iterdir()) == sorted(f.name for f in folder.iterdir())
    main(["info", str(folder)])
    assert "apache-2.0" in capsys.readouterr().out


def test_vocabulary_with_capital_letters_keeps_the_case_of_a_text(folder: Path, tmp_path: Path) -> None:
    before = avhubert.load(folder)
    assert isinstance(before, Recognizer)
    assert before.tokenizer is not None
    assert before.tokenizer.lower_case

    def capital(content: dict[str, Any]) -> None:
        content["model"]["vocab"][-1][0] = "NHK"

    tokenizer(capital)(folder)
    convert(folder, tmp_path / "ours")
    for source in (folder, tmp_path / "ours"):
        model = avhubert.load(source)
        assert isinstance(model, Recognizer)
        assert model.tokenizer is not None
        assert model.tokenizer.decode(model.tokenizer.encode("今日はNHK")) == "今日はNHK"
        assert UNK in model.tokenizer.encode("nhk")


def test_text_is_never_longer_than_the_decoder_allows(folder: Path) -> None:
    model = avhubert.load(folder)
    assert isinstance(model, Recognizer)
    model.decoder.embedding.weight.data[2] = -100 * model.decoder.norm.bias.data.sign()  # </s> is unlikely
    encoded = torch.zeros(1, 200, 16)
    for stop in ("first", "best"):
        settings = replace(model.decode_settings, beam=2, max_len_b=255, stop=stop)
        assert (
            max(len(hypothesis.tokens) for hypothesis in beam_search(model, encoded, None, settings)[0]) <= LONGEST_TEXT
        )


# --------------------------------------------------------------------------- what is refused
def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    path = folder / "pytorch_model.bin"
    state = dict(torch.load(path))
    change(state)
    torch.save(state, path)


def weights(change: Callable[[dict[str, Tensor]], Any]) -> Change:
    return lambda folder: change_weights(folder, change)


def config(**values: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")

    return change


def tokenizer(change: Callable[[dict[str, Any]], Any]) -> Change:
    def apply(folder: Path) -> None:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return apply


def preprocessing(**values: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")

    return change


class Calls:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def calling_pickle(folder: Path) -> None:
    with open(folder / "pytorch_model.bin", "wb") as file:
        pickle.dump({"a": Calls(f"touch {folder / 'executed'}")}, file)


def calling_archive(folder: Path) -> None:
    torch.save({"a": Calls(f"touch {folder / 'executed'}")}, folder / "pytorch_model.bin")


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def without(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def both_conversions(state: dict[str, Tensor]) -> None:
    state[ENCODER + "encoder.pos_conv_embed.conv.weight_g"] = state[ENCODER + GAIN]


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
REFUSED: dict[str, tuple[Change, str]] = {
    "pickle that calls": (calling_pickle, "pytorch_model.bin"),
    "archive whose pickle calls": (calling_archive, "system"),
    "LFS pointer as weights": (text("pytorch_model.bin", POINTER), "Git LFS pointer"),
    "LFS pointer as safetensors": (text("model.safetensors", POINTER), "Git LFS pointer"),
    "LFS pointer as tokenizer": (text("tokenizer.json", POINTER), "Git LFS pointer"),
    "LFS pointer as configuration": (text("config.json", POINTER), "Git LFS pointer"),
    "web page as weights": (text("pytorch_model.bin", "<!DOCTYPE html><html></html>"), "web page"),
    "damaged safetensors": (text("model.safetensors", "x" * 100), "is damaged"),
    "no weights": (without("pytorch_model.bin"), "neither model.safetensors nor pytorch_model.bin"),
    "no tokenizer": (without("tokenizer.json"), "a recognizer without its tokenizer.json"),
    "missing vocabulary row": (
        weights(lambda state: [state.update({name: state[name][:-1]}) for name in (EMBEDDING, OUTPUT)]),
        "vocab_size=",
    ),
    "vocabulary row of the tokenizer is missing": (
        tokenizer(lambda content: content["model"]["vocab"].pop()),
        "they do not belong together",
    ),
    "embeddings that should be shared differ": (
        weights(lambda state: state.update({OUTPUT: state[OUTPUT] + 1})),
        "differ, but share_decoder_input_output_embed is true",
    ),
    "separate embedding is missing": (
        lambda folder: (
            (
                config(share_decoder_input_output_embed=False)(folder),
                change_weights(folder, lambda s: s.pop(OUTPUT)),
            )
        ),
        "lacks tensor lm_head.weight",
    ),
    "other width": (config(encoder_embed_dim=32, decoder_embed_dim=32), "its configuration asks for"),
    "other number of layers": (config(encoder_layers=2), "lacks tensors"),
    "more layers than tensors": (config(encoder_layers=10**6), "its tensors are fewer"),
    "negative size": (config(encoder_layers=-1), "encoder_layers=-1"),
    "size as text": (config(encoder_layers="2"), "must have the type int"),
    "decoder of another width": (config(decoder_embed_dim=8), "has to be equal"),
    "post-norm": (config(do_stable_layer_norm=False), "layer norms after its blocks, is not supported"),
    "learned positions": (config(decoder_learned_pos=True), "decoder_learned_pos=true is not supported"),
    "other activation": (config(activation_fn="relu"), "activation_fn=relu is not supported"),
    "another port's type": (config(model_type="av_hubert"), "a model of another library .*'av_hubert'"),
    "another port's architecture": (config(architectures=["AVHubertForCTC"]), "of another library .*AVHubertForCTC"),
    "no special symbols": (config(bos_token_id=None), "three ids of the vocabulary"),
    "special symbols of other ids": (config(bos_token_id=5), "has the id .* in config.json 5"),
    "unknown tensor": (weights(lambda state: state.update(extra=torch.zeros(2))), "unknown tensor extra"),
    "missing tensor": (weights(lambda state: state.pop("decoder.layer_norm.bias")), "lacks tensor decoder.layer_norm"),
    "position table of other numbers": (
        weights(lambda state: state.update({POSITIONS: state[POSITIONS] * 2})),
        "does not hold sinusoids",
    ),
    "position table of another length": (config(max_target_positions=64), "its configuration asks for"),
    "integers as weights": (
        weights(lambda state: state.update({"decoder.layer_norm.bias": torch.zeros(16, dtype=torch.int64)})),
        "are mixed up in decoder.layer_norm.bias",
    ),
    "numbers of an unknown type": (
        weights(lambda state: state.update({"decoder.layer_norm.bias": torch.zeros(16, dtype=torch.int8)})),
        "does not read the numbers of decoder.layer_norm.bias",
    ),
    "position convolution twice": (weights(both_conversions), "under two names"),
    "weights in several files": (
        lambda folder: (folder / "pytorch_model.bin").rename(folder / "pytorch_model.bin.index.json"),
        "in several files",
    ),
    "something else than tensors": (weights(lambda state: state.update(epoch=3)), "not a tensor with a name: epoch"),
    "BPE": (tokenizer(lambda content: content["model"].update(type="BPE")), "only 'Unigram' is read"),
    "byte fallback": (tokenizer(lambda content: content["model"].update(byte_fallback=True)), "byte_fallback"),
    "unknown normalisation": (
        tokenizer(lambda content: content.update(normalizer={"type": "Lowercase"})),
        "normalises text by 'Lowercase'",
    ),
    "unknown splitting": (
        tokenizer(lambda content: content.update(pre_tokenizer={"type": "ByteLevel"})),
        "splits text by 'ByteLevel'",
    ),
    "piece twice": (
        tokenizer(lambda content: content["model"]["vocab"].__setitem__(1, content["model"]["vocab"][2])),
        "has a piece twice",
    ),
    "score that is no number": (
        tokenizer(lambda content: content["model"]["vocab"][1].__setitem__(1, float("nan"))),
        "the score of entry 1",
    ),
    "unk_id outside": (tokenizer(lambda content: content["model"].update(unk_id=999)), "unk_id=999"),
    "added symbol": (
        tokenizer(lambda content: content["added_tokens"].append({"id": 999, "content": "<mask>"})),
        "added symbol '<mask>' is not supported",
    ),
    "damaged normalisation": (
        tokenizer(lambda content: content.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "?"})),
        "precompiled_charsmap is damaged",
    ),
    "other sampling rate": (preprocessing(sr=8000), "sr=8000 is not supported"),
    "other landmarks": (preprocessing(landmark_indices=[1, 2, 3, 4]), "landmark_indices="),
    "other gray levels": (
        preprocessing(transforms=[{"transforms_type": "Normalize", "mean": "[0.5]", "std": "[0.165]"}]),
        r"mean \[0.5\], which is not supported",
    ),
    "configuration is no JSON": (text("config.json", "{"), "not valid JSON"),
    "configuration is a list": (text("config.json", "[]"), "does not hold names and values"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_odd_folder_is_refused_with_one_sentence(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, message = REFUSED[name]
    change(folder)
    with pytest.raises(CheckpointError, match=message):
        avhubert.load(folder)
    assert main(["info", str(folder)]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert shown.count("\n") == 1
    assert not (folder / "executed").exists()


def test_code_of_the_folder_is_not_run(folder: Path) -> None:
    (folder / "modeling_avhubert.py").write_text(f"open({str(folder / 'executed')!r}, 'w')\n", encoding="utf-8")
    avhubert.load(folder)
    assert not (folder / "executed").exists()


def test_model_directory_of_this_package_is_not_converted(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "ours")
    with pytest.raises(CheckpointError, match="is a model directory already"):
        convert(tmp_path / "ours", tmp_path / "again")


def test_published_format_has_no_such_decoder(folder: Path, tmp_path: Path) -> None:
    from avhubert.checkpoints.fairseq.write import to_fairseq

    convert(folder, tmp_path / "ours")
    with pytest.raises(CheckpointError, match="the published format has no decoder with activation=gelu"):
        to_fairseq(tmp_path / "ours", tmp_path / "theirs.pt")


def test_only_converted_directories_become_folders_again(folder: Path, tmp_path: Path) -> None:
    from avhubert.checkpoints.avista.write import to_avista

    convert(folder, tmp_path / "ours")
    (tmp_path / "ours" / "avista.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="convert the AVista folder again"):
        to_avista(tmp_path / "ours", tmp_path / "theirs")
    (tmp_path / "ours" / "avista.safetensors").unlink()
    with pytest.raises(CheckpointError, match="was not converted from an AVista folder"):
        to_avista(tmp_path / "ours", tmp_path / "theirs")
