"""dlib's face detectors and 68 points, from a user's model files: what the published clips were cut with.

One frame costs about twenty times what the default detector does, and HOG finds no face that is turned away.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from avhubert.errors import CheckpointError, ConfigError
from avhubert.prepare.detectors.interface import IBUG, REGION, Face, Layout

PREDICTOR = "shape_predictor_68_face_landmarks.dat"

CNN = "mmod_human_face_detector.dat"

UPSAMPLED = 1  # times that a picture is doubled before faces are looked for


class Dlib68:
    """HOG detector, dlib's CNN where it finds nothing (if its file is there), and 68 points in whole pixels.

    Every frame is looked at anew. `folder` holds `shape_predictor_68_face_landmarks.dat` and, to find more faces,
    `mmod_human_face_detector.dat`.

    Raises:
        ConfigError: dlib is not installed, or `folder` has no predictor.
        CheckpointError: a model file that dlib cannot read, or one of other points.
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
            raise ConfigError(f"there is no {PREDICTOR} in {folder}; it is unpacked from dlib.net/files")
        self._rectangle = dlib.rectangle
        self._hog: Any = dlib.get_frontal_face_detector()
        self._predictor = self._read(dlib.shape_predictor, predictor)
        self._cnn = self._read(dlib.cnn_face_detection_model_v1, cnn) if cnn.is_file() else None

    @staticmethod
    def _read(reader: Any, path: Path) -> Any:
        try:
            return reader(str(path))
        except RuntimeError as error:
            raise CheckpointError(f"dlib cannot read {path}: {error}") from error

    def detect(self, picture: np.ndarray) -> list[Face]:
        """All faces, best first."""
        found, scores, _ = self._hog.run(picture, UPSAMPLED)
        pairs = list(zip(found, scores, strict=True))
        if not pairs and self._cnn is not None:
            pairs = [(one.rect, one.confidence) for one in self._cnn(picture, UPSAMPLED)]
        faces = []
        for one, score in sorted(pairs, key=lambda pair: -pair[1]):
            box = np.array([one.left(), one.top(), one.right(), one.bottom()], np.float32)
            level = (box[1] + box[3]) / 2  # dlib doesn't tell the eyes, and its faces are upright
            faces.append(Face(box, np.array([[box[0], level], [box[2], level]], np.float32), float(score)))
        return faces

    def landmarks(self, picture: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, float]:
        """Points float32 [68, 2] in a detected face's region (centre x, centre y, side, angle); present in any."""
        x, y, side, _ = region
        half = side / REGION / 2
        box = [round(float(value)) for value in (x - half, y - half, x + half, y + half)]
        found = self._predictor(picture, self._rectangle(*box))
        points = np.array([[point.x, point.y] for point in found.parts()], np.float32)
        if points.shape != (68, 2):
            raise CheckpointError(f"{PREDICTOR} is of {len(points)} points; the crop needs those of the 68-point one")
        return points, 1.0


@cache
def dlib68(folder: Path) -> Dlib68:
    """One in each process."""
    return Dlib68(folder)
