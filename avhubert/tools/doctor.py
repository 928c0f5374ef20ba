"""`avhubert doctor`: checks the installation and the machine. Nothing is downloaded, installed or changed."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avhubert import files, platforms
from avhubert.errors import AvhubertError

if TYPE_CHECKING:
    from rich.table import Table

OK, MISSING, BAD, LOW = "ok", "missing", "bad", "low"  # states of a check
STATE_COLOURS = {OK: "green", LOW: "yellow", MISSING: "yellow", BAD: "red"}

MIN_PYTHON = (3, 10)
LOW_DISK, LOW_MEMORY = 2 << 30, 2 << 30  # bytes; a Base recognizer with one minute of video takes about 1.5 GB
DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "aac", "mp3", "opus", "vorbis", "flac", "pcm_s16le")
ENCODERS = ("libx264", "aac")  # `prepare` writes clips with them

# what each extra of the package is for
PURPOSES = {
    "prepare": "finding faces: `prepare`, `transcribe` of video",
    "dlib": "dlib's detectors and 68 points: `prepare --landmarks dlib:DIR`",
    "synth": "speech of the synthetic corpus: `demo`, `synth`",
    "hub": "models by name from the Hugging Face Hub",
    "onnx": "`export`",
    "lm": "language models in decoding",
    "hf": "models in the library transformers: `import avhubert.hf`",
    "english": "Whisper's English normaliser: `evaluate --normalise english`",
    "tensorboard": "curves of training in TensorBoard",
    "wandb": "curves of training in Weights & Biases",
    "serve": "the web page and the HTTP API",
    "ray": "preparation on a cluster",
    "bench": "the baselines of benchmarks/",
    "dev": "tests and checks of the package",
    "docs": "the documentation site: `make docs`",
    "test": "the quick tests of the package",
}


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: What was checked.
        state: 'ok', 'missing', 'bad' (installed, but does not work) or 'low'.
        detail: What was found.
        fix: How to solve the problem.
        needed: True if transcribing does not work without it.
    """

    name: str
    state: str
    detail: str
    fix: str = ""
    needed: bool = False

    @property
    def prevents_use(self) -> bool:
        """Whether transcribing does not work because of this."""
        return self.needed and self.state in (MISSING, BAD)


def examine() -> list[Check]:
    """All checks in the order of the table."""
    return [
        _python(),
        *_core(),
        *_torch(),
        _codecs(),
        _face_runtime(),
        *_face_models(),
        _cache(),
        _disk(),
        _cores(),
        _memory(),
        *_extras(),
    ]


def verdict(checks: list[Check]) -> str | None:
    """Why transcribing does not work here and how to solve it, in one sentence; None if it works."""
    problems = [check for check in checks if check.prevents_use]
    if not problems:
        return None
    return "transcribing does not work here: " + "; ".join(
        f"{check.name} {check.detail if check.state == BAD else 'is missing'}"
        + (f" (fix: {check.fix})" if check.fix else "")
        for check in problems
    )


def as_json(checks: list[Check]) -> dict[str, Any]:
    """The checks as JSON values: whether transcribing works (`ready`), and each check."""
    rows = [
        {
            "name": check.name,
            "state": check.state,
            "found": check.detail,
            "mend": check.fix,
            "needed": check.needed,
        }
        for check in checks
    ]
    return {"ready": verdict(checks) is None, "checks": rows}


def table(checks: list[Check]) -> Table:
    """The checks as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    columns = ("what", "state", "found", "fix") if any(check.fix for check in checks) else ("what", "state", "found")
    result = Table(box=None, pad_edge=False)
    for column in columns:
        result.add_column(column, overflow="fold")
    for check in checks:
        colour = "red" if check.prevents_use else STATE_COLOURS[check.state]
        row = Text(check.name), Text(check.state, colour), Text(check.detail), Text(check.fix)
        result.add_row(*row[: len(columns)])
    return result


# --------------------------------------------------------------------------- the package and its requirements
def _python() -> Check:
    detail = f"{platform.python_version()}, {platforms.describe_system()}"
    if sys.version_info < MIN_PYTHON:
        return Check("Python", BAD, detail, f"install Python {'.'.join(map(str, MIN_PYTHON))} or newer", needed=True)
    return Check("Python", OK, detail)


def _core() -> Iterator[Check]:
    requirements = _requirements(None)
    if requirements is None:
        yield Check("avhubert", MISSING, "not installed as a package", "pip install avhubert")
        return
    missing = _missing(requirements)
    version = metadata.version("avhubert")
    if missing:
        yield Check("avhubert", BAD, f"{version} lacks {', '.join(missing)}", "pip install avhubert", needed=True)
    else:
        yield Check("avhubert", OK, version)


def _requirements(extra: str | None) -> list[Any] | None:
    """Requirements of the installed package: of its core, or those that an extra adds. None: it is not installed."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("avhubert") or []
    except metadata.PackageNotFoundError:
        return None
    core, added = [], []
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            core.append(requirement)
        elif extra is not None and marker.evaluate({"extra": extra}):
            added.append(requirement)
    return core if extra is None else added


