"""From files and arrays to inputs, and the pipelines of transformers."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, pipeline

import avhubert.hf as hf
from avhubert.checkpoints.avista.config import PREPARATION
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.audio import read_audio, write_wav
from avhubert.data.preparation import prepare_streams
from avhubert.errors import CheckpointError, ConfigError, DataError, MediaError
from avhubert.prepare.mouth import mouth_clip
from tests.avista_folder import PREPROCESSING, write_json, write_recognizer

SAMPLES = np.random.default_rng(0).normal(0, 3000, 16_000).astype(np.int16)
FRAMES = np.random.default_rng(1).integers(0, 255, (25, 88, 88)).astype(np.uint8)
# stands in for the program ffmpeg, which the pipeline of transformers starts: from a file to float32 at 16 kHz
FFMPEG = """#!{python}
import io, sys
import av
resampler = av.AudioResampler("flt", "mono", 16000)
with av.open(io.BytesIO(sys.stdin.buffer.read())) as file:
    for frame in [*file.decode(audio=0), None]:
        for part in resampler.resample(frame):
            sys.stdout.buffer.write(part.to_ndarray().tobytes())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_recognizer(tmp_path_factory.mktemp("models") / "avista")
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder, visual_width=4, visual_blocks=[1, 1, 1, 1])
    model.save_pretrained(folder)  # with the sizes of the visual front end, so that a pipeline loads it by name
    (folder / "pytorch_model.bin").unlink()
    write_json(folder / "processor_config.json", {"processor_class": "AVHubertProcessor"})
    special = {f"{name}_token": text for name, text in (("bos", "<s>"), ("eos", "</s>"), ("pad", "<pad>"))}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **special})
    return folder


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    make_corpus(root, 4, speakers=3, seed=9, workers=1)
    return min(root.rglob("*.mp4"))


def test_file_int16_and_floats_give_the_same_inputs(processor: Any, tmp_path: Path) -> None:
    write_wav(tmp_path / "speech.wav", SAMPLES)
    expected, _ = prepare_streams(SAMPLES, None, PREPARATION)
    floats = SAMPLES / 32768
    for audio in (SAMPLES, floats, floats.astype(np.float32), torch.from_numpy(floats), tmp_path / "speech.wav"):
        found = processor(audio, sampling_rate=16_000)
        assert (found.input_values[0] - expected).abs().max() < 1e-5
        assert found.attention_mask.tolist() == [[1] * len(expected)]
    assert "pixel_values" not in found


def test_batch_is_padded_with_zeros(processor: Any) -> None:
    found = processor([SAMPLES, SAMPLES[:9000]], [FRAMES, FRAMES[:14]])
    alone = processor(SAMPLES[:9000], FRAMES[:14])
    length = alone.input_values.shape[1]
    assert found.attention_mask.sum(1).tolist() == [25, length]
    for name in ("input_values", "pixel_values"):
        assert torch.equal(found[name][1, :length], alone[name][0])
        assert found[name][1, length:].abs().max() == 0
    assert found.pixel_values.shape == (2, 25, 1, 88, 88)


def test_color_becomes_gray(processor: Any) -> None:
    gray = processor(videos=FRAMES).pixel_values
    assert torch.equal(processor(videos=np.repeat(FRAMES[..., None], 3, 3)).pixel_values, gray)
    assert processor(videos=FRAMES, return_tensors="np").pixel_values.dtype == np.float32


@pytest.mark.slow
def test_inputs_of_a_raw_video_are_those_of_the_package(processor: Any, video: Path) -> None:
    found = processor(audio=video, videos=str(video))
    expected = prepare_streams(read_audio(video), mouth_clip(video, crop="nose-to-chin").frames, PREPARATION)
    assert torch.equal(found.input_values[0], expected[0])
    assert torch.equal(found.pixel_values[0, :, 0], expected[1])


