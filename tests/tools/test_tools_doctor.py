"""`avhubert doctor`: what is there, what is not, whether transcribing works, and what mends it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from avhubert import platforms
from avhubert.cli.app import main
from avhubert.prepare.detectors.models import FILES, path
from avhubert.tools import doctor
from avhubert.tools.doctor import Check, as_json, examine, verdict

pytestmark = pytest.mark.quick

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def models() -> Path:
    """The folder of the face models."""
    return path("mesh").parent


def found(name: str) -> Check:
    return next(check for check in examine() if check.name == name)


def test_a_machine_that_has_all(models: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr()
    for name in ("Python", "torch", "PyAV", "face runtime", "face model mesh", "cache", "disk", "cores", "memory"):
        assert name in said.out
    assert "[prepare]" in said.out  # brackets are no markup
    assert not said.err


def test_for_programs(models: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ready"] is True
    assert {"name", "state", "found", "mend", "needed"} == set(told["checks"][0])
    names = [check["name"] for check in told["checks"]]
    assert len(set(names)) == len(names)
    assert all(check["state"] in ("ok", "low", "missing", "bad") for check in told["checks"])
    assert all(check["mend"] for check in told["checks"] if check["state"] != "ok")


def test_missing_and_damaged_face_models(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("AVHUBERT_MODELS", str(tmp_path))
    detector, mesh = FILES["detector"][0], FILES["mesh"][0]
    for file, _ in FILES.values():
        shutil.copy(models / file, tmp_path / file)
    (tmp_path / detector).unlink()
    with open(tmp_path / mesh, "r+b") as handle:
        handle.write(b"x")
    assert main(["doctor", "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["ready"] is False
    assert said.err.startswith("avhubert: transcribing does not work here: face model detector is missing (fix: ")
    assert f"face model mesh {tmp_path / mesh} is damaged (fix: copy it into" in said.err
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / detector).exists()  # it looks, and fetches nothing
    monkeypatch.delenv("AVHUBERT_MODELS")
    monkeypatch.setattr("avhubert.prepare.detectors.models.DIRECTORY", tmp_path / "empty")
    assert found("face model mesh").state == "missing"
    assert found("face model mesh").fix.startswith("install the package again: pip install --force-reinstall")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AVHUBERT_CACHE", str(tmp_path / "file"))
    assert found("cache").state == "bad"
    assert "cannot write to the cache folder" in found("cache").detail
    assert not found("cache").prevents_use
    assert found("face model mesh").state == "ok"


def test_an_unknown_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AVHUBERT_CACHE", "AVHUBERT_MODELS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    assert found("cache").detail.startswith("cannot be used: the cache folder is not known, because HOME is not set")


@pytest.mark.parametrize(
    ("module", "name", "fix"),
    [
        ("torch", "torch", "pip install torch"),
        ("av", "PyAV", "pip install av"),
        ("ai_edge_litert.interpreter", "face runtime", "pip install 'avhubert[prepare]'"),
    ],
)
def test_what_cannot_be_imported(module: str, name: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # what an import finds where it is not installed
    check = found(name)
    assert check.prevents_use
    assert check.fix == fix
    assert f"{name} " in str(verdict(examine()))
    assert as_json(examine())["ready"] is False


def test_packages_that_are_missing_or_too_old() -> None:
    lacking = doctor._missing([Requirement("numpy>=1"), Requirement("numpy>=999"), Requirement("nobody-has-this>=1")])
    assert lacking[0].startswith("numpy >=999 (it is ")
    assert lacking[1] == "nobody-has-this"
    assert len(lacking) == 2


def test_a_lack_that_does_not_matter_stops_nothing() -> None:
    assert verdict([Check("disk", "low", "little", "make room"), Check("[onnx]", "missing", "", "pip")]) is None
    assert "torch" in str(verdict([Check("torch", "missing", "", "pip", needed=True)]))


def test_every_extra_has_its_purpose() -> None:
    section = (
        (PROJECT / "pyproject.toml")
        .read_text(encoding="utf-8")
        .split("[project.optional-dependencies]")[1]
        .split("\n[")[0]
    )
    extras = {line.split(" = ")[0] for line in section.splitlines() if " = [" in line}
    assert "prepare" in extras
    assert extras <= set(doctor.PURPOSES)


def test_memory_and_disk_in_words() -> None:
    assert doctor._size(3 << 29) == "1.5 GB"
    free = platforms.free_memory()
    assert free is None or free > 1 << 20
