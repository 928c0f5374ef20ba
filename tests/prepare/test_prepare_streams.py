"""`prepare --streams`: recordings without audio, without video and without a face become clips of one stream."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from avhubert.cli.app import main
from avhubert.corpora.sources import SourceClip
from avhubert.data.audio import read_audio, write_wav
from avhubert.data.manifest import Clip, read_manifest
from avhubert.data.transcripts import read_transcripts
from avhubert.data.video import read_gray, write_video
from avhubert.prepare.clip import prepare_clip
from avhubert.prepare.pipeline import prepare
from tests.data.recordings import audio_file

FACE = skimage.data.astronaut()[:256, 100:356]
FRAMES = [np.roll(FACE, number % 5, 1) for number in range(12)]
WALL = [np.full_like(FACE, 90 + number % 3) for number in range(12)]
SAMPLES = np.arange(12 * 640, dtype=np.int16)


@pytest.fixture(scope="module")
def src(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of each kind: both streams, video alone, audio alone, audio with a video without a face."""
    folder = tmp_path_factory.mktemp("src")
    for number in range(2):
        write_video(folder / f"both{number}.mp4", FRAMES, audio=SAMPLES)
        write_video(folder / f"silent{number}.mp4", FRAMES)
        write_wav(folder / f"sound{number}.wav", SAMPLES)
        write_video(folder / f"wall{number}.mp4", WALL, audio=SAMPLES)
    write_video(folder / "beside.mp4", FRAMES)
    write_wav(folder / "beside.wav", SAMPLES)
    return folder


def prepared(dst: Path) -> dict[str, Clip]:
    return {clip.id: clip for split in ("train", "valid", "test") for clip in read_manifest(dst / f"{split}.tsv")}


def lengths(clips: dict[str, Clip]) -> dict[str, tuple[int, int]]:
    return {name: (clip.video_frames, clip.audio_samples) for name, clip in clips.items()}


BOTH = {"both0": (12, 7680), "both1": (12, 7680), "beside": (12, 7680)}
SILENT = {"silent0": (12, 0), "silent1": (12, 0)}
SOUND = dict.fromkeys(("sound0", "sound1", "wall0", "wall1"), (0, 7680))
AAC = {"both0": (0, 8192), "both1": (0, 8192), "wall0": (0, 8192), "wall1": (0, 8192)}  # whole AAC packets


def of_one_stream(clips: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return {name: (frames, 0) for name, (frames, _) in clips.items()}


def test_each_choice_of_streams(src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        "av": BOTH,
        "v": of_one_stream({**BOTH, **SILENT}),
        "any": {**BOTH, **SILENT, **SOUND, "wall0": AAC["wall0"], "wall1": AAC["wall1"]},
        "a": {**SOUND, **AAC, "beside": (0, 7680)},
    }
    for streams, clips in expected.items():
        arguments = ["prepare", "folder", str(src), str(tmp_path / streams), "--workers", "1", "--max-rejected", "0.9"]
        assert main([*arguments, "--streams", streams]) == 0
        assert lengths(prepared(tmp_path / streams)) == clips, streams
        output = capsys.readouterr().out
        hint = "--streams any also takes recordings with audio or video alone, which"
        assert (hint in output) == (streams != "any")
        if streams == "any":
            assert "2 clips have no audio" in output
            assert "4 clips have no video" in output
    clips = prepared(tmp_path / "any")
    assert read_gray(clips["silent0"].video).shape == (12, 96, 96)
    assert np.array_equal(read_audio(clips["sound0"].audio), SAMPLES)
    assert not clips["sound0"].video.exists()
    assert not clips["silent0"].audio.exists()
    report = (tmp_path / "any" / "report.html").read_text(encoding="utf-8")
    assert "without video: no face was found in any of the 12 frames of the file" in report
    assert (tmp_path / "any" / "rejected.tsv").read_text(encoding="utf-8") == ""
    # the clips with both streams are those of the default
    for name, clip in prepared(tmp_path / "av").items():
        assert clip.video.read_bytes() == clips[name].video.read_bytes()
        assert clip.audio.read_bytes() == clips[name].audio.read_bytes()


def test_a_second_run_with_other_streams_prepares_only_what_changes(src: Path, tmp_path: Path) -> None:
    settings = {"workers": 1, "max_rejected": 0.9}

    def times() -> dict[str, int]:
        return {path.stem: path.stat().st_mtime_ns for path in (tmp_path / "video").glob("*.mp4")}

    prepare("folder", src, tmp_path, **settings)
    before = times()
    assert set(before) == set(BOTH)
    prepare("folder", src, tmp_path, modality="any", **settings)
    assert {name: time for name, time in times().items() if name in before} == before
    assert len(prepared(tmp_path)) == 9
    after = times()
    prepare("folder", src, tmp_path, modality="any", **settings)
    assert times() == after
    prepare("folder", src, tmp_path, **settings)  # back to the default: clips of one stream are rejected again
    assert lengths(prepared(tmp_path)) == BOTH


def test_clips_of_one_stream_keep_their_transcripts(src: Path, tmp_path: Path) -> None:
    for path in src.glob("*.*"):
        if path.suffix != ".txt":
            path.with_suffix(".txt").write_text(
                f"this is {path.stem.replace('0', ' zero').replace('1', ' one')}", encoding="utf-8"
            )
    try:
        prepare("folder", src, tmp_path, workers=1, modality="any")
    finally:
        for path in src.glob("*.txt"):
            path.unlink()
    texts = {}
    for split in ("train", "valid", "test"):
        clips = read_manifest(tmp_path / f"{split}.tsv")
        texts |= dict(zip([clip.id for clip in clips], read_transcripts(tmp_path / f"{split}.wrd", clips), strict=True))
    assert texts["silent1"] == "this is silent one"
    assert texts["sound0"] == "this is sound zero"
    assert len(texts) == 9


def test_a_folder_without_audio_says_how_to_use_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "src").mkdir()
    for number in range(3):
        write_video(tmp_path / "src" / f"{number}.mp4", FRAMES)
    arguments = ["prepare", "folder", str(tmp_path / "src"), str(tmp_path / "dst"), "--workers", "1"]
    assert main(arguments) == 1
    message = " ".join(capsys.readouterr().err.split())
    assert "the first, 0: no audio track; --streams any also takes recordings with audio or video alone" in message
    assert main([*arguments, "--streams", "v"]) == 0
    assert set(lengths(prepared(tmp_path / "dst")).values()) == {(12, 0)}


