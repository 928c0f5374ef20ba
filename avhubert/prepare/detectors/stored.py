"""Landmarks from files instead of a detector: 68 points per frame in `.pkl` or `.npz`."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avhubert.errors import MediaError
from avhubert.prepare.detectors.interface import IBUG, Landmarks
from avhubert.prepare.tracking import Track

Points = np.ndarray  # float32 [68, 2]


def read_landmarks(folder: Path, names: Sequence[str]) -> list[Points | None]:
    """Landmarks of each frame at 25 fps, from the file of the first of `names` that has one.

    NAME.pkl is a list with an array or None per frame, as the published tools (dlib) write it; NAME.npz contains
    `landmarks` [T, 68, 2], NaN where there is no face.

    Returns:
        68 iBUG points float32 [68, 2] per frame, None where there is no face.

    Raises:
        MediaError: There is no such file, or its content is something else.
    """
    path = landmark_file(folder, names)
    if path is None:
        raise MediaError(f"no landmarks: {folder / names[0]}.pkl (or .npz) is missing", kind="no landmarks")
    try:
        rows = _read_pickle(path) if path.suffix == ".pkl" else _read_npz(path)
        points = [None if row is None else np.asarray(row, np.float32) for row in rows]
        if not points or any(row is not None and row.shape != (68, 2) for row in points):
            raise ValueError("they are not 68 points a frame")
    except Exception as error:  # damaged bytes make the readers of both formats raise anything
        raise MediaError(
            f"the landmarks {path} cannot be used: {error or type(error).__name__}",
            kind="the landmarks cannot be used",
            path=path,
        ) from error
    return points


def landmark_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The file that `read_landmarks` reads; None if there is none."""
    paths = (folder / f"{name}.{suffix}" for name in names for suffix in ("pkl", "npz"))
    return next((path for path in paths if path.is_file()), None)


def stored_track(points: Sequence[Points | None]) -> Track:
    """The points of each frame, as `read_landmarks` returns them, as a track."""
    return Track({index: Landmarks.from_points(row, IBUG) for index, row in enumerate(points) if row is not None})


_CORE = np.empty(0).__reduce__()[0].__module__.rpartition(".")[0]  # numpy.core in NumPy 1, numpy._core in NumPy 2


class _ArrayUnpickler(pickle.Unpickler):
    """Lists, numbers and numpy arrays only; anything else in a pickle could run code."""

    ALLOWED = frozenset(
        {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
        | {
            (f"{package}.{module}", name)
            for package in ("numpy.core", "numpy._core")
            for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """The class of an array; UnpicklingError for any other."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it contains a {module}.{name}, which is no array")
        return super().find_class(module.replace("numpy._core", "numpy.core").replace("numpy.core", _CORE), name)


def _read_pickle(path: Path) -> Sequence[Any]:
    with open(path, "rb") as file:
        return list(_ArrayUnpickler(file).load())


def _read_npz(path: Path) -> Sequence[Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return [None if np.isnan(row).any() else row for row in arrays["landmarks"]]
