"""Features → clusters → labels: files, reproducibility and errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from avhubert.checkpoints.directory import save_model
from avhubert.cli.app import main
from avhubert.cluster.kmeans import assign
from avhubert.cluster.label_model import read_label_model
from avhubert.cluster.labels import apply, cluster
from avhubert.config.schema import ModelConfig
from avhubert.data.audio import write_wav
from avhubert.data.labels import load_labels, read_dictionary, read_labels
from avhubert.data.manifest import Clip, read_manifest, write_manifest
from avhubert.errors import ConfigError, DataError
from avhubert.features.layer import LayerExtractor, read_example
from avhubert.features.mfcc import MfccExtractor, mfcc
from avhubert.features.shards import write_shards
from avhubert.features.specification import parse
from avhubert.model.encoder import AVHubert

pytestmark = pytest.mark.quick

SMALL = ModelConfig(
    visual_width=8, visual_blocks=[1, 1, 1, 1], encoder_layers=2, encoder_embed_dim=32, encoder_ffn_embed_dim=64,
    encoder_attention_heads=2, conv_pos=8, conv_pos_groups=4, num_classes=[10],
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("model")
    save_model(directory, AVHubert(SMALL))
    return directory


# --------------------------------------------------------------------------- features
@pytest.mark.parametrize(("samples", "frames"), [(0, 1), (1, 1), (400, 1), (559, 1), (560, 2), (16_000, 98)])
def test_mfcc_has_a_row_for_every_whole_window(samples: int, frames: int) -> None:
    sound = np.random.default_rng(0).integers(-3000, 3000, samples).astype(np.int16)
    assert mfcc(sound).shape == (frames, 39)


def test_deltas_are_slopes_with_replicated_edges() -> None:
    sound = (8000 * np.sin(np.arange(8000) * np.linspace(0.05, 0.5, 8000))).astype(np.int16)
    x = mfcc(sound)
    static, delta, second = x[:, :13], x[:, 13:26], x[:, 26:]
    for values, slopes in ((static, delta), (delta, second)):
        padded = np.concatenate([values[:1], values[:1], values, values[-1:], values[-1:]])
        expected = [np.polyfit(np.arange(-2, 3), padded[i : i + 5], 1)[0] for i in range(len(values))]
        assert np.allclose(slopes, expected, atol=2e-3)


def test_specifications() -> None:
    assert (parse("mfcc").model, parse("mfcc").rate) == (None, 100)
    assert (parse("C:/runs/iter1:9").model, parse("C:/runs/iter1:9").layer) == ("C:/runs/iter1", 9)
    for wrong in ("", "mffc", "runs/iter1", "runs/iter1:", ":9", "runs/iter1:x", "runs/iter1:-1"):
        with pytest.raises(ConfigError, match="neither 'mfcc' nor MODEL:LAYER"):
            parse(wrong)


def test_layer_features_equal_those_of_each_clip_alone(model: Path, data_dir: Path) -> None:
    clips = read_manifest(data_dir / "train.tsv")
    extractor = LayerExtractor(str(model), 2)
    features = dict(extractor.extract(clips))
    assert set(features) == set(range(len(clips)))
    for index, clip in enumerate(clips):
        alone = extractor.features([read_example(clip, "av")])[0]
        assert alone.shape == (clip.video_frames, 32)
        assert np.allclose(features[index], alone, atol=1e-4)
    with pytest.raises(ConfigError, match="layer 3 does not exist: this model has layers 0 to 2"):
        LayerExtractor(str(model), 3)


def test_shards_resume_and_are_computed_again_if_damaged_or_of_other_clips(data_dir: Path, tmp_path: Path) -> None:
    clips = read_manifest(data_dir / "train.tsv")
    whole = [rows.copy() for rows in write_shards(tmp_path / "s", clips, MfccExtractor(), "x").clips()]
    assert [len(rows) for rows in whole] == write_shards(tmp_path / "s", clips, MfccExtractor(), "x").frames
    file = tmp_path / "s" / "00000.npy"
    before = file.stat().st_mtime_ns
    write_shards(tmp_path / "s", clips, MfccExtractor(), "x")
    assert file.stat().st_mtime_ns == before
    file.write_bytes(file.read_bytes()[:-40])
    again = list(write_shards(tmp_path / "s", clips, MfccExtractor(), "x").clips())
    assert all(np.array_equal(a, b) for a, b in zip(again, whole, strict=True))
    fewer = list(write_shards(tmp_path / "s", clips[:3], MfccExtractor(), "x").clips())
    assert len(fewer) == 3


# --------------------------------------------------------------------------- labels
def test_mfcc_labels(data_dir: Path, labels_dir: Path) -> None:
    label_model = read_label_model(labels_dir)
    assert (label_model.info.rate, label_model.info.clusters, label_model.info.source) == (100, 6, "mfcc")
    assert sorted(read_dictionary(labels_dir / "dict.km.txt")) == list("012345")
    for split in ("train", "valid", "test"):
        clips = read_manifest(data_dir / f"{split}.tsv")
        rows = read_labels(labels_dir / f"{split}.km")
        features = dict(MfccExtractor().extract(clips))
        assert all(np.array_equal(row, assign(features[i], label_model.centroids)) for i, row in enumerate(rows))
        classes, _ = load_labels(labels_dir, split, clips)
        assert all(row.min() >= 4 and row.max() < 10 for row in classes)
    figures = json.loads((labels_dir / "quality.json").read_text(encoding="utf-8"))
    assert figures["test_purity"] > 0.6  # four tones and silence: their spectra differ
    assert 0.4 < figures["test_pnmi"] <= 1
    assert (labels_dir / "report.html").stat().st_size > 5000
    assert not list(labels_dir.parent.glob(".*features*"))  # nothing is left beside it


def test_the_same_seed_gives_the_same_bytes(data_dir: Path, labels_dir: Path, tmp_path: Path) -> None:
    cluster(data_dir, "mfcc", 6, tmp_path / "again")
    cluster(data_dir, "mfcc", 6, tmp_path / "other", seed=1, percent=50)
    for name in ("train.km", "valid.km", "centroids.npy", "labels.json", "dict.km.txt"):
        assert (tmp_path / "again" / name).read_bytes() == (labels_dir / name).read_bytes()
    assert (tmp_path / "other" / "labels.json").read_bytes() != (labels_dir / "labels.json").read_bytes()
    assert json.loads((tmp_path / "other" / "label_model.json").read_text(encoding="utf-8"))["learned_clips"] == 4


def test_labels_of_a_layer_record_their_model(data_dir: Path, model: Path, tmp_path: Path) -> None:
    cluster(data_dir, f"{model}:1", 4, tmp_path / "labels")
    label_model = read_label_model(tmp_path / "labels")
    assert (label_model.info.rate, label_model.info.layer) == (25, 1)
    assert label_model.model_sha256
    clips = read_manifest(data_dir / "train.tsv")
    assert [len(row) for row in read_labels(tmp_path / "labels" / "train.km")] == [clip.video_frames for clip in clips]


def test_another_corpus_gets_the_clusters_of_a_label_model(
    model: Path, data_dir: Path, labels_dir: Path, tmp_path: Path
) -> None:
    other = tmp_path / "data"
    other.mkdir()
    clips = read_manifest(data_dir / "test.tsv")
    write_manifest(other / "train.tsv", clips, other)
    arguments = ["cluster", str(other), "--features", "mfcc", "--like", str(labels_dir)]
    assert main([*arguments, "--out", str(tmp_path / "labels")]) == 0
    info, ours = read_label_model(labels_dir).info, read_label_model(tmp_path / "labels").info
    assert (ours.centroids, ours.clusters, ours.rate) == (info.centroids, info.clusters, info.rate)
    assert (tmp_path / "labels" / "train.km").read_bytes() == (labels_dir / "test.km").read_bytes()
    assert load_labels(tmp_path / "labels", "train", clips)[1] == ours

    with pytest.raises(ConfigError, match="learned from mfcc, not from"):
        apply(other, f"{model}:1", labels_dir, tmp_path / "labels2")
    with pytest.raises(ConfigError, match="the label model itself"):
        apply(other, "mfcc", labels_dir, labels_dir)
    cluster(data_dir, f"{model}:1", 4, tmp_path / "layer")
    torch.manual_seed(1)
    save_model(tmp_path / "model", AVHubert(SMALL))
    with pytest.raises(ConfigError, match="learned from layer 1 of the model"):
        apply(other, f"{tmp_path / 'model'}:1", tmp_path / "layer", tmp_path / "labels2")


def test_what_a_killed_run_left_is_removed(data_dir: Path, tmp_path: Path) -> None:
    leftover, other = tmp_path / ".labels.abcd_123.part", tmp_path / ".labels2.abcd_123.part"
    for folder in (leftover, other):
        folder.mkdir()
        (folder / "train.km").touch()
    cluster(data_dir, "mfcc", 6, tmp_path / "labels")
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "labels"]


def test_labels_that_do_not_belong_together_are_an_error(data_dir: Path, labels_dir: Path, tmp_path: Path) -> None:
    clips = {split: read_manifest(data_dir / f"{split}.tsv") for split in ("train", "valid")}

    def copy(name: str) -> Path:
        return Path(shutil.copytree(labels_dir, tmp_path / name))

    # valid from another k-means
    mixed = copy("mixed")
    cluster(data_dir, "mfcc", 6, tmp_path / "other", seed=5)
    shutil.copy(tmp_path / "other" / "valid.km", mixed / "valid.km")
    load_labels(mixed, "train", clips["train"])
    with pytest.raises(DataError, match=r"valid\.km is not the file that labels\.json describes"):
        load_labels(mixed, "valid", clips["valid"])

    def changed(name: str, **values: object) -> Path:
        folder = copy(name)
        info = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        info.pop("files"), info.pop("sha256")  # as somebody writes it by hand
        (folder / "labels.json").write_text(json.dumps(info | values), encoding="utf-8")
        return folder

    with pytest.raises(DataError, match="at the 25 per second"):
        load_labels(changed("rate", rate=25), "train", clips["train"])
    single = changed("single")
    lines = (single / "train.km").read_text(encoding="utf-8").splitlines()
    (single / "train.km").write_text(
        "".join(" ".join("3" for _ in line.split()) + "\n" for line in lines), encoding="utf-8"
    )
    with pytest.raises(DataError, match="all labels are of one cluster"):
        load_labels(single, "train", clips["train"])
    shifted = copy("shifted")
    (shifted / "train.km").write_text("\n".join([*lines[1:], lines[0]]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.km is not the file"):
        load_labels(shifted, "train", clips["train"])
    off = changed("off")
    (off / "dict.km.txt").write_text("".join(f"{k} 1\n" for k in range(1, 7)), encoding="utf-8")
    with pytest.raises(DataError, match="it must list 0 to 5, each once"):
        load_labels(off, "train", clips["train"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--features", "mfcc", "--clusters", "1"], "--clusters 1 is too few"),
        (["--features", "mfcc", "--clusters", "4", "--percent", "0"], "--percent 0 is not a share"),
        (["--features", "mfcc", "--clusters", "100000"], "100000"),
        (["--features", "nowhere:3", "--clusters", "4"], "nowhere does not exist"),
    ],
)
def test_errors_of_the_command(
    arguments: list[str], words: str, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cluster", str(data_dir), *arguments, "--out", str(tmp_path / "labels")]) in (1, 2)
    error = capsys.readouterr().err.splitlines()[-1]
    assert words in error
    assert not (tmp_path / "labels").exists()


def test_empty_clusters_are_an_error(tmp_path: Path) -> None:
    write_wav(tmp_path / "still.wav", np.zeros(16_000, np.int16))
    clip = Clip("still", tmp_path / "still.mp4", tmp_path / "still.wav", 25, 16_000)
    write_manifest(tmp_path / "train.tsv", [clip], tmp_path)
    with pytest.raises(DataError, match="of 20 clusters are empty"):
        cluster(tmp_path, "mfcc", 20, tmp_path / "labels")
    assert not (tmp_path / "labels").exists()


def test_a_folder_with_other_files_is_not_overwritten(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(ConfigError, match="something other than labels"):
        cluster(data_dir, "mfcc", 4, tmp_path)
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "keep me"


def test_damaged_label_models_are_an_error(labels_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(labels_dir, tmp_path / "labels"))
    np.save(folder / "centroids.npy", np.zeros((6, 39), np.float32))
    with pytest.raises(DataError, match=r"and labels\.json do not belong together"):
        read_label_model(folder)
    (folder / "centroids.npy").write_bytes(b"x")
    with pytest.raises(DataError, match="missing or damaged"):
        read_label_model(folder)
