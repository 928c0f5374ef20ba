"""Pseudo-labels: transcripts, the mixture with labelled data, resuming and errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avhubert.checkpoints.directory import save_model
from avhubert.checkpoints.load import load_recognizer
from avhubert.cli.app import main
from avhubert.config import compose
from avhubert.config.schema import DataConfig, DecodeConfig, DecoderConfig, ModelConfig
from avhubert.data.dataset import ClipDataset
from avhubert.data.manifest import Clip, read_manifest, write_manifest
from avhubert.data.tokenizer import Tokenizer
from avhubert.data.transcripts import read_transcripts
from avhubert.decode.beam_search import beam_search
from avhubert.errors import CheckpointError, ConfigError, DataError
from avhubert.evaluation.pseudo_journal import PseudoLabel
from avhubert.evaluation.pseudo_label import pseudo_label, rejection_reason
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer
from avhubert.train import finetune

ALL = -100.0  # a confidence that everything has


def decoded(recognizer, batch) -> list[tuple[str, float]]:
    """Best text and its score for every utterance of a batch."""
    encoded = recognizer.encode(batch.inputs)
    hypotheses = beam_search(recognizer, encoded, batch.inputs.padding_mask, recognizer.decode_settings)
    return [(recognizer.tokenizer.decode(best[0].tokens), best[0].score) for best in hypotheses]


def saved(folder: Path, data_dir: Path, metadata: ModelMetadata) -> Path:
    tokenizer = Tokenizer(data_dir / "tokenizer.model")
    torch.manual_seed(5)
    model = ModelConfig(
        visual_width=8, visual_blocks=[1, 1, 1, 1], encoder_layers=1, encoder_embed_dim=16, encoder_ffn_embed_dim=32,
        encoder_attention_heads=2, conv_pos=4, conv_pos_groups=2,
    )  # fmt: skip
    heads = DecoderConfig(layers=1, ffn_embed_dim=32, attention_heads=2, vocab_size=tokenizer.vocab_size)
    recognizer = Recognizer.from_config(model, heads)
    with torch.no_grad():
        for parameter in recognizer.decoder.parameters():
            parameter.mul_(2.5)
    recognizer.decode_settings = DecodeConfig(beam=2, lenpen=1.0, max_len_a=0.0, max_len_b=5)
    save_model(folder, recognizer, tokenizer.serialized, replace(metadata, modalities=["av", "a"]))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    return saved(tmp_path_factory.mktemp("model") / "model", data_dir, ModelMetadata())


@pytest.fixture
def unlabelled(data_dir: Path, tmp_path: Path) -> Path:
    """Seven clips without text: two labelled training clips, a labelled test clip; one is new, the others unusable."""
    train, test = read_manifest(data_dir / "train.tsv"), read_manifest(data_dir / "test.tsv")
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(b"torn")
    clips = [
        *(train[0], train[1], test[0], replace(train[2], id="new")),
        *(replace(train[3], id="long", video_frames=501), replace(train[4], id="torn", video=torn)),
        Clip("gone", Path("/none"), Path("/none"), 0, 0),
    ]
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    write_manifest(folder / "train.tsv", clips, folder)
    return folder


def test_transcripts_and_confidences_are_those_of_decoding(
    model: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["pseudo-label", str(model), str(data_dir), str(out), "--min-confidence", str(ALL)]) == 0
    recognizer = load_recognizer(model)
    clips = read_manifest(data_dir / "train.tsv")
    dataset = ClipDataset(clips, DataConfig(dir="", augment=False), training=False, seed=0)
    labels = {
        row["id"]: row
        for row in map(json.loads, (out / "pseudo-labels.jsonl").read_text(encoding="utf-8").splitlines())
    }
    assert labels.keys() == {clip.id for clip in clips}
    for index, clip in enumerate(clips):
        text, score = decoded(recognizer, dataset.batch([index]))[0]
        assert labels[clip.id]["text"] == text
        assert labels[clip.id]["confidence"] == pytest.approx(score, abs=1e-5)  # its length penalty is 1: the mean
    written = read_manifest(out / "train.tsv")
    assert [labels[clip.id]["text"] for clip in written] == read_transcripts(out / "train.wrd", written)
    assert (out / "tokenizer.model").read_bytes() == (data_dir / "tokenizer.model").read_bytes()
    assert f"0 labelled and {len(written)} transcribed clips" in capsys.readouterr().out
    # a higher threshold chooses among the same transcripts
    before = (out / "pseudo-labels.jsonl").read_bytes()
    middle = sorted(row["confidence"] for row in labels.values())[len(labels) // 2]
    summary = pseudo_label(model, data_dir, out, middle)
    assert 0 < summary.transcribed < len(clips)
    assert {clip.id for clip in read_manifest(out / "train.tsv")} == {
        row["id"] for row in labels.values() if row["confidence"] >= middle and row["text"] and not row["problem"]
    }
    assert (out / "pseudo-labels.jsonl").read_bytes() == before


def test_the_mixture_can_be_trained_on_and_names_left_out_clips(
    model: Path, data_dir: Path, unlabelled: Path, tmp_path: Path, small_scratch: list[str]
) -> None:
    out = tmp_path / "mixed"
    summary = pseudo_label(model, unlabelled, out, ALL, labelled=data_dir)
    assert (summary.labelled, summary.transcribed) == (8, 1)
    assert summary.left_out == {
        "in the labelled data already": ["train0", "train1", "test0"],
        "longer than 500 frames": ["long"],
        "without audio and video": ["gone"],
        "cannot be read": ["torn"],
    }
    assert "3 left out, in the labelled data already: train0, train1, test0" in str(summary)
    assert "torn\tcannot be read" in (out / "left_out.tsv").read_text(encoding="utf-8").splitlines()
    clips = read_manifest(out / "train.tsv")
    labelled = read_manifest(data_dir / "train.tsv")
    assert clips[:8] == labelled
    assert clips[8].id == "new"
    texts = read_transcripts(out / "train.wrd", clips)
    assert texts[:8] == read_transcripts(data_dir / "train.wrd", labelled)
    for split in ("valid", "test"):
        assert read_manifest(out / f"{split}.tsv") == read_manifest(data_dir / f"{split}.tsv")
    settings = [f"data.dir={out}", f"run_dir={tmp_path / 'run'}", "train.max_steps=1", "train.frames_per_batch=80"]
    finetune.run(compose("finetune", "tiny", [*settings, *small_scratch]))
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_an_interrupted_run_resumes(model: Path, data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pseudo_label(model, data_dir, out, ALL)
    journal = out / "pseudo-labels.jsonl"
    whole = journal.read_text(encoding="utf-8").splitlines()
    marked = json.loads(whole[0]) | {"text": "ba ba ba"}
    journal.write_text(
        "\n".join([json.dumps(marked), *whole[1:3], whole[3][:20]]), encoding="utf-8"
    )  # killed while it wrote
    pseudo_label(model, data_dir, out, ALL)
    assert sorted(json.loads(line)["id"] for line in journal.read_text(encoding="utf-8").splitlines()) == sorted(
        json.loads(line)["id"] for line in whole
    )
    clips = read_manifest(out / "train.tsv")
    again = dict(zip([clip.id for clip in clips], read_transcripts(out / "train.wrd", clips), strict=True))
    for row in map(json.loads, whole[1:]):
        assert again.get(row["id"], "") == row["text"]
    assert again[marked["id"]] == "ba ba ba"  # not done twice


def test_rejection_reasons() -> None:
    assert rejection_reason(PseudoLabel("x", "ba", -0.2), -0.2) == ""
    assert rejection_reason(PseudoLabel("x", "ba", -0.3), -0.2) == "with a confidence below -0.2"
    assert rejection_reason(PseudoLabel("x", "", -0.1), -0.2) == "with an empty transcript"
    assert (
        rejection_reason(PseudoLabel("x", "ba", -0.1, "with an unknown character in the transcript"), -0.2)
        == "with an unknown character in the transcript"
    )


def test_errors(model: Path, data_dir: Path, unlabelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"--min-confidence 0\.8 is a mean log-probability, so at most 0"):
        pseudo_label(model, data_dir, out, 0.8)
    with pytest.raises(ConfigError, match="not for 'v'"):
        pseudo_label(model, data_dir, out, ALL, modality="v")
    with pytest.raises(ConfigError, match="is an input folder"):
        pseudo_label(model, unlabelled, data_dir, ALL, labelled=data_dir)
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        pseudo_label("nowhere", data_dir, out, ALL)
    with pytest.raises(DataError, match=r"none\.tsv"):
        pseudo_label(model, data_dir, out, ALL, split="none")
    with pytest.raises(ConfigError, match="was trained with CTC only"):
        pseudo_label(saved(tmp_path / "ctc", data_dir, ModelMetadata(ctc_weight=1)), data_dir, out, ALL)
    assert not out.exists()
    with pytest.raises(
        DataError, match=r"can be used: 8 with a confidence below 0; the highest confidence is -\d.*lower --min-c"
    ):
        pseudo_label(model, data_dir, out, 0.0)
    with pytest.raises(DataError, match=r"can be used: 2 in the labelled data already$"):
        pseudo_label(model, data_dir, tmp_path / "none", ALL, labelled=data_dir, split="test")
    with pytest.raises(ConfigError, match="holds transcripts of another manifest_sha256"):
        pseudo_label(model, unlabelled, out, ALL)
    with pytest.raises(ConfigError, match="holds transcripts of another decode"):
        pseudo_label(model, data_dir, out, ALL, beam=3)
    with pytest.raises(ConfigError, match="holds transcripts of another precision"):
        pseudo_label(model, data_dir, out, ALL, device="cpu", precision="bf16")
