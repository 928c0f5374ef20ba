"""`make matrix`: the quick tests on every Python of this machine, each with the oldest and the newest requirements.

For each combination, uv resolves the requirements of pyproject.toml (`--resolution lowest-direct` or `highest`),
installs them and a wheel of this package into a new environment, and the quick tests run there against the installed
wheel. The environment is deleted afterwards: one takes up to 6 GB with the CUDA build of PyTorch. uv links its files to
its cache, so that each wheel is downloaded and stored once; UV_TORCH_BACKEND=cpu installs PyTorch's CPU builds instead.

    python scripts/matrix.py                                # all Pythons that uv finds, oldest and newest
    python scripts/matrix.py --python 3.10 --versions oldest --keep
    python scripts/matrix.py --old                          # only those whose row is of an older state

Each row is written to docs/reference/tested-versions.md as soon as it is known, with the newest commit that changed
what is tested. So a run that was interrupted is continued with `--old`; rows of older states are named at the end.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "tested-versions.md"
MIN_PYTHON = (3, 10)
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
# the extras that the quick tests use and that need no compiler
EXTRAS = ("prepare", "serve", "synth", "test", "english", "hub", "onnx")
# without wheels on the package index, in pure Python; of everything else the oldest release that has a wheel is taken
SOURCES_ONLY = ("antlr4-python3-runtime", "python-speech-features")
SYSTEMS = {
    "Linux x86-64": "x86_64-unknown-linux-gnu",
    "Linux ARM": "aarch64-unknown-linux-gnu",
    "Windows": "x86_64-pc-windows-msvc",
    "macOS ARM": "aarch64-apple-darwin",
    "macOS Intel": "x86_64-apple-darwin",
}
WHEEL_PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
SHOWN = ("torch", "av", "numpy", "lightning-fabric", "pillow", "matplotlib", "safetensors", "sentencepiece")
HEADER = ("Python", "versions", "passed", "failed", "skipped", "install", "tests", *SHOWN, "date", "commit")
TESTED = ("avhubert", "tests", "pyproject.toml")  # a commit that changes none of them leaves the rows as they are
TEST_MINUTES = 30


class MatrixError(Exception):
    """A step of a combination failed; the message is the end of its output."""


@dataclass(frozen=True)
class Outcome:
    """What the quick tests of one combination gave; `problem` says why they did not run."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    problem: str = ""
    failures: tuple[str, ...] = ()


