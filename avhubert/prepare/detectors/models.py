"""Model files of the default face detector: inside this package, checked by their hashes.

BlazeFace and the 468-point face mesh (Google, Apache-2.0) are the files of MediaPipe 0.10.21, unchanged; the licence is
beside them. MediaPipe itself is not a requirement.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from avhubert.errors import CheckpointError, one_of
from avhubert.files import sha256

DIRECTORY = Path(__file__).parent / "face_models"
REINSTALL = "install the package again: pip install --force-reinstall --no-deps avhubert"


class ModelFile(NamedTuple):
    """Name and hash of a model file."""

    name: str
    sha256: str


FILES = {
    "detector": ModelFile(
        "face_detection_short_range.tflite",
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    ),
    "mesh": ModelFile("face_landmark.tflite", "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814"),
    "full_range": ModelFile(
        "face_detection_full_range_sparse.tflite",
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
    ),
}


def folder() -> Path:
    """The folder of the models: $AVHUBERT_MODELS, else the one inside the package."""
    directory = os.environ.get("AVHUBERT_MODELS")
    return Path(directory) if directory else DIRECTORY


def path(name: str) -> Path:
    """Path of a model file.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    if name not in FILES:
        raise CheckpointError(one_of("face model", name, FILES))
    file, digest = FILES[name]
    model = folder() / file
    if not model.is_file():
        problem, action = f"{folder()} has no {file}", "copy it there"
    elif sha256(model) != digest:
        problem, action = f"{model} is damaged: its SHA-256 is not {digest[:12]}…", "copy it there again"
    else:
        return model
    if os.environ.get("AVHUBERT_MODELS"):
        raise CheckpointError(f"{problem}; {action} or unset AVHUBERT_MODELS", path=model)
    raise CheckpointError(f"{problem}; {REINSTALL}", path=model)


def paths() -> dict[str, Path]:
    """The path of every model file by its name; CheckpointError as in `path`."""
    return {name: path(name) for name in FILES}
