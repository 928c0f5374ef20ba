"""The rooms import each other only along the arrows of docs/architecture.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "avhubert"

EVERYWHERE = {"errors", "config", "files", "report"}
PIPELINES = {"extract", "transcription", "iterate", "demo", "serve", "doctor", "info", "cli"}
# what the four common modules may use from outside
LIGHT = {"numpy", "omegaconf", "hydra", "yaml", "matplotlib", "rich"}

# room → rooms it may import, besides EVERYWHERE and itself
ALLOWED: dict[str, set[str]] = {
    "corpora": {"data"},
    "prepare": {"data", "corpora"},
    "data": set(),
    "model": set(),
    "interop": {"model", "data.text"},
    "loading": {"model", "interop", "data.text"},
    "cluster": {"data", "model", "loading"},
    "decode": {"data", "model", "loading"},
    "train": {"data", "model", "loading", "decode", "cluster.quality"},
}
WHO_MAY_USE_PIPELINES = {"cli", "serve", "demo", "__init__"}


def modules() -> list[str]:
    return sorted(
        str(path.relative_to(PACKAGE).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
    )


def imports(module: str) -> set[str]:
    """Dotted names imported anywhere in a module, lazily or not, except for type checking only."""
    path = PACKAGE / (module.replace(".", "/") + ".py")
    if not path.exists():
        path = PACKAGE / module.replace(".", "/") / "__init__.py"
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(child for child in ast.walk(node))
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: relative imports hide the arrow; write the full name"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
            found.add(node.module)
    return found


def inside(name: str) -> str | None:
    return name.removeprefix("avhubert.") if name.startswith("avhubert.") else None


@pytest.mark.parametrize("module", modules())
def test_a_room_imports_only_what_it_may(module: str) -> None:
    room = module.split(".")[0]
    wrong = []
    for name in imports(module):
        target = inside(name)
        if target is None:
            continue
        head = target.split(".")[0]
        if head in EVERYWHERE or head == room:
            continue
        if head in PIPELINES:
            if room not in WHO_MAY_USE_PIPELINES:
                wrong.append(name)
        elif room in EVERYWHERE:
            wrong.append(name)
        elif room not in PIPELINES and room != "__init__":
            allowed = ALLOWED[room]
            if head not in allowed and not any(target == one or target.startswith(one + ".") for one in allowed):
                wrong.append(name)
    assert not wrong, f"avhubert.{module} may not import {sorted(wrong)}"


@pytest.mark.parametrize("module", sorted(EVERYWHERE))
def test_common_modules_stay_light(module: str) -> None:
    import sys

    outside = {name.split(".")[0] for name in imports(module)} - {"avhubert"}
    heavy = {name for name in outside if name not in sys.stdlib_module_names and name not in LIGHT}
    assert not heavy, f"avhubert.{module} may not import {sorted(heavy)}"


@pytest.mark.parametrize("module", ["cli", "errors", "config", "files", "report", "demo", "extract", "doctor"])
def test_pipelines_import_rooms_lazily(module: str) -> None:
    """At module level only the common modules and the standard library: `avhubert --help` stays quick."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    for node in tree.body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            target = inside(name)
            assert target is None or target.split(".")[0] in EVERYWHERE, f"{module} imports {name} at its top"
            assert name.split(".")[0] not in {"torch", "av", "lightning", "sentencepiece"}, f"{module} imports {name}"
