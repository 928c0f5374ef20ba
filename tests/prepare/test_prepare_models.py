"""The face models: inside the package, checked, and independent of the home folder and the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from avhubert.cli.app import main
from avhubert.errors import CheckpointError
from avhubert.prepare.detectors import models

pytestmark = pytest.mark.quick


def test_the_files_are_in_the_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("AVHUBERT_MODELS", raising=False)
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setenv("AVHUBERT_CACHE", "/nowhere")
    folder = Path(models.__file__).parent / "face_models"
    assert models.paths() == {name: folder / file.name for name, file in models.FILES.items()}
    assert (folder / "LICENSE").is_file()
    assert main(["models", "fetch"]) == 0
    assert f"mesh: {folder / 'face_landmark.tflite'}\n" in capsys.readouterr().out


def test_another_folder_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVHUBERT_MODELS", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"has no face_landmark.*; copy it there or unset AVHUBERT_MODELS"):
        models.path("mesh")
    (tmp_path / "face_landmark.tflite").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"is damaged: .*; copy it there again or unset AVHUBERT_MODELS"):
        models.path("mesh")
    with pytest.raises(CheckpointError, match="unknown face model 'nose'; known: detector"):
        models.path("nose")


def test_a_damaged_package_is_to_be_installed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AVHUBERT_MODELS", raising=False)
    monkeypatch.setattr(models, "DIRECTORY", tmp_path)
    with pytest.raises(CheckpointError, match=r"has no face_landmark.*; install the package again: pip install"):
        models.path("mesh")
