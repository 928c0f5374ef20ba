"""Stored landmarks, and faces that are too small for the short-range detector."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st

from avhubert.cli.app import main
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.manifest import read_manifest
from avhubert.data.media import MediaPart
from avhubert.data.video import read_frames, read_gray
from avhubert.errors import ConfigError, MediaError
from avhubert.prepare.detectors.blazeface import MESH, BlazeFace, _without_delegate_message
from avhubert.prepare.detectors.interface import IBUG
from avhubert.prepare.detectors.stored import read_landmarks, stored_track
from avhubert.prepare.mouth import find_mouth, find_mouths
from avhubert.prepare.pipeline import prepare
from avhubert.prepare.tracking import track_faces


@pytest.fixture(scope="module")
def face_model() -> BlazeFace:
    return BlazeFace()


class RecordingModel(BlazeFace):
    """Records the mesh points of every frame in the 68-point layout."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[np.ndarray] = []

    def landmarks(self, frame: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, float]:
        points, presence = super().landmarks(frame, region)
        row = np.tile(points.mean(0), (68, 1))
        row[list(IBUG.mouth)] = points[list(MESH.mouth)]
        row[list(IBUG.stable)] = points[list(MESH.stable)]
        self.rows.append(row.astype(np.float32))
        return points, presence


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, list[np.ndarray]]]:
    """Three videos, a folder for their landmarks, and the landmarks."""
    root = tmp_path_factory.mktemp("marked")
    make_corpus(root / "corpus", 4, speakers=2, seed=9)
    (root / "src" / "day").mkdir(parents=True)
    (root / "marks" / "day").mkdir(parents=True)
    stored_points = {}
    for number, video in enumerate(sorted((root / "corpus").rglob("*.mp4"))[:3]):
        shutil.copy(video, root / "src" / "day" / f"{number}.mp4")
        model = RecordingModel()
        find_mouth(MediaPart(video), model=model)
        stored_points[f"day/{number}"] = model.rows
    return root / "src", root / "marks", stored_points


def test_full_range_detector_detects_a_small_face(face_model: BlazeFace) -> None:
    frame = np.full((512, 512, 3), 110, np.uint8)
    small_face = skimage.data.astronaut()[:360:3, :480:3]
    frame[100 : 100 + small_face.shape[0], 60 : 60 + small_face.shape[1]] = small_face
    assert not face_model._detect(*face_model._short_range, frame)
    (face,) = face_model.detect(frame)
    middle = (face.box[:2] + face.box[2:]) / 2
    assert np.abs(middle - np.array([60 + 224 / 3, 100 + 125 / 3])).max() < 6
    tracks, _ = track_faces([frame] * 2, face_model)
    assert np.abs(tracks[0].frames[1].mouth - np.array([60 + 224 / 3, 100 + 146 / 3])).max() < 4


def test_both_detectors_give_the_same_crop(face_model: BlazeFace) -> None:
    frame = skimage.data.astronaut()
    crops = []
    for detector in (face_model._short_range, face_model._full_range):
        model = BlazeFace()
        model._short_range = model._full_range = detector
        (face_track,), _ = track_faces([frame], model)
        crops.append(face_track.frames[0].mouth)
    assert np.abs(crops[0] - crops[1]).max() < 1.5


def test_the_same_points_give_the_same_crop(folder: tuple[Path, Path, dict[str, list[np.ndarray]]]) -> None:
    src, _, stored_points = folder
    first_clip, second_clip = (
        find_mouth(MediaPart(src / "day" / "0.mp4")),
        find_mouths(MediaPart(src / "day" / "0.mp4"), points=stored_points["day/0"])[0],
    )
    assert second_clip.transforms == pytest.approx(first_clip.transforms, abs=1e-4)
    assert second_clip.centres == pytest.approx(first_clip.centres, abs=1e-3)
    assert second_clip.face_share == 1


@pytest.mark.parametrize("ending", ["pkl", "npz"])
def test_stored_landmarks_give_the_same_clips_as_the_detector(
    folder: tuple[Path, Path, dict[str, list[np.ndarray]]], tmp_path: Path, ending: str
) -> None:
    src, _, stored_points = folder
    landmark_folder = tmp_path / "marks"
    (landmark_folder / "day").mkdir(parents=True)
    for name, rows in stored_points.items():
        if ending == "pkl":
            (landmark_folder / f"{name}.pkl").write_bytes(pickle.dumps([None, *rows[1:]] if name == "day/0" else rows))
        else:
            rows_with_gap = np.stack(rows)
            rows_with_gap[0] = np.nan  # no face there
            np.savez(landmark_folder / f"{name}.npz", landmarks=rows_with_gap)
    prepare("folder", src, tmp_path / "here", workers=1)
    assert main(["prepare", "folder", str(src), str(tmp_path / "there"), "--landmarks", str(landmark_folder)]) == 0
    for split in ("train", "valid", "test"):
        ours, theirs = (read_manifest(tmp_path / name / f"{split}.tsv") for name in ("here", "there"))
        assert [clip.id for clip in ours] == [clip.id for clip in theirs]
        for first_clip, second_clip in zip(ours, theirs, strict=True):
            difference = np.abs(read_gray(first_clip.video).astype(int) - read_gray(second_clip.video))
            assert difference[12:].mean() < 2  # these do not use the landmarks of the first frame, which are missing
            assert difference.mean() < 3