def main() -> int:
    """Run the combinations that the command line names; 1 if a test of one failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", nargs="+", metavar="3.X", help="default: every Python that uv finds")
    parser.add_argument("--versions", nargs="+", choices=list(RESOLUTIONS), default=list(RESOLUTIONS))
    parser.add_argument("--old", action="store_true", help="only those whose row in the page is of an older state")
    parser.add_argument("--keep", action="store_true", help="keep the environments, in .matrix/")
    parser.add_argument("--wheels", action="store_true", help="only say which systems and Pythons have all wheels")
    parser.add_argument("--tests", nargs=argparse.REMAINDER, help="arguments of pytest instead of `-m quick`")
    options = parser.parse_args()
    if options.wheels:
        update_wheels()
        return 0
    pythons = options.python or find_pythons()
    work = ROOT / ".matrix"
    work.mkdir(exist_ok=True)
    wheel = build_wheel(work)
    rows = []
    for python in pythons:
        for versions in options.versions:
            if options.old and (minor(python), versions) not in old_rows(pythons):
                continue
            row, outcome = run(python, versions, wheel, work, options.tests)
            rows.append(row)
            if not options.keep:
                shutil.rmtree(work / f"{python}-{versions}", ignore_errors=True)
            show("\n".join(table([row])[2:]))
            if outcome.problem:
                show(outcome.problem)
            for failure in outcome.failures:
                show(f"  {failure}")
            if not options.tests:
                update_page([row])
    show("\n".join(table(rows)))
    for (_, second), versions in sorted(old_rows(pythons)):
        show(f"the row of Python 3.{second} with the {versions} versions is missing or of an older state")
    return int(any(row[3] != "0" for row in rows))


def run(
    python: str, versions: str, wheel: Path, work: Path, tests: list[str] | None
) -> tuple[tuple[str, ...], Outcome]:
    """One row of the table and its outcome."""
    environment = work / f"{python}-{versions}"
    shutil.rmtree(environment, ignore_errors=True)
    started = time.monotonic()
    installed: dict[str, str] = {}
    installed_after = tested_after = 0.0
    try:
        installed = install(python, versions, wheel, environment)
        installed_after = time.monotonic() - started
        started = time.monotonic()
        outcome = run_tests(environment, tests)
        tested_after = time.monotonic() - started
    except MatrixError as error:
        outcome = Outcome(problem=str(error))
    counts = [str(number) for number in (outcome.passed, outcome.failed, outcome.skipped)]
    if outcome.problem:
        counts = ["", "not run", ""]
    seconds = [f"{duration:.0f} s" for duration in (installed_after, tested_after)]
    exact = installed.get("python", python)
    shown = [installed.get(name, "") for name in SHOWN]
    return (exact, versions, *counts, *seconds, *shown, datetime.date.today().isoformat(), state()), outcome


def find_pythons() -> list[str]:
    """The newest release of each Python from 3.10 on that uv finds on this machine, oldest first."""
    listed = json.loads(uv("python", "list", "--only-installed", "--output-format", "json"))
    newest: dict[tuple[int, int], tuple[int, str]] = {}
    for entry in listed:
        parts = entry["version_parts"]
        minor = (parts["major"], parts["minor"])
        if minor >= MIN_PYTHON and entry["implementation"] == "cpython" and entry.get("variant") in (None, "default"):
            newest[minor] = max(newest.get(minor, (-1, "")), (parts["patch"], entry["version"]))
    return [version for _, (_, version) in sorted(newest.items())]


def state() -> str:
    """The newest commit that changed what is tested; with a mark if files of it are changed and not committed."""
    paths = ["--", *TESTED]
    changed = command("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no", *paths)
    return command("git", "-C", str(ROOT), "log", "-1", "--format=%h", *paths).strip() + ("+" if changed else "")


def old_rows(pythons: list[str]) -> set[tuple[tuple[int, int], str]]:
    """The combinations of Python (3.X) and versions whose row in the page is missing or of an older state."""
    current = {(minor(row[0]), row[1]) for row in page_rows() if row[-1] == state()}
    return {(minor(python), versions) for python in pythons for versions in RESOLUTIONS} - current


def build_wheel(work: Path) -> Path:
    """The wheel of this checkout."""
    for old in work.glob("*.whl"):
        old.unlink()
    uv("build", "--wheel", "--out-dir", str(work), str(ROOT))
    (wheel,) = work.glob("*.whl")
    return wheel


def install(python: str, versions: str, wheel: Path, environment: Path) -> dict[str, str]:
    """Make the environment; the version of each package there, and of Python."""
    uv("venv", "--python", python, str(environment))
    interpreter = str(executable(environment, "python"))
    pinned = environment / "requirements.txt"
    resolve(versions, "--python", interpreter, "--output-file", str(pinned))
    uv("pip", "install", "--python", interpreter, "--constraints", str(pinned), str(wheel))
    with tempfile.TemporaryDirectory() as scratch:  # the core alone
        command(interpreter, str(ROOT / "tests" / "minimal_install.py"), scratch)
    uv("pip", "install", "--python", interpreter, "--requirement", str(pinned))
    packages = json.loads(uv("pip", "list", "--python", interpreter, "--format", "json"))
    versions_of = {package["name"].lower(): package["version"] for package in packages}
    versions_of["python"] = command(interpreter, "-c", "import platform; print(platform.python_version())").strip()
    return versions_of


def resolve(versions: str, *how: str) -> None:
    """Find the versions of all requirements; MatrixError if one has no release with a wheel."""
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    binary = ["--only-binary", ":all:", *(word for name in SOURCES_ONLY for word in ("--no-binary", name))]
    uv("pip", "compile", "--resolution", RESOLUTIONS[versions], *binary, *how, *extras, str(ROOT / "pyproject.toml"))


def update_wheels() -> None:
    """Replace the page's table of systems and Pythons for which every requirement has a wheel."""
    rows: list[tuple[str, ...]] = [("wheels", *WHEEL_PYTHONS), ("---",) * (1 + len(WHEEL_PYTHONS))]
    for system, platform in SYSTEMS.items():
        cells = [wheels_for(platform, python) for python in WHEEL_PYTHONS]
        rows.append((system, *cells))
        show(" | ".join(rows[-1]))
    replace_table("| wheels", ["| " + " | ".join(row) + " |" for row in rows])


