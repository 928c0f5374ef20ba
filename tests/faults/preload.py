"""Builds the library of `preload.c` and starts commands with it."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
AVAILABLE = sys.platform == "linux" and shutil.which("cc") is not None


@dataclass(frozen=True)
class Run:
    """A command that ended: exit code (negative: signal), its stderr and stdout, and the changes that it made."""

    code: int
    stderr: str
    stdout: str
    changes: int
    written: int = 0  # bytes, where `disk_bytes` was given

    @property
    def problem(self) -> str | None:
        """What is wrong with how a command ended: a traceback, a crash, no sentence; None if nothing."""
        if "Traceback" in self.stderr or "Traceback" in self.stdout:
            return "traceback"
        if self.code not in (0, 1, 2):
            return "hang" if self.stderr.endswith("hung") else f"exit code {self.code}"
        if self.code and not any(line.startswith("avhubert: ") for line in self.stderr.splitlines()):
            return "silent"
        return None


@dataclass(frozen=True)
class Preload:
    """Starts the command line with faults of the operating system.

    Args:
        scratch: for the library and the counter.
        folder: in which changes count and space is limited.
    """

    scratch: Path
    folder: Path
    library: Path = field(init=False)

    def __post_init__(self) -> None:
        self.scratch.mkdir(parents=True, exist_ok=True)
        library = self.scratch / "preload.so"
        source = Path(__file__).with_suffix(".c")
        if not library.exists():
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
        object.__setattr__(self, "library", library)

    def run(self, arguments: list[str], timeout: float = 600, **faults: int | str) -> Run:
        """Run `avhubert ARGUMENTS`; `faults` are the variables of preload.c without FAULT_, in small letters."""
        counter = self.scratch / f"counter-{threading.get_ident()}"
        counter.write_bytes(bytes(16))
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",  # results depend on the number of threads in their last bits
            "LD_PRELOAD": str(self.library),
            "FAULT_FOLDER": str(self.folder),
            "FAULT_COUNTER": str(counter),
            **{f"FAULT_{name.upper()}": str(value) for name, value in faults.items()},
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "avhubert.cli", *arguments],
            env=environment, cwd=self.scratch, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            stdout, stderr = process.communicate()
            stderr += b"\nhung"
        changes, written = struct.unpack("<qq", counter.read_bytes())
        text = (stderr.decode(errors="replace"), stdout.decode(errors="replace"))
        return Run(process.returncode, *text, changes, written)
