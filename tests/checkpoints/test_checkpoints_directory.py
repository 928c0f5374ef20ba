from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from avhubert.checkpoints.config_file import read_config
from avhubert.checkpoints.directory import load_model, save_model
from avhubert.checkpoints.load import load
from avhubert.config.schema import DecodeConfig, DecoderConfig, PretrainModelConfig
from avhubert.data.tokenizer import Tokenizer
from avhubert.errors import CheckpointError, ConfigError
from avhubert.model.encoder import AVHubert
from avhubert.model.metadata import LabelSet, ModelMetadata
from avhubert.model.recognizer import Recognizer

pytestmark = pytest.mark.quick


@pytest.fixture
def directory(small, tmp_path) -> Path:
    save_model(tmp_path / "model", small(), metadata=ModelMetadata.from_dict({"data": "four | speakers", "steps": 12}))
    return tmp_path / "model"


def test_round_trip(small, batch, directory):
    model = small().eval()
    random = torch.get_rng_state()
    loaded = load_model(directory)
    assert torch.equal(torch.get_rng_state(), random)
    assert isinstance(loaded, AVHubert)
    assert not loaded.training
    assert loaded.config == model.config
    torch.testing.assert_close(loaded.extract_features(*batch), model.extract_features(*batch), atol=0, rtol=0)


