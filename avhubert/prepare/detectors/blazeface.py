"""The default face detector: BlazeFace and the 468-point face mesh on LiteRT."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from avhubert.errors import ConfigError
from avhubert.prepare.detectors import models
from avhubert.prepare.detectors.interface import MIN_OVERLAP, Face, Layout, overlap, region_of_face
from avhubert.prepare.detectors.search import clearer, square_around, square_tiles

MIN_SCORE = 0.5  # of a detection
# Measured on GRID and synthetic faces: upright frontal faces have scores from 0.87 on and presence from 14 on; of faces
# that are upside down, the score is at most 0.8, and the presence at most 12 as detected, 13 to 46 after the turn.
SURE_SCORE = 0.85  # of a detection, from which on the face is not upside down
SURE_PRESENCE = 12.0  # logit of the mesh, from which on the direction of the face is right
DETECT_EVERY = 12  # frames between detections while a face is tracked
MESH = Layout(
    (2, 33, 133, 362, 263), (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178),
    (13, 14), (5, 411, 199, 187),
)  # fmt: skip
MESH_SIDE = 192  # pixels; width and height of the mesh network's input
MESH_POINTS = 468
_DELEGATE_MESSAGE = b"INFO: Created TensorFlow Lite"
_STDERR = Lock()  # held while the process's stderr is redirected


def _grid(cells: int, repeats: int) -> np.ndarray:
    """Anchor centres [cells² · repeats, 2] in 0…1, row by row."""
    line = (np.arange(cells) + 0.5) / cells
    x, y = np.meshgrid(line, line)
    return np.repeat(np.stack([x, y], -1).reshape(-1, 2), repeats, axis=0).astype(np.float32)


@dataclass(frozen=True)
class _Network:
    """A detection network: name of its model file, side of its square input in pixels, centres of its anchors."""

    file: str
    side: int
    anchors: np.ndarray


@cache
def _networks() -> tuple[_Network, _Network]:
    """Short range, for faces of at least a fifth of the frame; full range, for faces of at least a twentieth."""
    return (
        _Network("detector", 128, np.concatenate([_grid(16, 2), _grid(8, 6)])),
        _Network("full_range", 192, _grid(48, 1)),
    )


def _sample(frame: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """float32 [size, size, 3] whose pixel (x, y) is the frame at matrix · (x, y, 1), bilinear, 0 outside."""
    height, width = frame.shape[:2]
    corners = matrix @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]])
    left, top = np.maximum(np.floor(corners.min(1)).astype(int) - 1, 0)
    right, bottom = np.ceil(corners.max(1)).astype(int) + 2
    part = frame[top : min(bottom, height), left : min(right, width)]
    if part.size == 0:
        return np.zeros((size, size, 3), np.float32)
    # shrink by an integer factor first: bilinear sampling alone would alias
    stride = max(1, int(np.hypot(matrix[0, 0], matrix[1, 0])))
    source = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)[None].float()
    if stride > 1:
        source = F.avg_pool2d(source, stride, ceil_mode=True, count_include_pad=False)
    h, w = source.shape[2:]
    # the coordinates of grid_sample: −1 … 1 between the outer edges of the frame
    shift = np.array([left, top]) - 0.5
    theta = (matrix - np.pad(shift[:, None], ((0, 0), (2, 0)))) / stride
    theta = theta * (2 / np.array([[w], [h]]))
    theta[:, 2] -= 1
    line = torch.arange(size, dtype=torch.float32)
    grid_y, grid_x = torch.meshgrid(line, line, indexing="ij")
    t = torch.from_numpy(theta.astype(np.float32))
    grid = torch.stack([t[i, 0] * grid_x + t[i, 1] * grid_y + t[i, 2] for i in (0, 1)], -1)[None]
    sampled: np.ndarray = F.grid_sample(source, grid, align_corners=False)[0].permute(1, 2, 0).numpy()
    return sampled


@contextlib.contextmanager
def _without_delegate_message() -> Iterator[None]:
    """Suppress LiteRT's message about its delegate, written past Python; anything else on stderr is passed on."""
    with _STDERR, tempfile.TemporaryFile() as captured:
        try:
            stderr = os.dup(2)
        except OSError:  # closed, as in a daemon
            yield
            return
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            captured.seek(0)
            os.write(2, b"".join(line for line in captured if not line.startswith(_DELEGATE_MESSAGE)))


