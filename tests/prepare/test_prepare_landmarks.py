"""Landmarks that somebody made before, and faces too small for the short-range detector."""

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


class Kept(BlazeFace):
    """Keeps the mesh's points of every frame as those of the 68 that are used."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[np.ndarray] = []

    def landmarks(self, picture: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, float]:
        points, presence = super().landmarks(picture, region)
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
    found = {}
    for number, video in enumerate(sorted((root / "corpus").rglob("*.mp4"))[:3]):
        shutil.copy(video, root / "src" / "day" / f"{number}.mp4")
        model = Kept()
        find_mouth(video, model=model)
        found[f"day/{number}"] = model.rows
    return root / "src", root / "marks", found


def test_a_small_face_is_found_by_the_full_range_detector(face_model: BlazeFace) -> None:
    picture = np.full((512, 512, 3), 110, np.uint8)
    head = skimage.data.astronaut()[:360:3, :480:3]
    picture[100 : 100 + head.shape[0], 60 : 60 + head.shape[1]] = head
    assert not face_model._detect(*face_model._short_range, picture)
    (face,) = face_model.detect(picture)
    middle = (face.box[:2] + face.box[2:]) / 2
    assert np.abs(middle - np.array([60 + 224 / 3, 100 + 125 / 3])).max() < 6
    tracks, _ = track_faces([picture] * 2, face_model)
    assert np.abs(tracks[0].frames[1].mouth - np.array([60 + 224 / 3, 100 + 146 / 3])).max() < 4


def test_both_detectors_lead_to_the_same_crop(face_model: BlazeFace) -> None:
    picture = skimage.data.astronaut()
    crops = []
    for detector in (face_model._short_range, face_model._full_range):
        model = BlazeFace()
        model._short_range = model._full_range = detector
        (one,), _ = track_faces([picture], model)
        crops.append(one.frames[0].mouth)
    assert np.abs(crops[0] - crops[1]).max() < 1.5


def test_the_same_points_give_the_same_crop(folder: tuple[Path, Path, dict[str, list[np.ndarray]]]) -> None:
    src, _, found = folder
    one, other = find_mouth(src / "day" / "0.mp4"), find_mouths(src / "day" / "0.mp4", points=found["day/0"])[0]
    assert other.transforms == pytest.approx(one.transforms, abs=1e-4)
    assert other.centres == pytest.approx(one.centres, abs=1e-3)
    assert other.face_share == 1


@pytest.mark.parametrize("ending", ["pkl", "npz"])
def test_landmarks_on_disk_give_the_clips_that_finding_them_gives(
    folder: tuple[Path, Path, dict[str, list[np.ndarray]]], tmp_path: Path, ending: str
) -> None:
    src, _, found = folder
    marks = tmp_path / "marks"
    (marks / "day").mkdir(parents=True)
    for name, rows in found.items():
        if ending == "pkl":
            (marks / f"{name}.pkl").write_bytes(pickle.dumps([None, *rows[1:]] if name == "day/0" else rows))
        else:
            kept = np.stack(rows)
            kept[0] = np.nan  # no face there
            np.savez(marks / f"{name}.npz", landmarks=kept)
    prepare("folder", src, tmp_path / "here", workers=1)
    assert main(["prepare", "folder", str(src), str(tmp_path / "there"), "--landmarks", str(marks)]) == 0
    for split in ("train", "valid", "test"):
        ours, theirs = (read_manifest(tmp_path / name / f"{split}.tsv") for name in ("here", "there"))
        assert [clip.id for clip in ours] == [clip.id for clip in theirs]
        for one, other in zip(ours, theirs, strict=True):
            difference = np.abs(read_gray(one.video).astype(int) - read_gray(other.video))
            assert difference[12:].mean() < 2  # the first frame's landmarks, which are lost, have no part in these
            assert difference.mean() < 3


def test_what_is_missing_or_does_not_fit_is_left_out_and_named(
    folder: tuple[Path, Path, dict[str, list[np.ndarray]]], tmp_path: Path
) -> None:
    src, marks, found = folder
    (marks / "day" / "0.pkl").write_bytes(pickle.dumps(found["day/0"]))
    (marks / "day" / "1.pkl").write_bytes(pickle.dumps(found["day/1"][:-9]))
    prepare("folder", src, tmp_path / "dst", workers=1, landmarks=marks, max_rejected=0.9)
    reasons = dict(line.split("\t") for line in (tmp_path / "dst" / "rejected.tsv").read_text().splitlines())
    assert set(reasons) == {"day/1", "day/2"}
    assert "the landmarks are of " in reasons["day/1"]
    assert "no landmarks: " in reasons["day/2"]
    with pytest.raises(ConfigError, match="which is not a folder"):
        prepare("folder", src, tmp_path / "dst", landmarks=tmp_path / "gone")
    video = src / "day" / "0.mp4"
    frames = sum(1 for _ in read_frames(video))
    with pytest.raises(MediaError, match="no face was found in any of"):
        find_mouths(video, points=[None] * frames)


def test_changed_landmarks_are_used(folder: tuple[Path, Path, dict[str, list[np.ndarray]]], tmp_path: Path) -> None:
    src, _, found = folder
    marks = tmp_path / "marks"
    (marks / "day").mkdir(parents=True)
    for name, rows in found.items():
        (marks / f"{name}.pkl").write_bytes(pickle.dumps(rows))
    dst = tmp_path / "dst"
    prepare("folder", src, dst, workers=1, landmarks=marks)
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in (dst / "video").rglob("*.mp4")}
    assert len(before) == 3
    (marks / "day" / "1.pkl").write_bytes(pickle.dumps([row + np.float32([0, 9]) for row in found["day/1"]]))
    prepare("folder", src, dst, workers=1, landmarks=marks)
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
def test_wrong_landmarks_are_refused_unread(
    tmp_path: Path, content: bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(MediaError, match=words):
        read_landmarks(tmp_path, ["a"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("ending", ["pkl", "npz"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_landmarks_are_refused(
    tmp_path_factory: pytest.TempPathFactory, ending: str, data: st.DataObject
) -> None:
    """Cut or overwritten bytes either leave points that can be read or are refused by one sentence."""
    kept = io.BytesIO()
    rows = np.arange(272, dtype=np.float64).reshape(2, 68, 2)
    kept.write(pickle.dumps(list(rows))) if ending == "pkl" else np.savez(kept, landmarks=rows)
    content = bytearray(kept.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    folder = tmp_path_factory.mktemp("damaged")
    (folder / f"a.{ending}").write_bytes(content)
    with contextlib.suppress(MediaError):
        found = read_landmarks(folder, ["a"])
        assert all(row is None or row.shape == (68, 2) for row in found)


def test_pickles_of_old_and_new_numpy_are_read(tmp_path: Path) -> None:
    rows = [np.arange(136, dtype=np.int64).reshape(68, 2), None]
    for protocol in (0, 2, 4):
        content = pickle.dumps(rows, protocol=protocol)
        for kind in (content, content.replace(b"numpy._core", b"numpy.core") if protocol == 0 else content):
            (tmp_path / "a.pkl").write_bytes(kind)
            found = read_landmarks(tmp_path, ["a"])
            assert found[0] is not None
            assert found[0].tolist() == rows[0].tolist()
            assert found[1] is None
    (frame,) = stored_track(found).frames.values()
    assert frame.mouth.tolist() == rows[0][48:68].mean(0).tolist()


def test_nothing_but_litert_s_news_is_kept_from_stderr(capfd: pytest.CaptureFixture) -> None:
    with _without_delegate_message():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nsomething else\n")
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "something else\nlater\n"
    BlazeFace()
    assert capfd.readouterr().err == ""
