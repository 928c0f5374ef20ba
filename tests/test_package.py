"""The core works without any extra, and the built files are always the same."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(
    not (PROJECT / "scripts").is_dir(), reason="the sources are not here: the tests run against an installed package"
)


# --------------------------------------------------------------------------- the core alone
BLOCK_EXTRAS = """
import runpy, sys
from importlib import metadata
from packaging.utils import canonicalize_name

core = set(sys.argv.pop(1).split(","))
modules = metadata.packages_distributions()
blocked = {
    module for module, names in modules.items()
    if not {canonicalize_name(name) for name in names} & {*core, "avhubert", "pip", "setuptools"}
}

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in blocked and name.partition(".")[0] not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Finder)
assert {"ai_edge_litert", "pytest"} <= blocked and not {"torch", "av", "numpy"} & blocked
sys.argv[0] = sys.argv[1]
sys.argv.pop(1)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_core_works_without_any_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make matrix` runs the same in an environment that has nothing else."""
    monkeypatch.syspath_prepend(PROJECT / "scripts")
    import licences

    core = ",".join(licences.packages(""))
    check = PROJECT / "tests" / "minimal_install.py"
    words = [sys.executable, "-c", BLOCK_EXTRAS, core, str(check), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", timeout=240)
    assert done.returncode == 0, done.stderr
    assert "pip install 'avhubert[prepare]'" in " ".join(done.stderr.split())


# --------------------------------------------------------------------------- the built files
def build(sources: Path, out: Path) -> dict[str, bytes]:
    """The wheel and the sdist that the build backend makes of the sources."""
    code = f"import hatchling.build as b; b.build_wheel({str(out)!r}); b.build_sdist({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=sources, check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_two_builds_have_the_same_bytes(tmp_path: Path) -> None:
    """Whatever the time, the modes of the files, their order on disk and the folder."""
    pytest.importorskip("hatchling", reason="hatchling is not installed (make setup)")
    names = ("avhubert", "docs/README.md", "README.md", "CHANGELOG.md", "LICENSE", "NOTICE", "pyproject.toml")
    for folder in ("first", "second/deeper"):
        for name in names:
            source, target = PROJECT / name, tmp_path / folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
    changed = tmp_path / "second/deeper/avhubert/files.py"
    os.utime(changed, (1e9, 1e9))
    changed.chmod(0o600)
    outputs = []
    for folder in ("first", "second/deeper"):
        out = tmp_path / folder / "dist"
        out.mkdir()
        outputs.append(build(tmp_path / folder, out))
    first, second = outputs
    assert len(first) == 2
    assert first == second
    (wheel,) = (name for name in first if name.endswith(".whl"))
    with zipfile.ZipFile(io.BytesIO(first[wheel])) as archive:
        names_in_wheel = archive.namelist()
    assert "avhubert/py.typed" in names_in_wheel
    (sdist,) = (name for name in first if name.endswith(".tar.gz"))
    with tarfile.open(fileobj=io.BytesIO(first[sdist])) as archive:
        names_in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    for file in ("README.md", "config.json", "model.safetensors", "tokenizer.model", "sample.mp4", "sample.txt"):
        assert f"avhubert/builtin/{file}" in names_in_wheel
        assert f"avhubert/builtin/{file}" in names_in_sdist
    assert any(name.endswith("/licenses/NOTICE") for name in names_in_wheel)
    assert "NOTICE" in names_in_sdist
    assert not [name for name in names_in_wheel if not name.startswith(("avhubert/", "avhubert-"))]


def listed_by_git(*options: str) -> set[str]:
    """Files of the checkout; not those of continuous integration and editors, whose names begin with a dot."""
    words = ["git", "ls-files", "-z", *options]
    listed = subprocess.run(words, cwd=PROJECT, capture_output=True, encoding="utf-8", check=True).stdout
    return {name for name in listed.split("\0") if name and not name.startswith(".")}


@pytest.mark.slow
def test_the_sdist_has_every_file_and_builds_the_same_wheel(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed (make setup)")
    if not (PROJECT / ".git").exists():
        pytest.skip("the sources are no Git checkout")
    tracked = listed_by_git()
    for folder in ("of the checkout", "of the sdist"):
        (tmp_path / folder).mkdir()
    built = build(PROJECT, tmp_path / "of the checkout")
    (sdist,) = (name for name in built if name.endswith(".tar.gz"))
    with tarfile.open(fileobj=io.BytesIO(built[sdist])) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert not tracked - names, "a file is missing"
    # the build backend adds two files; what Git ignores, such as caches and environments, must not get in
    assert names - tracked - listed_by_git("--others", "--exclude-standard") <= {"PKG-INFO", ".gitignore"}
    (sources,) = (tmp_path / "unpacked").iterdir()
    again = build(sources, tmp_path / "of the sdist")
    assert again == built
