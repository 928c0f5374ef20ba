"""The packages import each other only along the arrows of docs/architecture.md, and no two files import each other."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import avhubert

pytestmark = pytest.mark.quick

PACKAGE = Path(avhubert.__file__).parent

# may be imported by all; they import nothing but each other
COMMON = {"constants", "errors", "platforms", "encoding", "files", "processes", "report", "config", "devices"}
LIGHT_COMMON = COMMON - {"devices"}  # devices needs torch
LIGHT_MODULES = {"serve.limits"}  # defaults of options that belong to another package
# what the common modules may use from outside
LIGHT = {"numpy", "omegaconf", "hydra", "yaml", "matplotlib", "rich", "chardet"}
# string other packages together; only these may import them
PIPELINES = {"transcription", "live", "recipes", "serve", "tools", "cli", "hf"}
WHO_MAY_USE_PIPELINES = {"cli", "live", "serve", "recipes", "__init__", "__main__"}

# package → packages it may import, besides COMMON and itself
ALLOWED: dict[str, set[str]] = {
    "data": {"model.inputs"},
    "model": set(),
    "corpora": {"data"},
    "prepare": {"data", "corpora"},
    "checkpoints": {"model", "data.tokenizer"},
    "features": {"data", "model", "checkpoints", "cluster", "prepare"},
    "cluster": {"data", "features"},
    "decode": {"data", "model", "checkpoints"},
    "evaluation": {"data", "model", "checkpoints", "decode"},
    "train": {"data", "model", "checkpoints", "decode", "cluster.metrics"},
}


def modules() -> list[str]:
    """Dotted names of all modules, without the package's own name."""
    return sorted(
        str(path.relative_to(PACKAGE).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
    )


MODULES = modules()
PUBLIC = set(avhubert.__all__)


def path_of(module: str) -> Path:
    path = PACKAGE / (module.replace(".", "/") + ".py")
    return path if path.exists() else PACKAGE / module.replace(".", "/") / "__init__.py"


def imports(module: str) -> set[str]:
    """Dotted names imported anywhere in a module, lazily or not, except for type checking only."""
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(child for child in ast.walk(node))
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: relative imports hide the arrow; write the full name"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
            names.add(node.module)
    return names


def inside(name: str) -> str | None:
    """The name inside the package; None for other packages and for public names such as `avhubert.save`."""
    if not name.startswith("avhubert.") or name.removeprefix("avhubert.") in PUBLIC:
        return None
    return name.removeprefix("avhubert.")


def imported_modules(module: str) -> set[str]:
    """The package's own modules that a module imports."""
    return {target for name in imports(module) if (target := inside(name)) in MODULES} - {module}


@pytest.mark.parametrize("module", MODULES)
def test_a_package_imports_only_what_it_may(module: str) -> None:
    package = module.split(".")[0]
    wrong = []
    for name in imports(module):
        target = inside(name)
        if target is None:
            continue
        head = target.split(".")[0]
        if head in COMMON or head == package:
            continue
        if head in PIPELINES:
            if package not in WHO_MAY_USE_PIPELINES:
                wrong.append(name)
        elif package in COMMON:
            wrong.append(name)
        elif package not in PIPELINES and package not in ("__init__", "__main__"):
            allowed = ALLOWED[package]
            if head not in allowed and not any(target == item or target.startswith(item + ".") for item in allowed):
                wrong.append(name)
    assert not wrong, f"avhubert.{module} may not import {sorted(wrong)}"


def test_no_two_files_import_each_other() -> None:
    """No circle, however long, and whether the imports are at the top or in a function."""
    arrows = {module: imported_modules(module) for module in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in sorted(arrows[module]):
                visit(target, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name.split(".")[0] in LIGHT_COMMON or name in LIGHT_MODULES]
)
def test_common_modules_stay_light(module: str) -> None:
    outside = {name.split(".")[0] for name in imports(module)} - {"avhubert"}
    heavy = {name for name in outside if name not in sys.stdlib_module_names and name not in LIGHT}
    assert not heavy, f"avhubert.{module} may not import {sorted(heavy)}"


@pytest.mark.parametrize(
    "module",
    [name for name in MODULES if name.split(".")[0] in LIGHT_COMMON | {"cli"}] + ["recipes.demo", "tools.doctor"],
)
def test_commands_import_the_rest_when_they_run(module: str) -> None:
    """At module level only the common modules and the standard library: `avhubert --help` stays quick."""
    for node in ast.parse(path_of(module).read_text(encoding="utf-8")).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            target = inside(name)
            assert target is None or target in LIGHT_MODULES or target.split(".")[0] in LIGHT_COMMON | {"cli"}, (
                f"{module} imports {name} at its top"
            )
            assert name.split(".")[0] not in {"torch", "av", "lightning", "sentencepiece"}, f"{module} imports {name}"