def test_missing_or_unsuitable_landmarks_reject_the_clip(
    folder: tuple[Path, Path, dict[str, list[np.ndarray]]], tmp_path: Path
) -> None:
    src, landmark_folder, stored_points = folder
    (landmark_folder / "day" / "0.pkl").write_bytes(pickle.dumps(stored_points["day/0"]))
    (landmark_folder / "day" / "1.pkl").write_bytes(pickle.dumps(stored_points["day/1"][:-9]))
    prepare("folder", src, tmp_path / "dst", workers=1, landmarks=landmark_folder, max_rejected=0.9)
    reasons = dict(
        line.split("\t") for line in (tmp_path / "dst" / "rejected.tsv").read_text(encoding="utf-8").splitlines()
    )
    assert set(reasons) == {"day/1", "day/2"}
    assert "the landmarks are of " in reasons["day/1"]
    assert "no landmarks: " in reasons["day/2"]
    with pytest.raises(ConfigError, match="which is not a folder"):
        prepare("folder", src, tmp_path / "dst", landmarks=tmp_path / "gone")
    video = src / "day" / "0.mp4"
    frames = sum(1 for _ in read_frames(video))
    with pytest.raises(MediaError, match="no face was found in any of"):
        find_mouths(MediaPart(video), points=[None] * frames)


def test_changed_landmarks_are_used(folder: tuple[Path, Path, dict[str, list[np.ndarray]]], tmp_path: Path) -> None:
    src, _, stored_points = folder
    landmark_folder = tmp_path / "marks"
    (landmark_folder / "day").mkdir(parents=True)
    for name, rows in stored_points.items():
        (landmark_folder / f"{name}.pkl").write_bytes(pickle.dumps(rows))
    dst = tmp_path / "dst"
    prepare("folder", src, dst, workers=1, landmarks=landmark_folder)
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in (dst / "video").rglob("*.mp4")}
    assert len(before) == 3
    (landmark_folder / "day" / "1.pkl").write_bytes(
        pickle.dumps([row + np.float32([0, 9]) for row in stored_points["day/1"]])
    )
    prepare("folder", src, dst, workers=1, landmarks=landmark_folder)
    changed = [path.stem for path, (inode, _) in before.items() if path.stat().st_ino != inode]
    assert changed == ["1"]
    assert (dst / "video" / "day" / "1.mp4").read_bytes() != before[dst / "video" / "day" / "1.mp4"][1]


class Harmful:
    def __reduce__(self) -> tuple:
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps([Harmful()]), "it contains a builtins.print, which is no array"),
        (pickle.dumps([np.zeros((5, 2))]), "they are not 68 points a frame"),
        (pickle.dumps([]), "they are not 68 points a frame"),
        (pickle.dumps(3), "not iterable"),
        (b"cnumpy\nload\n.", "it contains a numpy.load, which is no array"),
        (b"cnumpy._core.multiarray\nfromfile\n.", "it contains a numpy._core.multiarray.fromfile, which is no array"),
        (b"", "Ran out of input"),
    ],
)
def test_malformed_or_harmful_landmark_files_are_errors(
    tmp_path: Path, content: bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(MediaError, match=words):
        read_landmarks(tmp_path, ["a"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("ending", ["pkl", "npz"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_landmark_files_are_errors(
    tmp_path_factory: pytest.TempPathFactory, ending: str, data: st.DataObject
) -> None:
    """Truncated or overwritten files either still contain points or are a MediaError."""
    buffer = io.BytesIO()
    rows = np.arange(272, dtype=np.float64).reshape(2, 68, 2)
    buffer.write(pickle.dumps(list(rows))) if ending == "pkl" else np.savez(buffer, landmarks=rows)
    content = bytearray(buffer.getvalue())
    for index in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[index] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    folder = tmp_path_factory.mktemp("damaged")
    (folder / f"a.{ending}").write_bytes(content)
    with contextlib.suppress(MediaError):
        stored_points = read_landmarks(folder, ["a"])
        assert all(row is None or row.shape == (68, 2) for row in stored_points)


def test_pickles_of_old_and_new_numpy_are_read(tmp_path: Path) -> None:
    rows = [np.arange(136, dtype=np.int64).reshape(68, 2), None]
    for protocol in (0, 2, 4):
        content = pickle.dumps(rows, protocol=protocol)
        for kind in (content, content.replace(b"numpy._core", b"numpy.core") if protocol == 0 else content):
            (tmp_path / "a.pkl").write_bytes(kind)
            stored_points = read_landmarks(tmp_path, ["a"])
            assert stored_points[0] is not None
            assert stored_points[0].tolist() == rows[0].tolist()
            assert stored_points[1] is None
    (frame,) = stored_track(stored_points).frames.values()
    assert frame.mouth.tolist() == rows[0][48:68].mean(0).tolist()


def test_only_the_delegate_message_is_removed_from_stderr(capfd: pytest.CaptureFixture) -> None:
    with _without_delegate_message():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nsomething else\n")
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "something else\nlater\n"
    BlazeFace()
    assert capfd.readouterr().err == ""