def _missing(requirements: list[Any]) -> list[str]:
    """The requirements that are not installed, or too old; an extra of this package stands for its requirements."""
    missing = []
    for requirement in requirements:
        if requirement.name == "avhubert":
            for extra in sorted(requirement.extras):
                missing += _missing(_requirements(extra) or [])
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(requirement.name)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            missing.append(f"{requirement.name} {requirement.specifier} (it is {version})")
    return missing


def _extras() -> Iterator[Check]:
    try:
        names = metadata.metadata("avhubert").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return
    for extra in names:
        missing = _missing(_requirements(extra) or [])
        purpose = PURPOSES.get(extra, "")
        if missing:
            detail = f"{purpose}; lacks {', '.join(missing)}"
            yield Check(f"[{extra}]", MISSING, detail, f"pip install 'avhubert[{extra}]'")
        else:
            yield Check(f"[{extra}]", OK, purpose)


@dataclass(frozen=True)
class Import:
    """A module, or why it cannot be imported."""

    module: Any
    problem: str = ""


def _import(name: str) -> Import:
    try:
        return Import(importlib.import_module(name))
    except Exception as error:  # a broken installation may raise anything
        return Import(None, str(error).strip().partition("\n")[0] or type(error).__name__)


def _torch() -> Iterator[Check]:
    imported = _import("torch")
    if imported.problem:
        yield Check("torch", BAD, f"cannot be imported: {imported.problem}", "pip install torch", needed=True)
        return
    torch = imported.module
    yield Check("torch", OK, f"{torch.__version__}, {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield Check(f"GPU {index}", OK, f"{device.name}, {_size(device.total_memory)}")
    if torch.backends.mps.is_available():
        yield Check("GPU", OK, "Apple (mps)")
    elif not torch.cuda.device_count():
        yield Check("GPU", OK, "none: models run on the CPU")


# --------------------------------------------------------------------------- media and faces
def _codecs() -> Check:
    imported = _import("av")
    if imported.problem:
        return Check("PyAV", BAD, f"cannot be imported: {imported.problem}", "pip install av", needed=True)
    av = imported.module
    missing = [name for name in DECODERS if not _has_codec(av, name, "r")]
    missing += [f"{name} (to write)" for name in ENCODERS if not _has_codec(av, name, "w")]
    version = f"{av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"
    if missing:
        fix = "pip install --force-reinstall --only-binary=:all: av"
        return Check("PyAV", BAD, f"{version}, without {', '.join(missing)}", fix, needed="h264" in missing)
    return Check("PyAV", OK, f"{version}: {', '.join(DECODERS)}")


def _has_codec(av: Any, name: str, mode: str) -> bool:
    try:
        av.Codec(name, mode)
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def _face_runtime() -> Check:
    imported = _import("ai_edge_litert.interpreter")
    if imported.problem:
        state = MISSING if "No module named" in imported.problem else BAD
        return Check("face runtime", state, imported.problem, "pip install 'avhubert[prepare]'", needed=True)
    return Check("face runtime", OK, f"ai-edge-litert {metadata.version('ai-edge-litert')}")


def _face_models() -> Iterator[Check]:
    from avhubert.prepare.detectors.models import FILES, REINSTALL, folder

    home = folder()
    fix = REINSTALL
    if os.environ.get("AVHUBERT_MODELS"):
        fix = f"copy it into {home} (AVHUBERT_MODELS), or unset the variable"
    for model, (file, digest) in FILES.items():
        path, name = home / file, f"face model {model}"
        if not path.is_file():
            yield Check(name, MISSING, f"no {path}", fix, needed=True)
        elif files.sha256(path) != digest:
            yield Check(name, BAD, f"{path} is damaged", fix, needed=True)
        else:
            yield Check(name, OK, str(path))


# --------------------------------------------------------------------------- the machine
def _cache() -> Check:
    try:
        return Check("cache", OK, str(files.cache_directory("")))
    except AvhubertError as error:
        return Check("cache", BAD, f"cannot be used: {error}", files.SET_CACHE)  # cuts of long videos are not kept


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    state, fix = (OK, "") if free >= LOW_DISK else (LOW, "delete files, or work in another folder")
    return Check("disk", state, f"{_size(free)} free in {Path.cwd()}", fix)


def _cores() -> Check:
    return Check("cores", OK, f"{platforms.usable_cores()} of {os.cpu_count()}")


def _memory() -> Check:
    free = platforms.free_memory()
    if free is None:
        return Check("memory", OK, "unknown on this system")
    state, fix = (OK, "") if free >= LOW_MEMORY else (LOW, "close other programs, or use shorter videos")
    return Check("memory", state, f"{_size(free)} free", fix)


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GB"