def test_what_a_model_directory_holds(directory):
    assert sorted(path.name for path in directory.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    assert config["format"] == 1
    assert config["metadata"] == {"data": "four | speakers", "steps": 12}
    assert "decoder" not in config
    card = (directory / "README.md").read_text(encoding="utf-8")
    assert "| data | four / speakers |" in card
    assert "consent" in card
    assert re.search(r"Parameters \| 0\.\d M", card)


def test_other_files_stay_and_the_tokenizer_is_written(small, directory):
    (directory / "metrics.jsonl").write_text("{}", encoding="utf-8")
    save_model(directory, small(), tokenizer=b"pieces")
    assert (directory / "tokenizer.model").read_bytes() == b"pieces"
    assert (directory / "metrics.jsonl").exists()


def test_what_a_training_configuration_adds_is_not_stored(small, tmp_path):
    model = small()
    model.config = PretrainModelConfig(**vars(model.config), pretrained="elsewhere")
    save_model(tmp_path, model)
    assert read_config(tmp_path).model == small().config


def test_a_killed_save_leaves_the_old_model(small, directory, monkeypatch):
    before = (directory / "model.safetensors").read_bytes()

    def full(state, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("avhubert.checkpoints.writing.save_file", full)
    with pytest.raises(OSError, match="no space"):
        save_model(directory, small(encoder_layers=1))
    assert (directory / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in directory.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    load_model(directory)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_one_flipped_bit_of_the_weights_is_detected(directory):
    path = directory / "model.safetensors"
    intact = path.read_bytes()
    for position in (len(intact) // 2, len(intact) - 1):
        path.write_bytes(intact)
        flip(path, position)
        load_file(path)  # safetensors does not notice
        with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged: its numbers are not those"):
            load_model(directory)


def test_equal_models_give_equal_files(small, tmp_path):
    for number in range(8):  # safetensors writes the names of the metadata in a random order
        save_model(tmp_path / str(number), small())
    assert len({(tmp_path / str(number) / "model.safetensors").read_bytes() for number in range(8)}) == 1


def test_weights_without_hashes_are_read(directory):
    path = directory / "model.safetensors"
    save_file(load_file(path), path, metadata={"format": "pt"})
    load_model(directory)


def test_a_changed_tokenizer_is_detected(directory, tmp_path, tokenizer):
    heads = DecoderConfig(layers=1, ffn_embed_dim=16, attention_heads=2, vocab_size=tokenizer.vocab_size)
    recognizer = Recognizer.from_config(read_config(directory).model, heads)
    save_model(tmp_path, recognizer, tokenizer.serialized)
    load(tmp_path)
    content = tokenizer.serialized
    position = content.index(b"quick") if b"quick" in content else content.index("▁".encode()) + 4
    flip(tmp_path / "tokenizer.model", position)
    Tokenizer(tmp_path / "tokenizer.model")  # SentencePiece does not notice
    with pytest.raises(CheckpointError, match=r"tokenizer\.model is damaged, or not the tokenizer that was saved with"):
        load(tmp_path)


def test_half_precision_weights_are_read(directory):
    state = load_file(directory / "model.safetensors")
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_file(halves, directory / "model.safetensors")
    assert load_model(directory).audio.weight.dtype == torch.float32


def edit_config(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        content = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        change(content)
        (directory / "config.json").write_text(json.dumps(content), encoding="utf-8")

    return edit


def edit_weights(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        state = load_file(directory / "model.safetensors")
        change(state)
        save_file(state, directory / "model.safetensors")

    return edit


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda d: (d / "config.json").unlink(), "is not a model directory: it has no config.json"),
        (lambda d: (d / "config.json").write_text("{", encoding="utf-8"), "is not valid JSON"),
        (lambda d: (d / "config.json").write_text("[]", encoding="utf-8"), "is not of a model directory"),
        (lambda d: (d / "model.safetensors").unlink(), "has a config.json but no model.safetensors"),
        (lambda d: (d / "model.safetensors").write_bytes(b"rubbish" * 9), "model.safetensors is damaged"),
        (edit_config(lambda c: c.update(format=2)), "has format 2, this version reads format 1"),
        (edit_config(lambda c: c.pop("model")), "the key 'model' is missing"),
        (edit_config(lambda c: c["model"].pop("conv_pos")), "under 'model' the key 'conv_pos' is missing"),
        (edit_config(lambda c: c["model"].update(conv_poss=3)), "unknown key 'model.conv_poss'"),
        (edit_config(lambda c: c["model"].update(conv_pos="long")), "model.conv_pos=long must be a whole number"),
        (edit_config(lambda c: c["model"].update(encoder_attention_heads=5)), "must be a multiple of"),
        (edit_config(lambda c: c.update(extra=1)), "unknown key 'extra'"),
        (edit_config(lambda c: c.update(decoder={"layers": 1})), "under 'decoder' the key 'ffn_embed_dim', .* missing"),
        (edit_weights(lambda s: s.pop("audio.bias")), "lacks tensor 'audio.bias'"),
        (edit_weights(lambda s: s.update(more=torch.zeros(1))), "has the unknown tensor 'more'"),
        (
            edit_weights(lambda s: s.update({"audio.bias": torch.zeros(31)})),
            r"audio.bias is \[31\], config.json asks for \[32\]",
        ),
    ],
)
def test_wrong_directories_are_named(directory, damage, sentence):
    damage(directory)
    with pytest.raises(CheckpointError, match=sentence) as raised:
        load_model(directory)
    assert "\n" not in str(raised.value)


def test_a_place_that_cannot_be_written(small, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot write to the output folder"):
        save_model(tmp_path / "file", small())


def test_a_recognizer_comes_back_as_one(small, batch, tmp_path):
    recognizer = Recognizer.from_encoder(
        small(num_classes=[]), DecoderConfig(layers=1, ffn_embed_dim=16, attention_heads=4, ctc=True, vocab_size=11)
    ).eval()
    recognizer.decode_settings = DecodeConfig(beam=7, lenpen=0.5)
    save_model(tmp_path, recognizer, tokenizer=b"pieces", metadata=ModelMetadata(extra={"valid accuracy": 0.9}))
    loaded = load_model(tmp_path)
    assert isinstance(loaded, Recognizer)
    assert loaded.decode_settings == recognizer.decode_settings
    assert loaded.decoder_config == recognizer.decoder_config
    torch.testing.assert_close(loaded.encode(*batch), recognizer.encode(*batch), atol=0, rtol=0)
    for name, tensor in recognizer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert "1 layers and CTC, 11 tokens" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_decoding_settings_that_came_later_stand_at_their_defaults(small, tmp_path):
    """A model directory written before a setting was known."""
    recognizer = Recognizer.from_encoder(
        small(num_classes=[]), DecoderConfig(layers=1, ffn_embed_dim=16, attention_heads=4, vocab_size=11)
    )
    recognizer.decode_settings = DecodeConfig(beam=7, ctc_weight=0.5)
    save_model(tmp_path, recognizer)
    edit_config(lambda c: c["decode"].pop("ctc_weight"))(tmp_path)
    assert load_model(tmp_path).decode_settings == DecodeConfig(beam=7)
    edit_config(lambda c: c["decode"].update(beem=3))(tmp_path)
    with pytest.raises(CheckpointError, match=r"unknown key 'decode\.beem'"):
        load_model(tmp_path)


def test_one_label_set_as_it_was_written_before_there_could_be_several(directory):
    content = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    one = {"rate": 25, "clusters": 4, "centroids": "c"}
    (directory / "config.json").write_text(json.dumps(content | {"metadata": {"labels": one}}), encoding="utf-8")
    assert read_config(directory).metadata.to_dict() == {"labels": [one]}
    (directory / "config.json").write_text(json.dumps(content | {"metadata": "said"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="'metadata' does not hold names and values"):
        read_config(directory)


def test_the_card_says_what_is_known_and_what_is_not(small, tmp_path):
    results = [
        {"modality": "v", "snr": None, "wer": 42.25, "interval": [40.0, 44.5], "clips": 54, "data": "x/433h"},
        {"modality": "av", "snr": -5, "noise": "babble", "wer": 12.0, "fault": "blur"},
    ]
    labels = {"rate": 25, "clusters": 50, "source": "iter1", "layer": 9, "centroids": "c" * 64}
    metadata = ModelMetadata(license="mit", data="lrs3", results=results, labels=[LabelSet.from_dict(labels)])
    save_model(tmp_path, small(), metadata=metadata)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert card.startswith('---\nlicense: "mit"\nlibrary_name: avhubert\npipeline_tag: feature-extraction\ntags:\n')
    for line in (
        "| data | lrs3 |",
        "| labels | clusters 50, source iter1, layer 9, rate 25 |",
        "| 433h, test | v | clean | 42.2 | 40.0 to 44.5 | 54 |",
        "| unknown, test | av | -5 dB babble, video: blur | 12.0 |  |  |",
        "**Licence.** These weights: mit. The training data has its own terms.",
    ):
        assert line in card.splitlines()
    save_model(tmp_path, small(), name="org/name")
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert 'license: "unknown"' in card
    assert "| data | unknown |" in card
    assert "Not stated: ask the author of the model" in card
    assert 'avhubert.load("org/name")' in card
    assert "Results" not in card
    save_model(tmp_path, small(), metadata=ModelMetadata(converted_from="base.pt"))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert 'license: "other"' in card
    assert "keep its licence" in card
