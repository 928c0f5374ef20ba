"""What this machine has and lacks for avhubert, and what mends it. Nothing is fetched, installed or changed."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from avhubert import files
from avhubert.errors import AvhubertError

OK, MISSING, BAD, LOW = "ok", "missing", "bad", "low"


LOWEST_PYTHON = (3, 10)


LOW_DISK, LOW_MEMORY = 2 << 30, 2 << 30  # bytes; a Base recognizer with one minute of video takes about 1.5 GB


DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "aac", "mp3", "opus", "vorbis", "flac", "pcm_s16le")


ENCODERS = ("libx264", "aac")  # of the clips that `prepare` writes


PURPOSES = {
    "prepare": "finding faces: `prepare`, `transcribe` of video",
    "dlib": "dlib's detectors and 68 points: `prepare --landmarks dlib:DIR`",
    "synth": "the voice of the drawn corpus: `demo`, `synth`",
    "hub": "models by name from the Hugging Face Hub",
    "onnx": "`export`",
    "lm": "language models in decoding",
    "english": "Whisper's English normaliser: `evaluate --normalise english`",
    "tensorboard": "curves of training in TensorBoard",
    "wandb": "curves of training in Weights & Biases",
    "serve": "the web page and the HTTP API",
    "ray": "preparation on a cluster",
    "dev": "tests and checks of the package",
    "docs": "the documentation site: `make docs`",
    "test": "the quick tests of the package",
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    state: ok, missing, bad (there, but does not work) or low. needed: transcribing does not work without it.
    """

    name: str
    state: str
    found: str
    mend: str = ""
    needed: bool = False

    @property
    def stops(self) -> bool:
        """Whether transcribing does not work because of it."""
        return self.needed and self.state in (MISSING, BAD)


def examine() -> list[Check]:
    """Everything that there is to look at, in the order of the table."""
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
    """What stops transcribing and how to mend it, in one sentence; None if nothing does."""
    stopping = [check for check in checks if check.stops]
    if not stopping:
        return None
    return "transcribing does not work here: " + "; ".join(
        f"{check.name} {check.found if check.state == BAD else 'is missing'}"
        + (f" (mend it by: {check.mend})" if check.mend else "")
        for check in stopping
    )


def as_json(checks: list[Check]) -> dict[str, Any]:
    """The same as plain values: `ready` and every check."""
    return {"ready": verdict(checks) is None, "checks": [asdict(check) for check in checks]}


