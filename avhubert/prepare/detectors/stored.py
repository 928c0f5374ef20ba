"""Landmarks from files instead of a detector: 68 points per frame in `.pkl` or `.npz`."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avhubert.errors import MediaError


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


_CORE = np.empty(0).__reduce__()[0].__module__.rpartition(".")[0]  # numpy.core in NumPy 1, numpy._core in NumPy 2


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
        return super().find_class(module.replace("numpy._core", "numpy.core").replace("numpy.core", _CORE), name)


def _read_pickle(path: Path) -> Sequence[Any]:
    with open(path, "rb") as file:
        return list(_OnlyArrays(file).load())


def _read_npz(path: Path) -> Sequence[Any]:
    with np.load(path, allow_pickle=False) as kept:
        return [None if np.isnan(row).any() else row for row in kept["landmarks"]]