class BlazeFace:
    """BlazeFace detectors, short-range and for small faces full-range, and 468-point mesh (LiteRT, one thread).

    Raises:
        ConfigError: LiteRT is not installed.
        CheckpointError: The model files are missing or damaged.
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

        def load(file: str) -> Any:
            interpreter = Interpreter(model_path=str(models.path(file)), num_threads=1)
            with _without_delegate_message():
                interpreter.allocate_tensors()
            return interpreter

        self._short_range, self._full_range = ((network, load(network.file)) for network in _networks())
        self._mesh = load("mesh")

    @staticmethod
    def _run(interpreter: Any, inputs: np.ndarray) -> dict[int, np.ndarray]:
        """Outputs of a network by their number of values."""
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], inputs[None])
        interpreter.invoke()
        outputs = (interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details())
        return {output.size: output.reshape(-1) for output in outputs}

    def detect(self, frame: np.ndarray) -> list[Face]:
        """All faces, best first; the full-range network is used where the short-range network detects none."""
        faces = self._detect(*self._short_range, frame) or self._detect(*self._full_range, frame)
        return [self._upright(frame, face) for face in faces]

    def detect_more(self, frame: np.ndarray) -> list[Face]:
        """The faces that either network detects: slower, and a small face beside a large one is not missed."""
        faces = self._detect(*self._short_range, frame)
        more = self._detect(*self._full_range, frame)
        faces += [face for face in more if all(overlap(face.box, known.box) < MIN_OVERLAP for known in faces)]
        return [self._upright(frame, face) for face in faces]

    def search(self, frame: np.ndarray, near: Sequence[np.ndarray]) -> Iterator[list[Face]]:
        """Faces that `detect` misses, from the cheapest attempt to the dearest.

        The attempts: around the boxes `near`, where faces were last; the full-range network where the short-range
        network was wrong; more contrast and less noise (dark, backlit, old film); upside down; small faces in parts of
        the frame.
        """
        height, width = frame.shape[:2]
        for box in near:
            yield self._detect_in(frame, [square_around(box, height, width)], self._short_range)
        yield self._detect(*self._full_range, frame)
        clear = clearer(frame)
        yield self._detect(*self._short_range, clear) or self._detect(*self._full_range, clear)
        last = np.array([width - 1, height - 1], np.float32)
        yield [
            Face(np.concatenate([last - face.box[2:], last - face.box[:2]]), last - face.eyes, face.score)
            for face in self._detect(*self._short_range, frame[::-1, ::-1])
        ]
        for tiles in square_tiles(height, width):
            yield self._detect_in(frame, tiles, self._full_range)

    def _detect_in(
        self, frame: np.ndarray, squares: Sequence[tuple[int, int, int]], detector: tuple[_Network, Any]
    ) -> list[Face]:
        """The faces in squares (left, top, side) of a frame, best first."""
        faces: list[Face] = []
        for left, top, side in squares:
            shift = np.array([left, top], np.float32)
            for face in self._detect(*detector, frame[top : top + side, left : left + side]):
                faces.append(Face(face.box + np.tile(shift, 2), face.eyes + shift, face.score))
        return sorted(faces, key=lambda face: -face.score)

    def _upright(self, frame: np.ndarray, face: Face) -> Face:
        """The face, its eyes turned if it is upside down: the networks detect such faces in a wrong direction."""
        if face.score >= SURE_SCORE or self._mesh_points(frame, region_of_face(face))[1] >= SURE_PRESENCE:
            return face
        centre = (face.box[:2] + face.box[2:]) / 2
        for cos, sin in ((-1, 0), (0, 1), (0, -1)):
            turned = Face(face.box, (face.eyes - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre, face.score)
            if self._mesh_points(frame, region_of_face(turned))[1] >= SURE_PRESENCE:
                return turned
        return face

    def _detect(self, network: _Network, interpreter: Any, frame: np.ndarray) -> list[Face]:
        height, width = frame.shape[:2]
        side = max(height, width)  # of the square with the frame in its middle
        scale = side / network.side
        offset = np.array([(width - side) / 2, (height - side) / 2], np.float32)
        matrix = np.array([[scale, 0, offset[0] + scale / 2 - 0.5], [0, scale, offset[1] + scale / 2 - 0.5]])
        outputs = self._run(interpreter, _sample(frame, matrix, network.side) / 127.5 - 1)
        count = len(network.anchors)
        scores = 1 / (1 + np.exp(-np.clip(outputs[count], -80, 80)))
        detected = np.flatnonzero(scores >= MIN_SCORE)
        detected = detected[np.argsort(-scores[detected])]
        values = outputs[count * 16].reshape(count, 8, 2)[detected] / network.side
        values[:, [0, *range(2, 8)]] += network.anchors[detected][:, None]
        points = values * side + offset - 0.5
        half = values[:, 1] * side / 2
        boxes = np.concatenate([points[:, 0] - half, points[:, 0] + half], 1)
        faces: list[Face] = []
        for row, box in enumerate(boxes):
            if all(overlap(box, face.box) < MIN_OVERLAP for face in faces):
                faces.append(Face(box, points[row, 2:4], float(scores[detected[row]])))
        return faces

    def landmarks(self, frame: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, float]:
        """Mesh points float32 [468, 2] in a region (centre x, centre y, side, angle), and the presence logit.

        Where there seems to be no face, the region is read again with more contrast and less noise.
        """
        points, presence = self._mesh_points(frame, region)
        if presence > 0:
            return points, presence
        clear_points, clear_presence = self._mesh_points(frame, region, clear=True)
        return (clear_points, clear_presence) if clear_presence > 0 else (points, presence)

    def _mesh_points(self, frame: np.ndarray, region: np.ndarray, clear: bool = False) -> tuple[np.ndarray, float]:
        x, y, side, angle = region
        cos, sin = np.cos(angle) * side / MESH_SIDE, np.sin(angle) * side / MESH_SIDE
        matrix = np.array([[cos, -sin, x], [sin, cos, y]])
        middle = (MESH_SIDE - 1) / 2
        matrix[:, 2] -= matrix[:, :2] @ np.array([middle, middle])
        sampled = _sample(frame, matrix, MESH_SIDE)
        outputs = self._run(self._mesh, (clearer(sampled) if clear else sampled) / 255)
        points = outputs[3 * MESH_POINTS].reshape(MESH_POINTS, 3)[:, :2]
        return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32), float(outputs[1][0])
