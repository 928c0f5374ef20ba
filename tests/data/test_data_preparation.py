"""From samples and frames to the streams of a model: scale of the audio, length, crop of the data at hand."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from avhubert.config.input_preparation import CROPS, InputPreparation
from avhubert.constants import CROP_SIZE
from avhubert.data.augment import CropDraw
from avhubert.data.filterbank import audio_features, filterbank, normalise, stack_frames, stacked_frames
from avhubert.data.preparation import RECORD, check_crop, nearest_earlier, prepare_streams, read_crop, write_crop
from avhubert.errors import CheckpointError, ConfigError, DataError
from avhubert.model.metadata import ModelMetadata

pytestmark = pytest.mark.quick

AVISTA = InputPreparation(crop="nose-to-chin", audio_scale="unit", length="audio")
GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "avista"


def samples(count: int, silent: int = 0) -> np.ndarray:
    made = np.random.default_rng(0).normal(0, 3000, count).astype(np.int16)
    made[:silent] = 0
    return made


def frames(count: int, size: int = CROP_SIZE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size), dtype=np.uint8)


def test_samples_between_minus_and_plus_one_lower_every_energy_but_that_of_silence() -> None:
    made = samples(4000, silent=1600)
    integers, unit = filterbank(made), filterbank(made, scale="unit")
    silence = integers == np.log(np.finfo(np.float64).eps)
    assert silence.any()
    assert torch.equal(unit[silence], integers[silence])
    torch.testing.assert_close(integers[~silence] - unit[~silence], torch.full_like(unit[~silence], 2 * np.log(32768)))


@pytest.mark.parametrize("count", [1, 400, 401, 560, 561, 1600, 9000, 16400])
def test_number_of_stacked_frames(count: int) -> None:
    assert stacked_frames(count) == len(audio_features(samples(count)))


def test_audio_decides_the_length_and_video_follows_it() -> None:
    made, clip = samples(9000), frames(17)
    audio, video = prepare_streams(made, clip, AVISTA)
    assert audio is not None
    assert video is not None
    assert len(audio) == len(video) == stacked_frames(9000) == 14
    assert nearest_earlier(17, 14).tolist() == [i * 17 // 14 for i in range(14)]
    audio, video = prepare_streams(made, clip)
    assert audio is not None
    assert video is not None
    assert len(audio) == len(video) == 17


def test_one_stream_alone_has_its_own_length() -> None:
    audio, video = prepare_streams(samples(9000), None, AVISTA, length=17)
    assert (None if audio is None else len(audio), video) == (14, None)
    audio, video = prepare_streams(None, frames(17), AVISTA)
    assert (audio, None if video is None else len(video)) == (None, 17)
    audio, _ = prepare_streams(samples(9000), None, length=17)
    assert audio is not None
    assert len(audio) == 17


def test_random_crop_of_a_clip_that_has_the_size_of_the_crop_only_mirrors() -> None:
    clip = frames(3)
    _, plain = prepare_streams(None, clip)
    _, mirrored = prepare_streams(None, clip, crop=CropDraw(5, 7, True))
    assert plain is not None
    assert mirrored is not None
    assert torch.equal(plain.flip(2), mirrored)


def test_streams_are_those_of_the_published_processor() -> None:
    if not GOLDEN.is_dir():
        pytest.skip("the folder ../shared/golden/avista is not part of the package")
    recorded = np.load(GOLDEN / "processor.npz")
    for number in (1, 2):
        with wave.open(str(GOLDEN / f"sound{number}.wav")) as file:
            made = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        stacked = stack_frames(filterbank(made, scale="unit").float())
        np.testing.assert_allclose(stacked, recorded[f"logfbank{number}"], atol=1e-4)
        if number == 1:
            audio, _ = prepare_streams(made, None, AVISTA)
            assert audio is not None
            assert torch.equal(audio, normalise(stacked))
            assert (audio - torch.from_numpy(recorded["audio/input_values"]).view(-1, 104)).abs().max() <= 1e-4


# --------------------------------------------------------------------------- records
def test_data_directory_records_its_crop(tmp_path: Path) -> None:
    assert read_crop(tmp_path) == "mean-face"  # of earlier versions
    for crop in CROPS:
        write_crop(tmp_path, crop)
        assert read_crop(tmp_path) == crop
    check_crop(tmp_path, AVISTA)
    check_crop(tmp_path, InputPreparation(), "a")
    with pytest.raises(DataError, match=r"mouth clips of the kind 'nose-to-chin', .* reads 'mean-face': prepare"):
        check_crop(tmp_path, InputPreparation())


@pytest.mark.parametrize("content", ["{", "{}", '{"crop": 3}', '{"crop": "ear"}', "[]"])
def test_damaged_record_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / RECORD).write_text(content, encoding="utf-8")
    with pytest.raises(DataError):
        read_crop(tmp_path)


def test_metadata_carry_the_preparation() -> None:
    record = ModelMetadata.from_dict(json.loads(json.dumps({"inputs": AVISTA.values()})))
    assert record.preparation() == AVISTA
    assert ModelMetadata().preparation() == InputPreparation()
    assert InputPreparation().recorded() is None
    with pytest.raises(CheckpointError, match="crop=ear is not one of"):
        ModelMetadata.from_dict({"inputs": {"crop": "ear"}})
    with pytest.raises(CheckpointError, match="unknown key"):
        ModelMetadata.from_dict({"inputs": {"size": 3}})


def test_crop_needs_the_detector_that_has_its_points(tmp_path: Path) -> None:
    from avhubert.prepare.detectors.selection import LandmarkSource

    assert LandmarkSource.parse(None, "nose-to-chin").crop == "nose-to-chin"
    with pytest.raises(ConfigError, match="needs the built-in face detector"):
        LandmarkSource.parse(tmp_path, "nose-to-chin")
    with pytest.raises(ConfigError, match="unknown crop 'ear'"):
        LandmarkSource.parse(None, "ear")
