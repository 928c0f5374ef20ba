"""Faces in pictures: detector and landmark models behind one small interface; tracks over a video; the speaker.

Coordinates are (x, y) in pixels of the picture, pixel centres at whole numbers. Pictures are RGB uint8 [H, W, 3].
"""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from avhubert.errors import ConfigError, MediaError
from avhubert.prepare.detectors import models

MIN_SCORE = 0.5  # of a detection
DETECT_EVERY = 12  # frames between detections while a face is tracked
MIN_OVERLAP = 0.3  # of two boxes (intersection over union) to be the same face
NEWS = b"INFO: Created TensorFlow Lite"
REGION = 1.5  # side of the square in which landmarks are looked for, in sides of the face's box

_STDERR = Lock()  # of the process, while it leads elsewhere


@dataclass(frozen=True)
class Layout:
    """Where a model's points lie on a face, as the numbers of those that are used.

    stable: those that the published crop is stabilised on: nose base, then the eyes' corners from left to right.
    """

    stable: tuple[int, ...]
    mouth: tuple[int, ...]
    inner_lips: tuple[int, int]


IBUG = Layout((33, 36, 39, 42, 45), tuple(range(48, 68)), (62, 66))
MESH = Layout(
    (2, 33, 133, 362, 263), (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178),
    (13, 14),
)  # fmt: skip


@dataclass(frozen=True)
class Face:
    """A detected face: box (left, top, right, bottom), eyes (2 × (x, y), the picture's left one first), score 0…1."""

    box: np.ndarray
    eyes: np.ndarray
    score: float


@dataclass(frozen=True)
class Landmarks:
    """A face's landmarks in one frame, small enough to keep for hours of video.

    stable float32 [5, 2]: nose base and eye corners; mouth float32 [2]: mean of the lips; lip_gap: pixels between the
    inner lips; box float32 [4]: around all landmarks.
    """

    stable: np.ndarray
    mouth: np.ndarray
    lip_gap: float
    box: np.ndarray


class LandmarkModel(Protocol):
    """What `track` needs: detect faces in a picture, and place landmarks inside a region.

    layout: of the landmarks; detect_every: frames between detections while a face is followed; 1: none is followed.
    """

    layout: Layout
    detect_every: int

    def detect(self, picture: np.ndarray) -> list[Face]: ...

    def landmarks(self, picture: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, float]: ...


# --------------------------------------------------------------------------- BlazeFace and mesh on LiteRT
def _grid(cells: int, repeats: int) -> np.ndarray:
    """Anchor centres [cells² · repeats, 2] in 0…1, row by row."""
    line = (np.arange(cells) + 0.5) / cells
    x, y = np.meshgrid(line, line)
    return np.repeat(np.stack([x, y], -1).reshape(-1, 2), repeats, axis=0).astype(np.float32)


@dataclass(frozen=True)
class _Detector:
    """A face detector's network: its square input in pixels, and the centres of what it answers about."""

    file: str
    side: int
    anchors: np.ndarray


@cache
def _detectors() -> tuple[_Detector, _Detector]:
    """Short range, for faces of a fifth of the picture and more; full range, for those down to a twentieth."""
    return (
        _Detector("detector", 128, np.concatenate([_grid(16, 2), _grid(8, 6)])),
        _Detector("full_range", 192, _grid(48, 1)),
    )


def _sample(picture: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """float32 [size, size, 3] whose pixel (x, y) shows the picture at matrix · (x, y, 1), bilinear, 0 outside."""
    height, width = picture.shape[:2]
    corners = matrix @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]])
    left, top = np.maximum(np.floor(corners.min(1)).astype(int) - 1, 0)
    right, bottom = np.ceil(corners.max(1)).astype(int) + 2
    part = picture[top : min(bottom, height), left : min(right, width)]
    if part.size == 0:
        return np.zeros((size, size, 3), np.float32)
    stride = max(
        1, int(np.hypot(matrix[0, 0], matrix[1, 0]))
    )  # shrink by whole steps first, or fine detail turns to noise
    source = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)[None].float()
    if stride > 1:
        source = F.avg_pool2d(source, stride, ceil_mode=True, count_include_pad=False)
    h, w = source.shape[2:]
    # grid_sample's own coordinates: −1 … 1 between the outer edges of the picture
    shift = np.array([left, top]) - 0.5
    theta = (matrix - np.pad(shift[:, None], ((0, 0), (2, 0)))) / stride
    theta = theta * (2 / np.array([[w], [h]]))
    theta[:, 2] -= 1
    line = torch.arange(size, dtype=torch.float32)
    grid_y, grid_x = torch.meshgrid(line, line, indexing="ij")
    t = torch.from_numpy(theta.astype(np.float32))
    grid = torch.stack([t[i, 0] * grid_x + t[i, 1] * grid_y + t[i, 2] for i in (0, 1)], -1)[None]
    return F.grid_sample(source, grid, align_corners=False)[0].permute(1, 2, 0).numpy()


