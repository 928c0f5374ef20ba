"""The whole loop at its smallest size, and what people then do with its model."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import skimage.data

from avhubert.checkpoints.load import load_recognizer
from avhubert.cli.app import main
from avhubert.data.audio import read_audio
from avhubert.data.video import read_frames, write_video
from avhubert.errors import ConfigError
from avhubert.recipes import demo
from avhubert.transcription.pipeline import transcribe


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "run"
    demo.run(out, "smoke")
    return out


def test_every_stage_leaves_what_it_should(done: Path) -> None:
    page = (done / "report.html").read_text(encoding="utf-8")
    for heading in ("The corpus", "Training", "Label quality", "Word error rate", "Samples", "Time per stage"):
        assert heading in page
    assert "<svg" in page
    assert not re.search(r"""(src|href|url\()\s*=?\s*["']?https?:""", page)  # self-contained
    seconds = json.loads((done / "demo.json").read_text(encoding="utf-8"))["seconds"]
    assert len(seconds) == 11
    assert load_recognizer(done / "model").metadata.modalities == ["av", "a", "v"]
    results = [
        json.loads(path.read_text(encoding="utf-8"))["results"][0]
        for path in (done / "evaluation").glob("*/results.json")
    ]
    assert {(row["modality"], row["snr"]) for row in results} == {
        ("av", None), ("a", None), ("v", None), ("av", 0), ("a", 0),
    }  # fmt: skip
    assert all(row["clips"] == 4 for row in results)


def test_a_second_run_repeats_no_stage(done: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*.safetensors")}
    with caplog.at_level(logging.INFO, "avhubert"):
        demo.run(done, "smoke")
    assert caplog.text.count("done before") == 11
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*.safetensors")} == before


def test_another_size_in_the_same_folder_is_refused(done: Path) -> None:
    with pytest.raises(ConfigError, match="contains a demo of size 'smoke'"):
        demo.run(done, "quick")
    with pytest.raises(ConfigError, match="unknown --size 'huge'; known: "):
        demo.run(done, "huge")


def test_the_model_is_evaluated_from_the_command_line(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(done / "model"), str(done / "data" / "30h"), "--modality", "v"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "WER" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").is_file()


# --------------------------------------------------------------------------- other people's videos
def write_other(path: Path, frames: Iterator[np.ndarray], samples: np.ndarray) -> None:
    """640 × 360 at 30 fps (every fifth frame shown twice), audio in stereo at 44.1 kHz."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt = 640, 360, "yuv420p"
        audio = out.add_stream("aac", rate=44_100, layout="stereo")
        shown = 0
        for number, frame in enumerate(frames):
            wide = np.full((360, 640, 3), 60, np.uint8)
            wide[68:292, 200:424] = frame
            while shown * 25 <= number * 30:
                out.mux(video.encode(av.VideoFrame.from_ndarray(wide, format="rgb24")))
                shown += 1
        out.mux(video.encode())
        at = np.arange(0, len(samples), 16_000 / 44_100)
        resampled = np.interp(at, np.arange(len(samples)), samples).astype(np.int16)
        for start in range(0, len(resampled), 1024):
            stereo = np.repeat(resampled[None, start : start + 1024], 2, axis=0)
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(stereo.T.reshape(1, -1)), format="s16", layout="stereo"
            )
            frame.sample_rate, frame.pts, frame.time_base = 44_100, start, Fraction(1, 44_100)
            out.mux(audio.encode(frame))
        out.mux(audio.encode())


@pytest.fixture(scope="module")
def talk(done: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    clip = sorted((done / "corpus" / "test").rglob("*.mp4"))[0]
    path = tmp_path_factory.mktemp("talk") / "talk.mp4"
    write_other(path, read_frames(clip), read_audio(clip))
    return path


@pytest.mark.parametrize("modality", ["auto", "a", "v", "av"])
def test_a_video_of_another_kind_is_transcribed(done: Path, talk: Path, modality: str) -> None:
    found = transcribe(talk, str(done / "model"), modality)  # after so few steps the likeliest text may be none
    assert len(found.segments) == 1
    assert found.text == found.segments[0].text
    assert -20 < found.segments[0].score < 0
    assert found.segments[0].end == pytest.approx(2.0, abs=0.2)
    assert found.modality == ("av" if modality == "auto" else modality)
    wordless = "the model found no words in what it read: speech unlike its training, or no speech"
    assert found.warnings == ([] if found.text else [wordless])
    assert [word.text for word in found.words] == found.text.split()
    times = [time for word in found.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(0 <= time <= found.segments[0].end for time in times)
    assert all(0 <= word.confidence <= 1 for word in found.words)


def test_formats_and_files(done: Path, talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", str(done / "model")]
    assert main(["transcribe", str(talk), *model]) == 0
    text = capsys.readouterr().out.strip()
    for form in ("txt", "srt", "vtt", "json"):
        assert main(["transcribe", str(talk), *model, "--format", form, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "talk.txt").read_text(encoding="utf-8").strip() == text
    # a model of so few steps may say nothing, which is no caption
    assert (tmp_path / "talk.srt").read_text(encoding="utf-8").startswith("1\n00:00:00,000 --> 00:00:0" if text else "")
    assert (
        (tmp_path / "talk.vtt")
        .read_text(encoding="utf-8")
        .startswith("WEBVTT\n" + "\n1\n00:00:00.000 --> " * bool(text))
    )
    assert json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))["text"] == text


def test_a_file_that_fails_does_not_stop_the_others(
    done: Path, talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("not a video", encoding="utf-8")
    assert main(["transcribe", str(broken), str(talk), "--model", str(done / "model")]) == 1
    shown = capsys.readouterr()
    assert "talk.mp4: " in shown.out
    assert "broken.mp4" in shown.err
    assert "1 of 2 files could not be transcribed" in shown.err
    assert "Traceback" not in shown.err


def test_a_still_picture_of_a_face_is_warned_about(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "still.mp4"
    write_video(path, [skimage.data.astronaut()] * 40, audio=np.zeros(25_600, np.int16))
    assert main(["transcribe", str(path), "--model", str(done / "model")]) == 0
    assert "warning" in capsys.readouterr().err
    found = transcribe(path, str(done / "model"), "v")
    assert "the mouth does not move" in found.warnings[0]


def test_a_video_without_a_face_is_heard_and_told(done: Path, tmp_path: Path) -> None:
    path = tmp_path / "wall.mp4"
    clip = sorted((done / "corpus" / "test").rglob("*.mp4"))[0]
    samples = read_audio(clip)
    write_video(path, [np.full((224, 224, 3), 90, np.uint8)] * (len(samples) // 640), audio=samples)
    found = transcribe(path, str(done / "model"))
    assert found.modality == "a"
    assert "no face was found" in found.warnings[0]
