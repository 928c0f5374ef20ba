"""A model of AVista's layout from a raw video to text, command by command, as docs/how-to/avista.md has it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import avhubert
from avhubert.checkpoints.config_file import read_config
from avhubert.cli.app import main
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.filterbank import stacked_frames
from avhubert.data.manifest import read_manifest
from avhubert.data.shards import clip_frames
from avhubert.data.video import read_frames, write_video
from avhubert.model.recognizer import Recognizer
from avhubert.transcription.pipeline import Transcription
from avhubert.transcription.reader import Chunk
from tests.avista_folder import write_pretrained, write_recognizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    make_corpus(root, 4, speakers=3, seed=9, workers=1)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recognizer(tmp_path_factory.mktemp("models") / "avista-tiny")


class Watched(Transcription):
    """Keeps the chunks that were read."""

    chunks: list[Chunk]

    def _select_streams(self, chunk: Chunk):  # type: ignore[no-untyped-def]
        self.chunks = [*getattr(self, "chunks", []), chunk]
        return super()._select_streams(chunk)


def test_raw_video_is_cropped_as_the_model_wants_and_transcribed(corpus: Path, folder: Path) -> None:
    video = min(corpus.rglob("*.mp4"))
    model = avhubert.load(folder)
    assert isinstance(model, Recognizer)
    transcription = Watched(video, model, "av", device="cpu", decode={"max_len_b": 5, "beam": 2})
    transcript = transcription.transcript()
    assert transcript.modality == "av"
    assert transcript.segments
    (chunk,) = transcription.chunks
    assert chunk.mouth is not None
    assert chunk.mouth.shape[1:] == (88, 88)
    assert chunk.mouth[chunk.mouth.shape[0] // 2].std() > 5  # a face, not a black frame
    assert transcription.mouths[0].corners.shape[1:] == (4, 2)


def test_length_is_that_of_the_audio(corpus: Path, folder: Path, tmp_path: Path) -> None:
    frames = list(read_frames(min(corpus.rglob("*.mp4"))))[:40]
    write_video(
        tmp_path / "uneven.mp4", frames, audio=np.random.default_rng(0).normal(0, 99, 36 * 640).astype(np.int16)
    )
    model = avhubert.load(folder)
    assert isinstance(model, Recognizer)
    transcription = Watched(tmp_path / "uneven.mp4", model, "av", device="cpu", vad="off", decode={"max_len_b": 2})
    transcription.transcript()
    (chunk,) = transcription.chunks
    assert chunk.mouth is not None
    assert chunk.samples is not None
    assert chunk.track is not None
    audio_frames = stacked_frames(len(chunk.samples))
    assert 36 <= audio_frames < 40  # the codec fills its last packet
    assert len(chunk.mouth) == len(chunk.track.detected) == chunk.frames == audio_frames


@pytest.mark.slow
def test_every_command_takes_such_a_folder(
    corpus: Path, folder: Path, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object, code: int = 0) -> str:
        assert main([str(one) for one in arguments]) == code, capsys.readouterr().err
        shown = capsys.readouterr()
        return shown.out + shown.err

    pretrained = write_pretrained(tmp_path / "pretrained")
    run("prepare", "lrs3", corpus, tmp_path / "data", "--workers", 1, "--crop", folder, "--vocab-size", 60)
    data = tmp_path / "data" / "433h"
    assert json.loads((data / "preparation.json").read_text(encoding="utf-8")) == {"crop": "nose-to-chin"}
    clips = read_manifest(data / "train.tsv")
    assert clip_frames(clips[0].video).shape[1:] == (88, 88)
    assert "CER" in run("evaluate", folder, data, "--split", "train", "--beam", 2)
    assert "mouth clips of the kind 'mean-face'" in run("evaluate", folder, data_dir, code=1)
    run("features", data, "--model", folder, "--out", tmp_path / "features", "--split", "train")
    video = min(corpus.rglob("*.mp4"))
    run("features", video, "--model", pretrained, "--out", tmp_path / "raw")
    assert np.load(tmp_path / "raw" / f"{video.stem}.npy").shape[1] == 16
    spoken = (data / "train.wrd").read_text(encoding="utf-8").splitlines()[0]  # a small tokenizer knows few letters
    validated = read_manifest(data / "valid.tsv")
    (data / "valid.wrd").write_text(f"{spoken}\n" * len(validated), encoding="utf-8")
    tune = ("finetune", "--config-name", "tiny", f"model.pretrained={pretrained}")
    small = (
        *("train.max_steps=1", "train.frames_per_step=80", "train.frames_per_batch=80", "data.max_frames=400"),
        *("model.decoder.layers=1", "model.decoder.attention_heads=2", "model.decoder.ffn_embed_dim=16"),
        *("decode.max_len_a=0", "decode.max_len_b=3"),
    )
    run(*tune, f"run_dir={tmp_path / 'tuned'}", f"data.dir={data}", *small)
    assert read_config(tmp_path / "tuned").metadata.preparation().crop == "nose-to-chin"
    refused = run(*tune, f"run_dir={tmp_path / 'refused'}", f"data.dir={data_dir}", code=1)
    assert "--crop nose-to-chin" in refused
    run("shards", data, tmp_path / "shards")
    assert (tmp_path / "shards" / "preparation.json").is_file()
    run("transcribe", video, "--model", folder, "--out", tmp_path / "texts")