@contextlib.contextmanager
def _without_news() -> Iterator[None]:
    """LiteRT tells each time, past Python, which delegate it made; whatever else is written meanwhile is passed on."""
    with _STDERR, tempfile.TemporaryFile() as said:
        try:
            kept = os.dup(2)
        except OSError:  # a daemon's, closed
            yield
            return
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            os.write(2, b"".join(line for line in said if not line.startswith(NEWS)))


class BlazeFace:
    """BlazeFace detectors, short-range and for small faces full-range, and 468-point mesh (LiteRT, one thread).

    Raises ConfigError if LiteRT isn't installed, CheckpointError if the model files can't be had.
    """

    layout: Layout = MESH
    detect_every = DETECT_EVERY

    def __init__(self) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ConfigError(
                "finding faces needs ai-edge-litert, which is not installed; run: pip install 'avhubert[prepare]'"
            ) from error

        def loaded(file: str) -> Interpreter:
            interpreter = Interpreter(model_path=str(models.path(file)), num_threads=1)
            with _without_news():
                interpreter.allocate_tensors()
            return interpreter

        self._short, self._full = ((detector, loaded(detector.file)) for detector in _detectors())
        self._mesh = loaded("mesh")

    @staticmethod
    def _run(interpreter, picture: np.ndarray) -> dict[int, np.ndarray]:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture[None])
        interpreter.invoke()
        outputs = (interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details())
        return {output.size: output.reshape(-1) for output in outputs}

    def detect(self, picture: np.ndarray) -> list[Face]:
        """All faces, best first; where the short-range detector sees none, those that the full-range one sees."""
        return self._detect(*self._short, picture) or self._detect(*self._full, picture)

    def _detect(self, detector: _Detector, interpreter, picture: np.ndarray) -> list[Face]:
        height, width = picture.shape[:2]
        side = max(height, width)  # letterboxed into a square
        scale = side / detector.side
        offset = np.array([(width - side) / 2, (height - side) / 2], np.float32)
        matrix = np.array([[scale, 0, offset[0] + scale / 2 - 0.5], [0, scale, offset[1] + scale / 2 - 0.5]])
        found = self._run(interpreter, _sample(picture, matrix, detector.side) / 127.5 - 1)
        count = len(detector.anchors)
        scores = 1 / (1 + np.exp(-np.clip(found[count], -80, 80)))
        keep = np.flatnonzero(scores >= MIN_SCORE)
        keep = keep[np.argsort(-scores[keep])]
        values = found[count * 16].reshape(count, 8, 2)[keep] / detector.side
        values[:, [0, *range(2, 8)]] += detector.anchors[keep][:, None]
        points = values * side + offset - 0.5
        half = values[:, 1] * side / 2
        boxes = np.concatenate([points[:, 0] - half, points[:, 0] + half], 1)
        faces: list[Face] = []
        for row, box in enumerate(boxes):
            if all(overlap(box, face.box) < MIN_OVERLAP for face in faces):
                faces.append(Face(box, points[row, 2:4], float(scores[keep[row]])))
        return faces

    def landmarks(self, picture: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, float]:
        """Mesh points float32 [468, 2] inside a region (centre x, centre y, side, angle), and the presence logit."""
        x, y, side, angle = region
        cos, sin = np.cos(angle) * side / 192, np.sin(angle) * side / 192
        matrix = np.array([[cos, -sin, x], [sin, cos, y]])
        matrix[:, 2] -= matrix[:, :2] @ np.array([95.5, 95.5])
        found = self._run(self._mesh, _sample(picture, matrix, 192) / 255)
        points = found[1404].reshape(468, 3)[:, :2]
        return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32), float(found[1][0])


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - shared + 1e-9)


def _region_of_face(face: Face) -> np.ndarray:
    """A square around the face, turned by the line of the eyes."""
    centre = (face.box[:2] + face.box[2:]) / 2
    line = face.eyes[1] - face.eyes[0]
    return np.array([*centre, REGION * float((face.box[2:] - face.box[:2]).max()), np.arctan2(line[1], line[0])])


def _region_of_points(points: np.ndarray, layout: Layout) -> np.ndarray:
    """The same from the landmarks of the frame before."""
    line = points[layout.stable[4]] - points[layout.stable[1]]
    angle = float(np.arctan2(line[1], line[0]))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    upright = points @ turn.T
    low, high = upright.min(0), upright.max(0)
    centre = (low + high) / 2 @ turn
    return np.array([*centre, REGION * float((high - low).max()), angle])


