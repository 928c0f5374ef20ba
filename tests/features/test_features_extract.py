"""Features of data directories and raw files: values, cluster ids, precision and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from avhubert.checkpoints.directory import save_model
from avhubert.cli.app import main
from avhubert.cluster.kmeans import assign
from avhubert.cluster.label_model import read_label_model
from avhubert.cluster.labels import cluster
from avhubert.config.schema import ModelConfig
from avhubert.data.audio import read_audio, write_wav
from avhubert.data.filterbank import audio_features
from avhubert.data.labels import read_labels
from avhubert.data.manifest import read_manifest
from avhubert.data.video import read_gray, transform, write_video
from avhubert.errors import ConfigError, DataError
from avhubert.features.extract import extract_features
from avhubert.model.encoder import AVHubert

pytestmark = pytest.mark.quick

SMALL = ModelConfig(
    visual_width=8, visual_blocks=[1, 1, 1, 1], encoder_layers=2, encoder_embed_dim=32, encoder_ffn_embed_dim=64,
    encoder_attention_heads=2, conv_pos=8, conv_pos_groups=4, num_classes=[10],
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> AVHubert:
    torch.manual_seed(0)
    return AVHubert(SMALL).eval()


@pytest.fixture(scope="module")
def directory(model: AVHubert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_model(path, model)
    return path


@pytest.mark.parametrize("modality", ["av", "a", "v"])
@pytest.mark.parametrize("layer", [None, 0, 1, 2])
def test_features_equal_those_of_the_model_for_a_padded_batch(
    model: AVHubert, data_dir: Path, tmp_path: Path, modality: str, layer: int | None
) -> None:
    written = extract_features(data_dir, model, layer, out=tmp_path, split="test", modality=modality)
    clips = read_manifest(data_dir / "test.tsv")
    assert written == [tmp_path / "test" / f"{clip.id}.npy" for clip in clips]
    longest = max(clip.video_frames for clip in clips)
    given: dict[str, np.ndarray] = {}
    if "a" in modality:
        given["audio"] = np.zeros((len(clips), 104, longest), np.float32)
    if "v" in modality:
        given["video"] = np.zeros((len(clips), 1, longest, 88, 88), np.float32)
    mask = np.ones((len(clips), longest), bool)
    for row, clip in enumerate(clips):
        t = clip.video_frames
        mask[row, :t] = False
        if "a" in modality:
            given["audio"][row, :, :t] = audio_features(read_audio(clip.audio), t).T.numpy()
        if "v" in modality:
            given["video"][row, 0, :t] = transform(read_gray(clip.video)).numpy()
    together = model.extract_features(**given, padding_mask=mask, layer=layer)
    for row, (clip, path) in enumerate(zip(clips, written, strict=True)):
        x = np.load(path)
        assert (x.shape, x.dtype) == ((clip.video_frames, 32), np.float32)
        assert np.allclose(x, together[row, : clip.video_frames].numpy(), atol=1e-5)


def test_units_of_clips_and_of_a_raw_file(directory: Path, data_dir: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    cluster(data_dir, f"{directory}:1", 4, labels)
    arguments = [str(data_dir), "--model", str(directory), "--units", str(labels), "--out", str(tmp_path / "out")]
    assert main(["features", *arguments]) == 0
    for split in ("train", "valid", "test"):
        units, expected = read_labels(tmp_path / "out" / f"{split}.km"), read_labels(labels / f"{split}.km")
        assert all(np.array_equal(a, b) for a, b in zip(units, expected, strict=True))
    recording = tmp_path / "talk.wav"
    write_wav(recording, read_audio(read_manifest(data_dir / "test.tsv")[0].audio))
    extract_features(recording, str(directory), units=labels, out=tmp_path / "raw", modality="a")
    x = np.load(tmp_path / "raw" / "talk.npy")
    (units,) = read_labels(tmp_path / "raw" / "talk.km")
    assert len(x) == len(units)
    assert np.array_equal(units, assign(x.astype(np.float16), read_label_model(labels).centroids))


def test_the_mouth_is_found_in_a_raw_video(directory: Path, tmp_path: Path) -> None:
    video = tmp_path / "face.mp4"
    write_video(video, [skimage.data.astronaut()] * 12, audio=np.zeros(12 * 640, np.int16))
    (path,) = extract_features(video, str(directory), layer=2, out=tmp_path / "out")
    assert np.load(path).shape == (12, 32)


def test_errors(directory: Path, model: AVHubert, data_dir: Path, labels_dir: Path, tmp_path: Path) -> None:
    def extract(source: Path = data_dir, layer: int | None = None, **more: object) -> None:
        extract_features(source, str(directory), layer, out=tmp_path / "out", **more)  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match="layer 3 does not exist: this model has layers 0 to 2"):
        extract(layer=3)
    with pytest.raises(ConfigError, match=r"unknown split 'tests'; known: "):
        extract(split="tests")
    (tmp_path / "talk.wav").touch()
    with pytest.raises(ConfigError, match="is one recording and has no split 'test'; leave the split out"):
        extract(tmp_path / "talk.wav", split="test")
    with pytest.raises(ConfigError, match="layer '1' does not exist"):
        extract(layer="1")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown modality 'x'; known: a, av, v"):
        extract(modality="x")
    with pytest.raises(ConfigError, match="are clusters of mfcc, not of a layer of a model"):
        extract(units=labels_dir)
    with pytest.raises(DataError, match="nowhere does not exist"):
        extract(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no manifest"):
        extract(directory)
    units = tmp_path / "units"
    cluster(data_dir, f"{directory}:1", 4, units)
    with pytest.raises(ConfigError, match="are clusters of layer 1, not of layer 2; leave the layer out"):
        extract(units=units, layer=2)
    other = tmp_path / "other"
    torch.manual_seed(1)
    save_model(other, AVHubert(SMALL))
    with pytest.raises(ConfigError, match="were made from another model"):
        extract_features(data_dir, str(other), units=units, out=tmp_path / "out")


def test_precision(directory: Path, data_dir: Path, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        extract_features(
            data_dir, str(directory), out=tmp_path / precision, split="valid", device="cpu", precision=precision
        )
    for path in (tmp_path / "fp32").rglob("*.npy"):
        full, reduced = np.load(path), np.load(tmp_path / "bf16" / path.relative_to(tmp_path / "fp32"))
        assert reduced.dtype == np.float32
        assert 0 < abs(full - reduced).max() < 0.1
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        extract_features(data_dir, str(directory), out=tmp_path / "out", device="cpu", precision="fp16")


def test_a_folder_of_recordings(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "talks"
    (folder / "day").mkdir(parents=True)
    for name in ("a.wav", "day/a.wav", "day/a.aiff", "day/b.xyz"):
        write_wav(folder / "sound.wav", np.zeros(16_000, np.int16))
        (folder / "sound.wav").rename(folder / name)
    command = ["features", str(folder), "--model", str(directory), "--modality", "a", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert "skipped 1 (the extension .xyz is not one of a recording" in capsys.readouterr().err
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.npy"))
    assert written == ["a.npy", "day/a.aiff.npy", "day/a.wav.npy"]
    (folder / "a.wav").write_text("not a recording", encoding="utf-8")
    (tmp_path / "out" / "day" / "a.wav.npy").unlink()
    assert main(command) == 1
    assert f"1 of 3 files of {folder} could not be read" in capsys.readouterr().err
    assert (tmp_path / "out" / "day" / "a.wav.npy").exists()


def test_a_folder_without_recordings(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"has no manifest \(train.tsv, valid.tsv or test.tsv\) and no recordings"):
        extract_features(tmp_path, str(directory), out=tmp_path / "out")