@pytest.mark.parametrize(
    ("frames", "samples", "reason"),
    [
        (FRAMES, SAMPLES[: 640 * 2], "audio and video differ in length (-0."),
        (WALL[:4], SAMPLES[: 640 * 3], "too short"),
        ([*WALL, *WALL, *WALL], np.tile(SAMPLES, 3), "too long (more than 1 s)"),
        (WALL, None, "no face was found"),
    ],
)
def test_what_is_rejected_with_any_streams(
    tmp_path: Path, frames: list[np.ndarray], samples: np.ndarray | None, reason: str
) -> None:
    write_video(tmp_path / "a.mp4", frames, audio=samples)
    done = prepare_clip(SourceClip("a", tmp_path / "a.mp4", ""), tmp_path / "dst", 1.0, modality="any")
    assert done.rejection is not None
    assert done.rejection.reason.startswith(reason)
    assert not (tmp_path / "dst").exists()


@pytest.mark.parametrize(
    "matrix", [(-1, 0, 0, 1), (0, 1, -1, 0)], ids=["left and right mirrored", "rotated by 90° clockwise"]
)
def test_a_mouth_clip_with_a_display_matrix_is_turned(tmp_path: Path, matrix: tuple[int, ...]) -> None:
    frames = np.full((30, 96, 96), 60, np.uint8)
    frames[:, :48, :30] = 220  # top left
    frames += np.random.default_rng(0).integers(0, 20, frames.shape, np.uint8)
    (tmp_path / "src").mkdir()
    write_video(tmp_path / "src" / "a.mp4", frames)
    stored = (tmp_path / "src" / "a.mp4").read_bytes()
    assert prepare_clip(SourceClip("a", tmp_path / "src" / "a.mp4", ""), tmp_path / "as stored", modality="v").frames
    assert (tmp_path / "as stored" / "video" / "a.mp4").read_bytes() == stored
    content, offset = bytearray(stored), stored.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    content[offset : offset + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "src" / "a.mp4").write_bytes(content)
    assert prepare_clip(SourceClip("a", tmp_path / "src" / "a.mp4", ""), tmp_path / "turned", modality="v").frames
    turned = read_gray(tmp_path / "turned" / "video" / "a.mp4").astype(int)
    expected = frames[:, :, ::-1] if matrix[0] else np.rot90(frames, -1, (1, 2))
    assert np.abs(turned - expected).mean() < 8
    assert np.abs(turned - frames).mean() > 20


@pytest.mark.parametrize("name", ["talk.flac", "talk.FLAC"])
def test_audio_of_any_format_beside_a_silent_video(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / "talk.mp4", FRAMES)
    audio_file(tmp_path / name, SAMPLES, "flac")
    result = prepare_clip(SourceClip("talk", tmp_path / "talk.mp4", ""), tmp_path / "out")
    assert (result.rejection, result.frames, result.samples) == (None, 12, 7680)
