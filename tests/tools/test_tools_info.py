"""`avhubert info`: what a path is, and one sentence for what is none of ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from avhubert.cli.app import main
from avhubert.config.schema import DecodeConfig, DecoderConfig, ModelConfig
from avhubert.data.audio import write_wav
from avhubert.data.media import StreamChoice
from avhubert.data.tokenizer import train_tokenizer
from avhubert.data.video import write_video
from avhubert.errors import CheckpointError, DataError
from avhubert.model.encoder import AVHubert
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer
from avhubert.tools.info import describe
from tests.data.recordings import Recording, audio_file, break_packets, speech

pytestmark = pytest.mark.quick

SIZES = ModelConfig(
    visual_width=4, visual_blocks=[1, 1, 1, 1], encoder_layers=1, encoder_embed_dim=16, encoder_ffn_embed_dim=16,
    encoder_attention_heads=2, conv_pos=4, conv_pos_groups=2,
)  # fmt: skip


@pytest.fixture
def recognizer(tmp_path: Path) -> Path:
    tokenizer = train_tokenizer(["the quick brown fox jumps over the lazy dog", "a wizard's job is to vex"], 40)
    decoder = DecoderConfig(layers=1, ffn_embed_dim=16, attention_heads=2, vocab_size=tokenizer.vocab_size)
    model = Recognizer.from_config(SIZES, decoder)
    model.tokenizer, model.decode_settings = tokenizer, DecodeConfig(beam=7)
    model.metadata = ModelMetadata(stage="fine-tuning", step=3, modalities=["av", "v"])
    model.save_pretrained(tmp_path / "recognizer")
    return tmp_path / "recognizer"


def test_damage_and_streams_of_a_recording_are_described(tmp_path: Path) -> None:
    path = audio_file(tmp_path / "talk.m4a", speech(4), "aac")
    break_packets(path, range(20, 22))
    assert describe(path)["warning 1"] == "2 damaged packets of the audio were skipped at 1.2 s (0.13 s lost)"
    with Recording(tmp_path / "two.mkv") as recording:
        streams = [recording.audio_stream("flac") for _ in range(2)]
        recording.write_audio(streams[0], 0 * speech(4))
        recording.write_audio(streams[1], speech(4))
    assert "stream 1 is read" in str(describe(tmp_path / "two.mkv")["warning 1"])
    assert "warning 1" not in describe(tmp_path / "two.mkv", StreamChoice(audio=1))


def test_a_recognizer(recognizer: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["info", str(recognizer)]) == 0
    told = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    told = {name: value.strip() for name, value in told.items()}
    assert told["kind"] == "recognizer"
    assert told["decoding"] == "beam 7, length penalty 1"
    assert told["modalities"] == "av, v"
    assert told["tokenizer"].startswith(f"{told['decoder'].split()[2]} symbols: ▁")


def test_a_pretrained_model(tmp_path: Path) -> None:
    model = AVHubert(SIZES)
    labels = {"rate": 25, "clusters": 50, "source": "runs/iter1", "layer": 9, "centroids": "c" * 64, "files": {}}
    label_sets = [labels, labels | {"source": "mfcc", "layer": None}]
    model.metadata = ModelMetadata.from_dict({"labels": label_sets, "masking": {"prob_audio": 0.5}})
    model.save_pretrained(tmp_path / "model")
    told = describe(tmp_path / "model")
    assert told["kind"] == "pre-trained model"
    assert told["labels"] == "clusters 50, source runs/iter1, layer 9, rate 25; clusters 50, source mfcc, rate 25"
    assert told["masking"] == "prob_audio 0.5"


def test_a_run(recognizer: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(recognizer, run)
    (run / "resolved.yaml").write_text(
        "seed: 4\ndata: {dir: data/30h, labels: null}\nmodel: {pretrained: runs/iter2}\n"
        "train: {max_steps: 900, frames_per_step: 400}\n",
        encoding="utf-8",
    )
    lines = [
        {"step": 20, "split": "valid", "loss": 2.5, "seconds": 1.0},
        {"step": 30, "split": "train", "loss": 2.25, "accuracy": 0.5, "seconds": 2.0},
    ]
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4', encoding="utf-8"
    )
    (run / "state").mkdir()
    (run / "state" / "step_30.pt").touch()
    told = describe(run)
    assert told["kind"] == "run of fine-tuning"
    assert told["step"] == "30 of 900"
    assert told["data"] == "data/30h"
    assert told["pretrained"] == "runs/iter2"
    assert told["train, step 30"] == "loss 2.25, accuracy 0.5"
    assert told["valid, step 20"] == "loss 2.5"
    assert told["unreadable lines of metrics.jsonl"] == 1
    assert told["states"] == "step_30"
    assert told["model decoding"] == "beam 7, length penalty 1"
    assert "labels" not in told
    for path in run.iterdir():  # just begun
        if path.name != "resolved.yaml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert describe(run)["step"] == "0 of 900"
    assert describe(run)["states"] == "none"
    settings = (run / "resolved.yaml").read_text(encoding="utf-8")
    (run / "resolved.yaml").write_text(settings + "masking: {}\n", encoding="utf-8")
    assert describe(run)["kind"] == "run of pre-training"


def test_a_data_directory(data_dir: Path, tmp_path: Path) -> None:
    told = describe(data_dir)
    assert list(told) == ["kind", "train", "valid", "test", "tokenizer"]
    assert told["kind"] == "data directory"
    assert told["train"].startswith("8 clips, 0.2 min, text of 24 words, true phones")
    data = tmp_path / "data"
    shutil.copytree(data_dir, data)
    for name in ("train.wrd", "tokenizer.model"):
        (data / name).unlink()
    lines = (data / "train.tsv").read_text(encoding="utf-8").splitlines()
    silent = "\t".join([*lines[1].split("\t")[:4], "0"])
    (data / "train.tsv").write_text("\n".join([lines[0], silent, *lines[2:]]) + "\n", encoding="utf-8")
    told = describe(data)
    assert "no text" in told["train"]
    assert told["train"].endswith("1 without audio")
    assert told["tokenizer"] == "none"


def test_what_was_left_out_is_no_manifest(data_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(data_dir, tmp_path / "data")
    (tmp_path / "data" / "rejected.tsv").write_text("day/1\tno audio track\n", encoding="utf-8")
    told = describe(tmp_path / "data")
    assert told.pop("rejected") == "1 inputs; the reasons are in rejected.tsv"
    assert told == describe(data_dir)


def test_labels(labels_dir: Path, tmp_path: Path) -> None:
    told = describe(labels_dir)
    assert told["kind"] == "labels"
    assert (told["clusters"], told["rate"], told["source"]) == (6, "100 labels per second", "mfcc")
    assert told["train.km"].startswith("8 clips, ")
    assert 0 <= told["pnmi (test)"] <= 1
    shutil.copytree(labels_dir, tmp_path / "labels")
    (tmp_path / "labels" / "valid.km").write_text("0 1 2\n", encoding="utf-8")
    (tmp_path / "labels" / "test.km").unlink()
    told = describe(tmp_path / "labels")
    assert told["valid.km"] == "1 clips, 3 labels; differs from the file that labels.json describes: cluster again"
    assert told["test.km"] == "is missing"


def test_noise_lists(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.wav").touch()
    (tmp_path / "train.tsv").write_text("a.wav\na.wav\nb.wav\n", encoding="utf-8")
    assert describe(tmp_path) == {"kind": "noise lists", "train": "3 entries, 2 files"}


def test_a_recipes_directory(tmp_path: Path) -> None:
    (tmp_path / "iterations.json").write_text(
        '[{"iteration": 1, "clusters": 100, "pnmi": 0.51234, "steps": null}]', encoding="utf-8"
    )
    told = describe(tmp_path)
    assert told["iterations done"] == 1
    assert told["iteration 1"] == "clusters 100, pnmi 0.5123"


def test_a_recording(data_dir: Path) -> None:
    told = describe(data_dir / "train0.mp4")
    assert told["kind"] == "video"
    assert told["video"] == "96x96, 25 frames per second"
    assert told["audio"] == "none"
    frames = int((data_dir / "train.tsv").read_text(encoding="utf-8").splitlines()[1].split("\t")[3])
    assert told["seconds"] == pytest.approx(frames / 25, abs=0.05)
    assert describe(data_dir / "train0.wav")["kind"] == "audio"


def test_what_is_none_of_ours(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    wrong: list[tuple[Path, type[Exception], str]] = [
        (tmp_path / "folder", DataError, "is not a folder that `avhubert info` describes: a model"),
        (tmp_path / "nothing", CheckpointError, "does not exist; give a model directory"),
        (data_dir / "train.tsv", DataError, "cannot be read as a video or audio file"),
    ]
    for name, content, sentence in (
        ("resolved.yaml", "a: [", "so the settings of the run are unknown"),
        ("resolved.yaml", "- a", "does not contain the settings of a run"),
        ("resolved.yaml", "train: 1\ndata: {}\nmodel: {}", "does not contain the settings of a run"),
        ("iterations.json", "{}", "does not contain the iterations of a recipe"),
        ("labels.json", "{}", "must contain the keys rate, clusters"),
        ("train.tsv", "relative\n", "the first line must be an absolute root folder"),
    ):
        folder = tmp_path / f"{len(wrong)}"
        folder.mkdir()
        (folder / name).write_text(content, encoding="utf-8")
        wrong.append((folder, DataError, sentence))
    for path, kind, sentence in wrong:
        with pytest.raises(kind) as raised:
            describe(path)
        assert sentence in str(raised.value)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_folder_of_recordings(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.WAV", np.zeros(32_000, np.int16))
    write_video(tmp_path / "b.mp4", [np.zeros((96, 96, 3), np.uint8)] * 25)
    (tmp_path / "broken.mp4").write_text("text", encoding="utf-8")
    (tmp_path / "c.xyz").touch()
    description = describe(tmp_path)
    assert description.pop("unreadable 1").startswith("broken.mp4 ")  # type: ignore[union-attr]
    assert description == {
        "kind": "folder of recordings",
        "audio files": "1, 0.0 min",
        "videos": "1, 0.0 min",
        "skipped 1": "1 (the extension .xyz is not one of a recording; name the file to read it): c.xyz",
    }


def test_a_recording_that_is_not_searched_for_damage_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = audio_file(tmp_path / "talk.m4a", speech(4), "aac")
    assert "damage" not in describe(path)
    monkeypatch.setattr("avhubert.tools.info.LONGEST_CHECKED_SECONDS", 3)
    assert str(describe(path)["damage"]).startswith("not searched for: the recording is longer than ")
