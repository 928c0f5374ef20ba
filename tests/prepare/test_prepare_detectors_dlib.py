"""dlib's 68 landmarks through the same interface, with a predictor that is trained here on synthetic faces."""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest

from avhubert.cli.app import main
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.manifest import read_manifest
from avhubert.data.media import MediaPart
from avhubert.data.video import read_frames, write_video
from avhubert.errors import CheckpointError, ConfigError
from avhubert.prepare.detectors.blazeface import MESH, BlazeFace
from avhubert.prepare.detectors.dlib import CNN, PREDICTOR, Dlib68
from avhubert.prepare.detectors.interface import Face
from avhubert.prepare.mouth import find_mouth
from avhubert.prepare.tracking import track_faces


class Teacher(BlazeFace):
    """The default detector's points in dlib's layout, as training targets; unused points are at the nose."""

    def points(self, frame: np.ndarray) -> np.ndarray:
        from avhubert.prepare.detectors.interface import IBUG, region_of_face

        mesh, _ = self.landmarks(frame, region_of_face(self.detect(frame)[0]))
        row = np.tile(mesh[MESH.stable[0]], (68, 1))
        row[list(IBUG.mouth)] = mesh[list(MESH.mouth)]
        row[list(IBUG.stable)] = mesh[list(MESH.stable)]
        return row


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    make_corpus(root, 6, speakers=6, seed=5)
    return root


@pytest.fixture(scope="module")
def models(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    dlib = pytest.importorskip("dlib", reason="dlib is not installed (pip install 'avhubert[dlib]')")
    teacher, hog = Teacher(), dlib.get_frontal_face_detector()
    images, faces = [], []
    for video in sorted(corpus.rglob("*.mp4")):
        for frame in list(read_frames(video))[::12]:
            rectangles = hog(frame, 1)
            points = [dlib.point(int(x), int(y)) for x, y in np.rint(teacher.points(frame))]
            images.append(frame)
            faces.append([dlib.full_object_detection(rectangles[0], dlib.points(points))])
    options = dlib.shape_predictor_training_options()
    options.cascade_depth, options.num_trees_per_cascade_level, options.tree_depth, options.num_threads = 5, 40, 3, 1
    options.nu, options.oversampling_amount, options.feature_pool_size = 0.25, 8, 200
    folder = tmp_path_factory.mktemp("dlib")
    dlib.train_shape_predictor(images, faces, options).save(str(folder / PREDICTOR))
    return folder


def test_dlib_and_default_detector_give_the_same_crop(models: Path, corpus: Path) -> None:
    video = min(corpus.rglob("*.mp4"))
    frames = list(read_frames(video))
    (face_track,), count = track_faces(frames, Dlib68(models))
    assert count == len(face_track.frames) == len(frames)
    ours = find_mouth(MediaPart(video))
    theirs = find_mouth(MediaPart(video), model=Dlib68(models))
    assert np.median(np.linalg.norm(ours.centres - theirs.centres, axis=1)) < 5
    assert theirs.face_share == 1


def test_a_face_that_leaves_and_returns_is_detected_again(models: Path, corpus: Path) -> None:
    frames = list(read_frames(min(corpus.rglob("*.mp4"))))[:10]
    empty = [np.full_like(frames[0], 120)] * 5
    (face_track,), count = track_faces([*frames[:5], *empty, *frames[5:]], Dlib68(models))
    assert count == 15
    assert sorted(face_track.frames) == [*range(5), *range(10, 15)]


def test_outputs_have_the_shapes_of_the_interface(models: Path, corpus: Path) -> None:
    frame = next(read_frames(min(corpus.rglob("*.mp4"))))
    (face,) = Dlib68(models).detect(frame)
    assert isinstance(face, Face)
    assert face.box.shape == (4,)
    assert face.eyes.shape == (2, 2)
    points, presence = Dlib68(models).landmarks(frame, np.array([112, 120, 160, 0.0]))
    assert (points.shape, points.dtype, presence) == ((68, 2), np.float32, 1.0)


def test_prepare_with_dlib(models: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.mkdir()
    for number, video in enumerate(sorted(corpus.rglob("*.mp4"))[:3]):
        (src / f"{number}.mp4").write_bytes(video.read_bytes())
    command = ["prepare", "folder", str(src), str(dst), "--landmarks", f"dlib:{models}", "--workers", "1"]
    assert main(command) == 0
    assert sum(len(read_manifest(dst / f"{split}.tsv")) for split in ("train", "valid", "test")) == 3
    inodes = {path: path.stat().st_ino for path in dst.rglob("*.mp4")}
    assert main(command) == 0
    assert {path: path.stat().st_ino for path in dst.rglob("*.mp4")} == inodes


def test_missing_or_damaged_model_files_are_errors(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=f"there is no {PREDICTOR} in"):
        Dlib68(tmp_path)
    (tmp_path / PREDICTOR).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"dlib cannot read .*68_face_landmarks"):
        Dlib68(tmp_path)
    (tmp_path / PREDICTOR).write_bytes((models / PREDICTOR).read_bytes())
    (tmp_path / CNN).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"dlib cannot read .*mmod_human"):
        Dlib68(tmp_path)
    src = tmp_path / "src"
    src.mkdir()
    write_video(src / "a.mp4", np.zeros((30, 64, 64, 3), np.uint8), audio=np.zeros(30 * 640, np.int16))
    missing = f"dlib:{tmp_path / 'gone'}"
    assert main(["prepare", "folder", str(src), str(tmp_path / "dst"), "--landmarks", missing]) == 2
    assert "gone, which is not a folder" in capsys.readouterr().err


def test_a_predictor_with_another_number_of_points_is_an_error(models: Path, corpus: Path, tmp_path: Path) -> None:
    import dlib

    frame = next(read_frames(min(corpus.rglob("*.mp4"))))
    options = dlib.shape_predictor_training_options()
    options.cascade_depth, options.num_trees_per_cascade_level, options.num_threads = 2, 5, 1
    detection = dlib.full_object_detection(
        dlib.rectangle(50, 50, 170, 170), dlib.points([dlib.point(80, 80 + i) for i in range(5)])
    )
    dlib.train_shape_predictor([frame] * 2, [[detection]] * 2, options).save(str(tmp_path / PREDICTOR))
    with pytest.raises(CheckpointError, match="has 5 points; the mouth crop needs the 68-point predictor"):
        Dlib68(tmp_path).landmarks(frame, np.array([112, 112, 160, 0.0]))


def test_error_without_dlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original_import = builtins.__import__

    def import_without_dlib(name: str, *rest: object) -> object:
        if name == "dlib":
            raise ImportError(name)
        return original_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", import_without_dlib)
    with pytest.raises(ConfigError, match=r"needs dlib, which is not installed; run: pip install 'avhubert\[dlib\]'"):
        Dlib68(tmp_path)
