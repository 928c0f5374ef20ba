"""The default detector: BlazeFace and the 468-point face mesh on LiteRT."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from threading import Lock

import numpy as np
import torch
import torch.nn.functional as F

from avhubert.errors import ConfigError
from avhubert.prepare.detectors import models
from avhubert.prepare.detectors.interface import MESH, MIN_OVERLAP, Face, Layout, overlap

MIN_SCORE = 0.5  # of a detection

DETECT_EVERY = 12  # frames between detections while a face is tracked

NEWS = b"INFO: Created TensorFlow Lite"

_STDERR = Lock()  # of the process, while it leads elsewhere


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