def show(checks: list[Check]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {OK: "green", LOW: "yellow", MISSING: "yellow", BAD: "red"}
    table = Table(box=None, pad_edge=False)
    mending = any(check.mend for check in checks)
    for column in ("what", "state", "found", "to mend it")[: 3 + mending]:
        table.add_column(column, overflow="fold")
    for check in checks:
        colour = "red" if check.stops else colours[check.state]
        row = Text(check.name), Text(check.state, colour), Text(check.found), Text(check.mend)
        table.add_row(*row[: 3 + mending])
    Console().print(table)


# --------------------------------------------------------------------------- the package and what it stands on
def _python() -> Check:
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info < LOWEST_PYTHON:
        return Check("Python", BAD, found, f"install Python {'.'.join(map(str, LOWEST_PYTHON))} or newer", needed=True)
    return Check("Python", OK, found)


def _core() -> Iterator[Check]:
    requirements = _requirements(None)
    if requirements is None:
        yield Check("avhubert", MISSING, "not installed as a package", "pip install avhubert")
        return
    lacking = _lacking(requirements)
    found = metadata.version("avhubert")
    if lacking:
        yield Check("avhubert", BAD, f"{found} lacks {', '.join(lacking)}", "pip install avhubert", needed=True)
    else:
        yield Check("avhubert", OK, found)


def _requirements(extra: str | None) -> list[Any] | None:
    """What the installed package asks for: its core, or what an extra adds. None if it is not installed."""
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


def _lacking(requirements: list[Any]) -> list[str]:
    """Those that are not installed, or too old, in words; extras of ours that an extra names are looked into."""
    lacking = []
    for requirement in requirements:
        if requirement.name == "avhubert":
            for extra in sorted(requirement.extras):
                lacking += _lacking(_requirements(extra) or [])
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            lacking.append(requirement.name)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            lacking.append(f"{requirement.name} {requirement.specifier} (it is {version})")
    return lacking


def _extras() -> Iterator[Check]:
    try:
        names = metadata.metadata("avhubert").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return
    for extra in names:
        lacking = _lacking(_requirements(extra) or [])
        purpose = PURPOSES.get(extra, "")
        if lacking:
            found = f"{purpose}; lacks {', '.join(lacking)}"
            yield Check(f"[{extra}]", MISSING, found, f"pip install 'avhubert[{extra}]'")
        else:
            yield Check(f"[{extra}]", OK, purpose)


def _imported(module: str) -> tuple[Any, str]:
    """The module, or why it cannot be imported."""
    try:
        return importlib.import_module(module), ""
    except Exception as error:  # a broken installation may raise anything
        return None, str(error).strip().partition("\n")[0] or type(error).__name__


def _torch() -> Iterator[Check]:
    torch, why = _imported("torch")
    if torch is None:
        yield Check("torch", BAD, f"cannot be imported: {why}", "pip install torch", needed=True)
        return
    yield Check("torch", OK, f"{torch.__version__}, {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield Check(f"GPU {index}", OK, f"{device.name}, {_size(device.total_memory)}")
    if torch.backends.mps.is_available():
        yield Check("GPU", OK, "Apple (mps)")
    elif not torch.cuda.device_count():
        yield Check("GPU", OK, "none: all is done on the CPU")


# --------------------------------------------------------------------------- media and faces
def _codecs() -> Check:
    av, why = _imported("av")
    if av is None:
        return Check("PyAV", BAD, f"cannot be imported: {why}", "pip install av", needed=True)
    lacking = [name for name in DECODERS if not _codec(av, name, "r")]
    lacking += [f"{name} (to write)" for name in ENCODERS if not _codec(av, name, "w")]
    found = f"{av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"
    if lacking:
        mend = "pip install --force-reinstall --only-binary=:all: av"
        return Check("PyAV", BAD, f"{found}, without {', '.join(lacking)}", mend, needed="h264" in lacking)
    return Check("PyAV", OK, f"{found}: {', '.join(DECODERS)}")


def _codec(av: Any, name: str, mode: str) -> bool:
    try:
        av.Codec(name, mode)
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def _face_runtime() -> Check:
    module, why = _imported("ai_edge_litert.interpreter")
    if module is None:
        absent = "No module named" in why
        mend = "pip install 'avhubert[prepare]'"
        return Check("face runtime", MISSING if absent else BAD, why, mend, needed=True)
    return Check("face runtime", OK, f"ai-edge-litert {metadata.version('ai-edge-litert')}")


def _face_models() -> Iterator[Check]:
    from avhubert.prepare.detectors.models import FILES, folder

    try:
        home = folder()
    except AvhubertError as error:
        yield Check("face models", BAD, f"have no place: {error}", "set AVHUBERT_CACHE to a folder of yours", True)
        return
    mend = "avhubert models fetch"
    if os.environ.get("AVHUBERT_MODELS"):
        mend = f"copy it into {home} (AVHUBERT_MODELS), or unset the variable"
    for name, (file, digest) in FILES.items():
        path, what = home / file, f"face model {name}"
        if not path.is_file():
            yield Check(what, MISSING, f"no {path}", mend, needed=True)
        elif files.sha256(path) != digest:
            yield Check(what, BAD, f"{path} is damaged", f"rm {path}; {mend}", needed=True)
        else:
            yield Check(what, OK, str(path))


# --------------------------------------------------------------------------- the machine
def _cache() -> Check:
    try:
        return Check("cache", OK, str(files.cache_directory("")))
    except AvhubertError as error:
        needed = not os.environ.get("AVHUBERT_MODELS")
        return Check("cache", BAD, f"cannot be used: {error}", "set AVHUBERT_CACHE to a folder of yours", needed)


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    state, mend = (OK, "") if free >= LOW_DISK else (LOW, "make room, or work in another folder")
    return Check("disk", state, f"{_size(free)} free in {Path.cwd()}", mend)


def _cores() -> Check:
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("cores", OK, f"{mine} of {os.cpu_count()}")


def _memory() -> Check:
    free = _free_memory()
    if free is None:
        return Check("memory", OK, "this system does not say")
    state, mend = (OK, "") if free >= LOW_MEMORY else (LOW, "close other programs, or give shorter videos")
    return Check("memory", state, f"{_size(free)} free", mend)


def _free_memory() -> int | None:
    """Bytes that a new process may have, less what its control group leaves."""
    try:
        told = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(told["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        return min(free, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no control group, or "max": no limit
        return free


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GB"