# --------------------------------------------------------------------------- tracks
@dataclass
class Track:
    """One face through a video: its landmarks by frame number, and where to look for it next."""

    frames: dict[int, Landmarks] = field(default_factory=dict)
    region: np.ndarray | None = None
    box: np.ndarray = field(default_factory=lambda: np.zeros(4, np.float32))

    @property
    def size(self) -> float:
        """Sum over its frames of the face's width in pixels: long and large tracks win."""
        return sum(float(found.box[2] - found.box[0]) for found in self.frames.values())


def track(pictures: Iterable[np.ndarray], model: LandmarkModel) -> tuple[list[Track], int]:
    """Follow every face through a video; returns the tracks, the speaker's first, and the number of frames.

    Faces are detected every few frames, and in every frame while none is tracked; in between each is followed by its
    own landmarks. The speaker is, for now, the face that is seen longest and largest.
    """
    tracks: list[Track] = []
    followed = model.detect_every > 1
    count = 0
    for count, picture in enumerate(pictures, 1):
        index = count - 1
        active = [one for one in tracks if one.region is not None]
        if not active or index % model.detect_every == 0:
            for face in model.detect(picture):
                same = max(tracks, key=lambda one: overlap(one.box, face.box), default=None)
                if same is None or overlap(same.box, face.box) < MIN_OVERLAP:
                    same = Track()
                    tracks.append(same)
                if same.region is None:
                    same.region, same.box = _region_of_face(face), face.box
                    active.append(same)
        for one in active:
            assert one.region is not None
            points, presence = model.landmarks(picture, one.region)
            if presence <= 0:
                one.region = None
                continue
            one.frames[index] = _landmarks(points, model.layout)
            if followed:
                one.region, one.box = _region_of_points(points, model.layout), one.frames[index].box
            else:
                one.region = None
    tracks = [one for one in tracks if one.frames]
    return sorted(tracks, key=lambda one: -one.size), count


def _landmarks(points: np.ndarray, layout: Layout) -> Landmarks:
    return Landmarks(
        stable=points[list(layout.stable)],
        mouth=points[list(layout.mouth)].mean(0),
        lip_gap=float(np.linalg.norm(points[layout.inner_lips[0]] - points[layout.inner_lips[1]])),
        box=np.concatenate([points.min(0), points.max(0)]),
    )


# --------------------------------------------------------------------------- landmarks on disk
def read_landmarks(folder: Path, names: Sequence[str]) -> list[np.ndarray | None]:
    """68 iBUG points float32 [68, 2] of each frame at 25 fps, None where there is no face, of the first of `names`.

    NAME.pkl is a list with an array or None per frame, as the published tools (dlib) write it; NAME.npz holds
    `landmarks` [T, 68, 2], NaN where there is none.

    Raises:
        MediaError: no such file, or it holds something else.
    """
    path = landmark_file(folder, names)
    if path is None:
        raise MediaError(f"no landmarks: {folder / names[0]}.pkl (or .npz) is missing")
    try:
        rows = _read_pickle(path) if path.suffix == ".pkl" else _read_npz(path)
        found = [None if row is None else np.asarray(row, np.float32) for row in rows]
        if not found or any(row is not None and row.shape != (68, 2) for row in found):
            raise ValueError("they are not 68 points a frame")
    except Exception as error:  # damaged bytes make the readers of both formats raise anything
        raise MediaError(f"the landmarks {path} cannot be used: {error or type(error).__name__}") from error
    return found


def landmark_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The file that `read_landmarks` reads, None if there is none."""
    paths = (folder / f"{name}.{ending}" for name in names for ending in ("pkl", "npz"))
    return next((path for path in paths if path.is_file()), None)


def stored_track(points: Sequence[np.ndarray | None]) -> Track:
    """Points per frame, as `read_landmarks` gives them, as a track."""
    return Track({index: _landmarks(row, IBUG) for index, row in enumerate(points) if row is not None})


class _OnlyArrays(pickle.Unpickler):
    """Lists, numbers and numpy arrays; anything else in a pickle could run code."""

    ALLOWED = frozenset(
        {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
        | {
            (f"{package}.{module}", name)
            for package in ("numpy.core", "numpy._core")
            for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}, which is no array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _read_pickle(path: Path) -> Sequence[Any]:
    with open(path, "rb") as file:
        return list(_OnlyArrays(file).load())


def _read_npz(path: Path) -> Sequence[Any]:
    with np.load(path, allow_pickle=False) as kept:
        return [None if np.isnan(row).any() else row for row in kept["landmarks"]]
