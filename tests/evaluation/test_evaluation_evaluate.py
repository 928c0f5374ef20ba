"""Evaluation of a data directory: conditions, files, reproducibility and errors."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from avhubert.checkpoints.directory import save_model
from avhubert.cli.app import main
from avhubert.config.schema import DecodeConfig, DecoderConfig, ModelConfig
from avhubert.data.audio import write_wav
from avhubert.data.manifest import read_manifest, write_manifest
from avhubert.data.tokenizer import Tokenizer
from avhubert.errors import ConfigError, DataError, MediaError
from avhubert.evaluation.conditions import Condition, conditions
from avhubert.evaluation.evaluate import evaluate
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer

SIZES = ModelConfig(
    visual_width=8, visual_blocks=[1, 1, 1, 1], encoder_layers=1, encoder_embed_dim=32, encoder_ffn_embed_dim=64,
    encoder_attention_heads=2, conv_pos=8, conv_pos_groups=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tokenizer = Tokenizer(data_dir / "tokenizer.model")
    heads = DecoderConfig(layers=1, ffn_embed_dim=64, attention_heads=2, ctc=True, vocab_size=tokenizer.vocab_size)
    recognizer = Recognizer.from_config(SIZES, heads)
    recognizer.decode_settings = DecodeConfig(beam=2, max_len_a=0.2)
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, recognizer, tokenizer.serialized, ModelMetadata(modalities=["a", "v", "av"]))
    return folder


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for number in range(3):
        write_wav(folder / f"{number}.wav", rng.normal(0, 900, 40_000).astype(np.int16))
    (folder / "test.tsv").write_text("".join(f"{number}.wav\n" for number in range(3)), encoding="utf-8")
    return folder


def test_conditions_depend_on_the_streams_of_a_modality() -> None:
    listed = conditions(["av", "v"], ["babble", "music"], [None, 0, -5], ["blur"])
    assert [str(condition) for condition in listed] == [
        "av, clean", "av, 0 dB babble", "av, -5 dB babble", "av, 0 dB music", "av, -5 dB music", "av, blur",
        "v, clean", "v, blur",
    ]  # fmt: skip
    assert conditions(["a"], [None], [0], ["blur"]) == [Condition("a", None, 0)]
    assert len({condition.file_name for condition in listed}) == len(listed)


def test_a_sweep_from_the_command_line(model: Path, data_dir: Path, noise: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", str(model), str(data_dir), "--noise", str(noise), "--snr", "clean", "--snr", "-5"]
    arguments += [
        "--modality",
        "av",
        "--modality",
        "a",
        "--modality",
        "v",
        "--fault",
        "offset:3",
        "--beam",
        "2",
        "--nbest",
        "2",
    ]
    for run in ("first", "second"):
        assert main([*arguments, "--out", str(tmp_path / run)]) == 0
    results = json.loads((tmp_path / "first" / "results.json").read_text(encoding="utf-8"))
    names = [row["condition"] for row in results["results"]]
    assert names == ["av, clean", "av, -5 dB", "av, offset:3", "a, clean", "a, -5 dB", "v, clean", "v, offset:3"]
    for row in results["results"]:
        assert row["clips"] == 2
        if row["snr"] is not None:
            assert np.allclose(row["measured_snr"], row["snr"], atol=0.1)
    assert results["decode"]["nbest"] == 2
    assert len(results["model_sha256"]) == len(results["noise_sha256"]["noise"]) == 64
    written = json.loads((tmp_path / "first" / "hypotheses-av-clean.json").read_text(encoding="utf-8"))
    assert all(len(row["others"]) <= 1 for row in written)
    assert any(row["others"] for row in written)
    assert all(set(row["stages"]) == {"reading", "encoding", "search"} for row in results["results"])
    files = sorted(path.name for path in (tmp_path / "first").glob("hypotheses-*.json"))
    assert len(files) == len(names)
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    page = (tmp_path / "first" / "report.html").read_text(encoding="utf-8")
    assert "Two streams against one" in page
    assert "<ins>" in page or "<del>" in page
    assert "data:image/png" in page
    pair = [str(tmp_path / "first" / f"hypotheses-{name}-clean.json") for name in ("a", "v")]
    assert main(["compare", *pair]) == 0


def test_decode_settings_replace_those_of_the_model(model: Path, data_dir: Path) -> None:
    first = evaluate(str(model), data_dir, decode={"ctc_weight": 1.0}, quiet=True)[0]
    second = evaluate(str(model), data_dir, decode={"ctc_weight": 0.0}, quiet=True)[0]
    assert [u.score for u in first.utterances] != [u.score for u in second.utterances]


def test_texts_are_normalised(model: Path, data_dir: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(data_dir, tmp_path / "data"))
    (data / "test.wrd").write_text("Ba, mo!\nba - mo\n", encoding="utf-8")
    result = evaluate(str(model), data, normalise="plain", out=tmp_path / "out", quiet=True)[0]
    assert [u.reference for u in result.utterances] == ["ba mo", "ba mo"]
    assert json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["normalise"] == "plain"
    (data / "test.wrd").write_text("ba mo\n...\n", encoding="utf-8")
    with pytest.raises(DataError, match="the reference of clip 'test1' is empty"):
        evaluate(str(model), data, normalise="plain")


def test_errors_of_the_data_directory(
    model: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="unknown video corruption"):
        evaluate(str(model), data_dir, faults=["blurred"])
    data = Path(shutil.copytree(data_dir, tmp_path / "data"))
    clips = read_manifest(data / "test.tsv")

    def changed(**values: object) -> None:
        write_manifest(data / "test.tsv", [dataclasses.replace(clips[0], **values), *clips[1:]], data)

    changed(video_frames=0, audio_samples=clips[0].audio_samples)
    with pytest.raises(DataError, match=r"1 of 2 clips have no stream of modality 'v', among them 'test0'"):
        evaluate(str(model), data, modality="v")
    evaluate(str(model), data, modality="av", quiet=True)  # with its audio alone
    changed(video_frames=15_000)
    with pytest.raises(DataError, match=r"'test0' has 15000 frames \(600 s\), too many"):
        evaluate(str(model), data)
    changed(video_frames=0, audio_samples=0)
    with pytest.raises(DataError, match="'test0' has no frames"):
        evaluate(str(model), data)
    changed(video=tmp_path / "gone.mp4")
    with pytest.raises(MediaError, match="clip 'test0'"):
        evaluate(str(model), data, quiet=True)
    write_manifest(data / "test.tsv", clips, data)
    (data / "test.wrd").write_text("ba mo\n\n", encoding="utf-8")
    with pytest.raises(DataError, match="the reference of clip 'test1' is empty"):
        evaluate(str(model), data)
    (data / "test.wrd").unlink()
    with pytest.raises(DataError, match=r"transcripts .* is missing"):
        evaluate(str(model), data)
    write_manifest(data / "test.tsv", [], data)
    with pytest.raises(DataError, match="lists no clips"):
        evaluate(str(model), data)
    two = ["--noise", "x", "--noise", "y", "--snr", "0"]
    assert main(["evaluate", str(model), str(data), *two]) == 2
    assert "need a name each" in capsys.readouterr().err


def test_conditions_that_affect_no_modality_are_an_error(model: Path, data_dir: Path, noise: Path) -> None:
    with pytest.raises(ConfigError, match="modality 'v' does not use; add 'a' or 'av'"):
        evaluate(str(model), data_dir, modality="v", noise=noise, snrs=[0])
    with pytest.raises(ConfigError, match="modality 'a' does not use; add 'v' or 'av'"):
        evaluate(str(model), data_dir, modality="a", faults=["blur"])


def test_device_and_precision_are_recorded(model: Path, data_dir: Path, tmp_path: Path) -> None:
    evaluate(str(model), data_dir, out=tmp_path / "out", device="cpu", precision="bf16", quiet=True)
    assert json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["compute"] == "cpu, bf16"
    with pytest.raises(ConfigError, match="unknown device 'tpu'"):
        evaluate(str(model), data_dir, device="tpu")
    with pytest.raises(ConfigError, match=r"decode: .*beams"):
        evaluate(str(model), data_dir, decode={"beams": 3})


def test_the_library_logs_results_and_prints_nothing(
    model: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="avhubert.evaluation")
    (result,) = evaluate(str(model), data_dir, modality="a")
    assert capsys.readouterr().out == ""
    assert [record.getMessage() for record in caplog.records if record.name == "avhubert.evaluation.evaluate"] == [
        str(result)
    ]
    assert str(result).startswith("a, clean: WER ")