@pytest.mark.parametrize(
    ("audio", "videos", "rate", "message"),
    [
        (None, None, None, "neither audio nor videos nor text was given"),
        ([], None, None, "list of recordings is empty"),
        (SAMPLES, None, 44_100, "sampling_rate=44100: resample the audio to 16000 Hz"),
        (SAMPLES[None], None, None, r"must have the shape \[samples\], not \[1, 16000\]"),
        (SAMPLES[:0], None, None, r"must have the shape \[samples\], not \[0\]"),
        (SAMPLES.astype(np.int64), None, None, "raw_speech has the type int64"),
        (np.full(999, np.nan), None, None, "infinite or not a number"),
        (None, FRAMES / 255, None, r"videos must be uint8 .* not float64"),
        (None, FRAMES[0], None, r"videos must be uint8 .* not uint8 \[88, 88\]"),
        (None, FRAMES[:0], None, "a video has no frames"),
        ([SAMPLES, SAMPLES], FRAMES, None, "2 audio and 1 video recordings"),
    ],
)
def test_wrong_recordings_get_a_sentence(processor: Any, audio: Any, videos: Any, rate: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        processor(audio, videos, sampling_rate=rate)


def test_files_that_cannot_be_used_get_a_sentence(processor: Any, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="there is no such file"):
        processor(audio=tmp_path / "none.wav")
    write_wav(tmp_path / "speech.wav", SAMPLES)
    with pytest.raises(MediaError, match="video"):
        processor(videos=tmp_path / "speech.wav")


def test_other_preprocessing_is_refused() -> None:
    with pytest.raises(CheckpointError, match="sr=8000 is not supported"):
        hf.AVHubertFeatureExtractor(**(PREPROCESSING | {"sr": 8000}))


def test_pipeline_of_speech_recognition(folder: Path, processor: Any, tmp_path: Path, monkeypatch: Any) -> None:
    recognize = pipeline("automatic-speech-recognition", model=str(folder), device="cpu", max_new_tokens=8)
    assert recognize.type == "seq2seq"
    tokens = recognize.model.generate(**processor(SAMPLES), max_new_tokens=8)
    expected = {"text": processor.decode(tokens[0])}
    assert recognize({"raw": SAMPLES / 32768, "sampling_rate": 16_000}) == expected
    if shutil.which("ffmpeg") is None:
        program = tmp_path / "ffmpeg"
        program.write_text(FFMPEG.format(python=sys.executable), encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    write_wav(tmp_path / "speech.wav", SAMPLES)
    assert recognize(str(tmp_path / "speech.wav")) == expected


@pytest.mark.slow
def test_pipeline_of_videos(folder: Path, processor: Any, video: Path, tmp_path: Path) -> None:
    recognize = pipeline("audio-visual-speech-recognition", model=str(folder), device="cpu")
    both = recognize.model.generate(**processor(audio=video, videos=video), max_new_tokens=8)
    assert recognize(str(video), max_new_tokens=8) == {"text": processor.decode(both[0])}
    lips = recognize.model.generate(**processor(videos=video), max_new_tokens=8)
    assert recognize(str(video), modality="v", max_new_tokens=8) == {"text": processor.decode(lips[0])}
    write_wav(tmp_path / "speech.wav", SAMPLES)
    audio = recognize.model.generate(**processor(SAMPLES), max_new_tokens=8)
    assert recognize(tmp_path / "speech.wav", max_new_tokens=8) == {"text": processor.decode(audio[0])}
    with pytest.raises(ConfigError, match="modality"):
        recognize(str(video), modality="x")


def test_saved_settings_of_the_extractor_are_kept(tmp_path: Path) -> None:
    extractor = hf.AVHubertFeatureExtractor(**PREPROCESSING, auto_map={"AutoFeatureExtractor": "code.Extractor"})
    extractor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert saved == PREPROCESSING
    assert hf.AVHubertFeatureExtractor.from_pretrained(tmp_path).to_dict() == saved