def wheels_for(platform: str, python: str) -> str:
    """Say "yes", or the first package without a wheel."""
    try:
        resolve("newest", "--python-platform", platform, "--python-version", python, "--output-file", os.devnull)
    except MatrixError as error:
        package = re.search(r"([\w-]+)[^ ]* has no (?:usable |)wheels|([\w-]+)[^ ]* requires Python", str(error))
        return f"no: {package[1] or package[2]}" if package else "no"
    return "yes"


def run_tests(environment: Path, tests: list[str] | None) -> Outcome:
    """The quick tests in a folder without the sources, so that they import the installed wheel."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("tests", "docs"):  # some tests compare the documents with the code
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        report = folder / "report.xml"
        arguments = tests or ["-m", "quick", "-n", "2", "--dist", "loadfile"]
        words = [str(executable(environment, "python")), "-m", "pytest", "-q", f"--junit-xml={report}", *arguments]
        try:
            done = subprocess.run(
                words, cwd=folder, env=clean_environment(), capture_output=True, timeout=60 * TEST_MINUTES, check=False
            )
        except subprocess.TimeoutExpired:
            return Outcome(problem=f"the tests took longer than {TEST_MINUTES} minutes")
        if not report.is_file():
            return Outcome(
                problem=done.stdout.decode("utf-8", "replace")[-2000:] + done.stderr.decode("utf-8", "replace")
            )
        return read_report(report)


def read_report(report: Path) -> Outcome:
    """The counts and the names of the failed tests in pytest's XML."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    failures = []
    for case in failed:
        detail = case.find("failure") if case.find("failure") is not None else case.find("error")
        message = " ".join((detail.get("message") or "").split()) if detail is not None else ""
        failures.append(f"{case.get('classname')}::{case.get('name')}: {message[:600]}")
    return Outcome(len(cases) - len(failed) - skipped, len(failed), skipped, failures=tuple(failures))


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """The lines of a Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in (HEADER, ("---",) * len(HEADER), *rows)]


def update_page(rows: list[tuple[str, ...]]) -> None:
    """Replace the rows of the same Python (3.X) and versions in the page, and keep the others."""
    by_key = {(minor(row[0]), row[1]): row for row in [*page_rows(), *rows]}
    order = {"oldest": 0, "newest": 1}
    ordered = sorted(by_key.values(), key=lambda row: (minor(row[0]), order[row[1]]))
    replace_table("| Python", table(ordered))


def page_rows() -> list[tuple[str, ...]]:
    """The rows of the page."""
    lines = PAGE.read_text(encoding="utf-8").split("\n")
    return [tuple(cell.strip() for cell in line[1:-1].split("|")) for line in lines if re.match(r"\| 3\.\d+", line)]


def replace_table(start_of_header: str, rows: list[str]) -> None:
    """Replace the table of the page whose header starts so."""
    lines = PAGE.read_text(encoding="utf-8").split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith(start_of_header))
    end = next((number for number in range(start, len(lines)) if not lines[number].startswith("|")), len(lines))
    PAGE.write_text("\n".join([*lines[:start], *rows, *lines[end:]]), encoding="utf-8", newline="\n")


def minor(version: str) -> tuple[int, int]:
    """(3, 10) of "3.10.13"."""
    major, second = version.split(".")[:2]
    return int(major), int(second)


def executable(environment: Path, name: str) -> Path:
    """A command of an environment."""
    return environment / ("Scripts" if os.name == "nt" else "bin") / name


def clean_environment() -> dict[str, str]:
    """The variables of this process without those that would point Python at this checkout; pyenv's Pythons on PATH."""
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    paths = [*map(str, sorted(pyenv.glob("versions/*/bin"))), variables.get("PATH", "")]
    return variables | {"PYTHONUTF8": "1", "PATH": os.pathsep.join(paths)}


def uv(*arguments: str) -> str:
    """The output of a uv command; MatrixError if it fails."""
    beside = Path(sys.executable).parent / ("uv.exe" if os.name == "nt" else "uv")
    return command(str(beside if beside.exists() else "uv"), *arguments)


def command(*words: str) -> str:
    """The output of a command; MatrixError if it fails."""
    try:
        done = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace", env=clean_environment())
    except FileNotFoundError as error:
        raise MatrixError(f"{words[0]} is not installed: pip install uv") from error
    if done.returncode:
        raise MatrixError(f"{' '.join(words[:4])} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def show(text: str) -> None:
    """Print at once, even into a file."""
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MatrixError as problem:
        sys.exit(str(problem))
