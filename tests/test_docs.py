"""The documents: links lead somewhere, commands parse, quoted sentences are those of the code, pages are current.

That every block runs is tested by the files in `tests/docs`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import matplotlib.image
import numpy as np
import pytest

import avhubert
from avhubert.cli import app as cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"^(?:\$ )?avhubert ([a-z-]+)((?:.*\\\n)*.*)$", re.M)


def relative(path: Path) -> str:
    """The path below the repository, as the name of a test."""
    return path.relative_to(ROOT).as_posix()


def load_module(path: Path) -> ModuleType:
    """A Python file that is not in a package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RUNNER = load_module(ROOT / "tests" / "docs" / "conftest.py")
GENERATOR = load_module(DOCS / "generate.py")
GENERATED = {DOCS / name for name in GENERATOR.pages()}
DOCUMENTS = [ROOT / "README.md", *sorted(set(DOCS.rglob("*.md")) - GENERATED)]


def blocks(path: Path) -> list[tuple[str, str]]:
    """Language and text of each block that runs."""
    return RUNNER.BLOCK.findall(path.read_text(encoding="utf-8"))


def test_each_document_with_blocks_is_run_once() -> None:
    groups = (ROOT / "tests" / "docs").glob("test_docs_*.py")
    run = Counter(document for path in groups for document in getattr(load_module(path), "DOCUMENTS", ()))
    assert run == Counter(relative(path) for path in DOCUMENTS if blocks(path))


def test_each_reason_for_not_running_a_block_is_used() -> None:
    text = "".join(block for path in DOCUMENTS for _, block in blocks(path))
    assert all(word in text for word in RUNNER.NOT_RUN)


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_and_pictures_lead_somewhere(document: Path) -> None:
    text = RUNNER.BLOCK.sub("", document.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://", "#", "mailto:")):
            path = (document.parent / target.partition("#")[0]).resolve()
            assert path.exists() or path in GENERATED, target


def test_every_document_is_in_the_navigation() -> None:
    """mkdocs.yml lists every page once."""
    pages = Counter(re.findall(r"[\w/-]+\.md$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M))
    assert pages == Counter(path.relative_to(DOCS).as_posix() for path in {*DOCUMENTS[1:], *GENERATED})


def commands() -> dict[str, str]:
    """Every sub-command with its help."""
    parser = cli.parser()
    (action,) = [action for action in parser._actions if isinstance(action.choices, dict)]
    return {name: sub.format_help() for name, sub in action.choices.items()}


def test_every_command_is_documented_and_every_option_exists() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    known = commands()
    assert [name for name in known if f"avhubert {name}" not in text] == []
    used = COMMAND.findall(text)
    assert len(used) > 40
    for name, rest in used:
        for option in re.findall(r"(?<=\s)--[a-z-]+", rest.partition(" #")[0]):
            assert option in known[name], f"avhubert {name} has no {option}"


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if blocks(path)], ids=relative)
def test_every_block_is_valid(document: Path) -> None:
    """Quick check of what `tests/docs` runs: Python compiles, and the parser accepts each `avhubert` command."""
    for language, block in blocks(document):
        if language == "python":
            compile(block, relative(document), "exec")
        else:
            for name, rest in COMMAND.findall(block):
                arguments = shlex.split(rest.replace("\\\n", " ").removesuffix("&"), comments=True)
                options = cli.parser().parse_args([name, *arguments])
                assert callable(options.run)


def sentences() -> Iterator[str]:
    """Every string in the package but the docstrings, f-strings with their expressions in braces."""
    for path in (ROOT / "avhubert").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(
                    part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
                    for part in node.values
                )  # fmt: skip


def test_quoted_errors_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^\| (`.+`) \| .+ \|$", (DOCS / "how-to" / "troubleshooting.md").read_text(encoding="utf-8"), re.M
    )
    assert len(rows) > 25
    known = "\n".join(sentences())
    assert [quoted for row in rows for quoted in re.findall(r"`([^`]+)`", row) if quoted not in known] == []


SYMBOLS = [
    name
    for page in (DOCS / "reference" / "api").glob("*.md")
    for name in re.findall(r"^::: (.+)$", page.read_text(encoding="utf-8"), re.M)
]


@pytest.mark.parametrize("name", SYMBOLS)
def test_each_symbol_of_the_api_reference_has_a_docstring(name: str) -> None:
    module, _, symbol = name.rpartition(".")
    assert (getattr(importlib.import_module(module), symbol).__doc__ or "").strip()


def test_every_exported_name_is_in_the_api_reference() -> None:
    assert {f"avhubert.{name}" for name in avhubert.__all__} <= set(SYMBOLS)


def test_the_committed_results_are_those_of_the_file() -> None:
    assert (DOCS / "results.md").read_text(encoding="utf-8") == GENERATOR.results_page(), "run: python docs/generate.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_files_that_are_named_exist(document: Path) -> None:
    named = re.findall(r"`((?:avhubert|benchmarks|docs|tests)/[\w./-]+)`", document.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists() and ROOT / name not in GENERATED] == []


def test_names_in_the_table_of_the_architecture_exist() -> None:
    rows = re.findall(r"^\| .+ \| `(avhubert/[\w/]+\.py)` \| (?:`(\w+)`)? \|$", ARCHITECTURE, re.M)
    assert len(rows) > 40
    for file, name in rows:
        if name:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            defined = {node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
            for node in tree.body:
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                defined |= {target.id for target in targets if isinstance(target, ast.Name)}
            assert name in defined, f"{file} does not define {name}"


def test_the_packages_of_the_architecture_are_those_of_the_import_rules() -> None:
    allowed = load_module(ROOT / "tests" / "test_import_rules.py").ALLOWED
    rows = re.findall(r"^\| (`.+`) \| .+ \| (.*) \|$", ARCHITECTURE.partition("## Rules")[0], re.M)
    shown = {names.strip("`"): set(re.findall(r"`([\w.]+)`", may)) for names, may in rows}
    assert {package: shown.get(package) for package in allowed} == allowed
    packages = {path.name for path in (ROOT / "avhubert").iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert packages <= {name for names in shown for name in names.split("`, `")}


def test_the_readme_shows_recorded_results() -> None:
    shown = re.findall(
        r"<!-- results: ([\w-]+) -->\n(.*?)\n<!-- end -->", (ROOT / "README.md").read_text(encoding="utf-8"), re.S
    )
    assert shown
    for identifier, table in shown:
        (entry,) = [entry for entry in GENERATOR.results() if entry["id"] == identifier]
        assert table.splitlines()[2:] == GENERATOR.result_table(entry).splitlines()[2:]


def test_the_pictures_are_drawn_by_the_code(tmp_path: Path) -> None:
    load_module(DOCS / "pictures" / "draw.py").main(tmp_path)
    shown = set(
        re.findall(r"pictures/([a-z-]+\.png)", (DOCS / "explanation" / "how-it-works.md").read_text(encoding="utf-8"))
    )
    assert shown == {path.name for path in tmp_path.iterdir()}
    for path in tmp_path.iterdir():
        drawn, committed = (matplotlib.image.imread(file) for file in (path, DOCS / "pictures" / path.name))
        assert abs(drawn.shape[0] - committed.shape[0]) < 20
        assert np.std(drawn[..., :3]) > 0.05
        assert path.stat().st_size < 200_000
