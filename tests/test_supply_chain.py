"""Requirements: pinned with hashes for every Python, and no copyleft in the core."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # a requirement of pytest

PROJECT = Path(__file__).resolve().parents[1]
LOCKS = PROJECT / "requirements"

pytestmark = [
    pytest.mark.quick,
    pytest.mark.skipif(
        not LOCKS.is_dir(), reason="the sources are not here: the tests run against an installed package"
    ),
]
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
SYSTEMS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
    "win32": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
    "darwin": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
}


def script(name: str) -> ModuleType:
    """A module of scripts/."""
    if str(PROJECT / "scripts") not in sys.path:
        sys.path.append(str(PROJECT / "scripts"))
    return importlib.import_module(name)


# --------------------------------------------------------------------------- pinned requirements
def declared(*extras: str) -> list[Requirement]:
    """The requirements of pyproject.toml: of the core and of these extras."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    found = []
    for requirement in map(Requirement, lines):
        found += declared(*requirement.extras) if requirement.name == "avhubert" else [requirement]
    return found


def pins(path: Path) -> list[tuple[str, str, Marker | None, int]]:
    """Name, version, marker and number of hashes of each pinned requirement of a file."""
    found = []
    for block in re.split(r"\n(?=\S)", path.read_text(encoding="utf-8")):
        first = block.split("\\")[0].split("\n")[0].strip()
        if first and not first.startswith("#"):
            requirement = Requirement(first)
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            name = canonicalize_name(requirement.name)
            found.append((name, specifier.version, requirement.marker, block.count("--hash=sha256:")))
    return found


def versions(path: Path, python: str, system: str) -> dict[str, str]:
    """What a file pins on a Python and a system."""
    environment = {**SYSTEMS[system], "python_version": python, "python_full_version": f"{python}.1"}
    environment |= {"implementation_name": "cpython", "platform_python_implementation": "CPython", "extra": ""}
    chosen: dict[str, str] = {}
    for name, version, marker, _ in pins(path):
        if marker is None or marker.evaluate(environment):
            assert name not in chosen, f"{path.name} pins two versions of {name} for Python {python} on {system}"
            chosen[name] = version
    return chosen


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", ["run", "dev", "docs", "lm", "bench"])
def test_every_requirement_is_pinned_on_every_python(name: str, system: str) -> None:
    extras = script("lock").EXTRAS[name]
    for python in PYTHONS:
        locked = versions(LOCKS / f"{name}.txt", python, system)
        assert {"hatchling", "editables"} <= set(locked), "with what the package is built"
        pinned = versions(PROJECT / "constraints.txt", python, system)
        assert locked.items() <= pinned.items(), "constraints.txt and requirements/ differ: run `make lock`"
        environment = {**SYSTEMS[system], "python_version": python}
        for requirement in declared(*extras):
            package = canonicalize_name(requirement.name)
            if (requirement.marker and not requirement.marker.evaluate(environment)) or package == "torch":
                continue
            assert requirement.specifier.contains(locked.get(package, "0")), f"{requirement}: run `make lock`"


@pytest.mark.parametrize("name", ["run", "dev", "docs", "lm", "bench"])
def test_every_pinned_file_has_a_hash(name: str) -> None:
    without = [name for name, _, _, hashes in pins(LOCKS / f"{name}.txt") if not hashes]
    assert not without
    assert len(pins(LOCKS / f"{name}.txt")) > 40


def test_pytorch_is_pinned_without_a_hash() -> None:
    """CPU or CUDA is a choice of the machine."""
    assert [name for name, *_ in pins(PROJECT / "constraints.txt")].count("torch") >= 1
    for lock in LOCKS.glob("*.txt"):
        assert not [name for name, *_ in pins(lock) if name in ("torch", "triton") or name.startswith("nvidia-")]


# --------------------------------------------------------------------------- licences
def test_no_requirement_of_the_core_is_copyleft() -> None:
    licences = script("licences")
    core = licences.packages("")
    assert {"torch", "av", "antlr4-python3-runtime", "sympy"} <= set(core), "indirect ones too"
    found = {name: licences.licence(name) for name in core}
    assert not [name for name, text in found.items() if licences.is_copyleft(text)]
    assert not [name for name, text in found.items() if text in ("", "not stated")]


def test_copyleft_is_recognised() -> None:
    licences = script("licences")
    for text in ("GPL-3.0-or-later", "MPL-2.0 AND MIT", "Mozilla Public License", "LGPL-2.1-or-later", "AGPL-3.0"):
        assert licences.is_copyleft(text), text
    for text in ("MIT", "Apache-2.0 WITH LLVM-exception", "GPL-2.0 OR MIT", "BSD-3-Clause AND Zlib", "BSL-1.0"):
        assert not licences.is_copyleft(text), text
    assert licences.is_copyleft(licences.licence("kenlm"))
    assert licences.is_copyleft(licences.licence("espeakng-loader"))


def test_the_page_lists_the_core() -> None:
    page = (PROJECT / "docs" / "reference" / "licences.md").read_text(encoding="utf-8")
    core = page.split("## The package itself")[1].split("\n## ")[0]
    missing = [name for name in script("licences").packages("") if f"| {name} |" not in core]
    of_cuda = [name for name in missing if re.match(r"nvidia-|cuda-|triton", name)]
    of_python_3_10 = {"exceptiongroup", "async-timeout", "tomli", "six"}  # the page is made on a newer one
    assert set(missing) <= {*of_cuda, *of_python_3_10}, "run `make licences`"


# --------------------------------------------------------------------------- make matrix
def test_rows_of_an_older_state_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = script("matrix")
    monkeypatch.setattr(matrix, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(matrix, "state", lambda: "abc1234")
    old = ["3.10.13", "oldest", *["1"] * (len(matrix.HEADER) - 3), "–"]
    (tmp_path / "page.md").write_text("\n".join([*matrix.table([tuple(old)]), "", "More."]), encoding="utf-8")
    assert len(matrix.old_rows(["3.10.13", "3.12.1"])) == 4
    for row in (["3.10.13", "oldest"], ["3.12.1", "newest"]):
        matrix.update_page([(*row, *["2"] * (len(matrix.HEADER) - 3), "abc1234")])
    assert matrix.old_rows(["3.10.13", "3.12.1"]) == {((3, 10), "newest"), ((3, 12), "oldest")}
    assert [row[:2] for row in matrix.page_rows()] == [("3.10.13", "oldest"), ("3.12.1", "newest")]
    assert (tmp_path / "page.md").read_text(encoding="utf-8").endswith("\n\nMore.")
