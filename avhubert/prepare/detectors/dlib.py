"""dlib's face detectors and 68 landmarks, from the user's model files: the published clips were cut with them.

A frame takes several times as long as with the default detector, and the HOG detector misses faces in profile.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from avhubert.errors import CheckpointError, ConfigError
from avhubert.prepare.detectors.interface import IBUG, REGION_SCALE, Face, Layout

PREDICTOR = "shape_predictor_68_face_landmarks.dat"
CNN = "mmod_human_face_detector.dat"
UPSAMPLING = 1  # times that a frame is doubled in size before detection


class Dlib68:
    """HOG detector, dlib's CNN where it detects nothing (if its file exists), and 68 landmarks in whole pixels.

    Faces are detected in every frame; none is tracked.

    Args:
        folder: Contains `shape_predictor_68_face_landmarks.dat` and, to detect more faces,
            `mmod_human_face_detector.dat`.

    Raises:
        ConfigError: dlib is not installed, or `folder` has no predictor.
        CheckpointError: dlib cannot read a model file, or it has another number of points.
    """

    layout: Layout = IBUG
    detect_every = 1

    def __init__(self, folder: Path) -> None:
        try:
            import dlib
        except ImportError as error:
            raise ConfigError(
                "--landmarks dlib:… needs dlib, which is not installed; run: pip install 'avhubert[dlib]'"
            ) from error
        predictor, cnn = folder / PREDICTOR, folder / CNN
        if not predictor.is_file():
            raise ConfigError(f"there is no {PREDICTOR} in {folder}; get it from dlib.net/files and unpack it")
        self._rectangle = dlib.rectangle
        self._hog: Any = dlib.get_frontal_face_detector()
        self._predictor = self._read(dlib.shape_predictor, predictor)
        self._cnn = self._read(dlib.cnn_face_detection_model_v1, cnn) if cnn.is_file() else None

    @staticmethod
    def _read(reader: Any, path: Path) -> Any:
        try:
            return reader(str(path))
        except RuntimeError as error:
            raise CheckpointError(f"dlib cannot read {path}: {error}", path=path) from error

    def detect(self, frame: np.ndarray) -> list[Face]:
        """All faces, best first."""
        rectangles, scores, _ = self._hog.run(frame, UPSAMPLING)
        detections = list(zip(rectangles, scores, strict=True))
        if not detections and self._cnn is not None:
            detections = [(result.rect, result.confidence) for result in self._cnn(frame, UPSAMPLING)]
        faces = []
        for rectangle, score in sorted(detections, key=lambda detection: -detection[1]):
            box = np.array([rectangle.left(), rectangle.top(), rectangle.right(), rectangle.bottom()], np.float32)
            level = (box[1] + box[3]) / 2  # dlib does not locate the eyes, and its faces are upright
            faces.append(Face(box, np.array([[box[0], level], [box[2], level]], np.float32), float(score)))
        return faces

    def landmarks(self, frame: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, float]:
        """Points float32 [68, 2] in the region (centre x, centre y, side, angle) of a detected face; always present."""
        x, y, side, _ = region
        half = side / REGION_SCALE / 2
        box = [round(float(value)) for value in (x - half, y - half, x + half, y + half)]
        shape = self._predictor(frame, self._rectangle(*box))
        points = np.array([[point.x, point.y] for point in shape.parts()], np.float32)
        if points.shape != (68, 2):
            raise CheckpointError(f"{PREDICTOR} has {len(points)} points; the mouth crop needs the 68-point predictor")
        return points, 1.0


@cache
def dlib68(folder: Path) -> Dlib68:
    """The detector of this process."""
    return Dlib68(folder)
