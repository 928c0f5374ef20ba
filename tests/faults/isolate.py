"""Runs one case in a process of its own: it may crash, hang, or take memory without taking the campaign along.

The process is a fork of the campaign, in which the package is imported already. An audit hook notes what no reader of
files may do: start a program, open a connection, write outside its folder.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avhubert.errors import AvhubertError
from tests.faults.outcome import ACCEPTED, REFUSED, Outcome

LONGEST_MESSAGE = 2100  # characters of a sentence: the known keys of a configuration are listed
FORBIDDEN = re.compile(
    r"subprocess\.|os\.(system|exec|posix_spawn|spawn|startfile)|pty\.|socket\.(connect|getaddrinfo|bind)"
)
WRITES = (
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
    "shutil.rmtree",
)


@dataclass(frozen=True)
class Limits:
    """What one case may take; it is killed beyond that."""

    seconds: float = 10.0
    memory_mb: float = 2000.0


class Fault(Exception):
    """A check of a case that does not hold: the verdict and the evidence."""

    def __init__(self, verdict: str, message: str) -> None:
        super().__init__(message)
        self.verdict = verdict


def isolated(
    case: str, work: Callable[[], int | None], folder: Path, limits: Limits = Limits(), watched: bool = True
) -> Outcome:
    """Run `work` in a fork.

    Args:
        case: Its description.
        work: Returns an exit code, or None for success; an AvhubertError is a refusal.
        folder: The only folder in which it may write.
        limits: Of time and memory.
        watched: Whether programs, connections and writes elsewhere are faults; commands that start processes of their
            own are not watched.
    """
    log = folder / ".case"
    log.unlink(missing_ok=True)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _run_in_child(work, folder, log, watched)
    status, peak = _wait(child, limits, started)
    seconds = time.monotonic() - started
    memory = peak / 1024
    stderr = _text(Path(f"{log}.err"))
    if status is None:
        over = "memory" if memory > limits.memory_mb else "hang"
        return Outcome(case, over, f"killed after {seconds:.1f} s with {memory:.0f} MB", seconds, memory)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return Outcome(case, "crash", f"{name} {stderr[-300:]}", seconds, memory)
    try:
        result = json.loads(log.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Outcome(case, "crash", f"exit code {os.WEXITSTATUS(status)}, {stderr[-300:]}", seconds, memory)
    return Outcome(case, result["verdict"], result["message"], seconds, memory)


def _text(path: Path) -> str:
    return path.read_text(errors="replace", encoding="utf-8") if path.exists() else ""


def _wait(child: int, limits: Limits, started: float) -> tuple[int | None, float]:
    """Wait status (None: killed at a limit) and largest memory in KiB above the memory at the fork."""
    page = os.sysconf("SC_PAGE_SIZE")
    first = largest = 0.0
    while True:
        pid, status, _ = os.wait4(child, os.WNOHANG)
        if pid:
            return status, largest - first
        with contextlib.suppress(OSError, IndexError, ValueError):
            shared = Path(f"/proc/{child}/statm").read_text(encoding="utf-8").split()
            resident = int(shared[1]) * page / 1024
            first = first or resident
            largest = max(largest, resident)
        if time.monotonic() - started > limits.seconds or (largest - first) / 1024 > limits.memory_mb:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.wait4(child, 0)
            return None, largest - first
        time.sleep(0.002)


def _run_in_child(work: Callable[[], int | None], folder: Path, log: Path, watched: bool) -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number, name in ((1, "out"), (2, "err")):
        handle = os.open(f"{log}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    faulthandler.enable(sys.stderr)
    violations: list[str] = []
    tempfile.tempdir = str(folder)
    if watched:
        _watch(folder, violations)
    try:
        verdict, message = _judge(work, log)
    except Fault as fault:
        verdict, message = fault.verdict, str(fault)
    except BaseException:
        verdict, message = "traceback", traceback.format_exc()[-700:]
    if violations:
        verdict, message = violations[0].split(": ", 1)
    log.write_text(json.dumps({"verdict": verdict, "message": message}), encoding="utf-8")
    os._exit(0)


def _judge(work: Callable[[], int | None], log: Path) -> tuple[str, str]:
    try:
        code = work()
    except AvhubertError as error:
        return _sentence(str(error))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    said = _text(Path(f"{log}.err"))
    if "Traceback" in said:
        return "traceback", said[-700:]
    if not code:
        return ACCEPTED, ""
    if code not in (1, 2):
        return "exit code", f"{code}: {said[-300:]}"
    lines = [line for line in said.splitlines() if line.strip()]
    if not lines:
        return "silent", f"exit code {code} without a message"
    return _sentence(lines[-1])


def _sentence(text: str) -> tuple[str, str]:
    """A refusal, if it is one sentence that a person can read."""
    problem = None
    if not text.strip():
        problem = "an empty message"
    elif "\n" in text or "\r" in text:
        problem = "a message of several lines"
    elif len(text) > LONGEST_MESSAGE:
        problem = f"a message of {len(text)} characters"
    elif any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        problem = "a message with control characters"
    return ("message", f"{problem}: {text[:300]!r}") if problem else (REFUSED, text)


def _watch(folder: Path, violations: list[str]) -> None:
    """Note forbidden events from now on; Python cannot remove an audit hook, so only a child calls this."""
    allowed = (str(folder), "/dev/", "/proc/self")

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if FORBIDDEN.match(event):
            violations.append(f"executed: {event} {str(arguments)[:200]}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)) and _writes(arguments):
            _check_inside(arguments[0], allowed, event, violations)
        elif event in WRITES:
            for name in arguments:
                if isinstance(name, (str, bytes)) and (event in ("os.rename", "os.link") or name is arguments[0]):
                    _check_inside(name, allowed, event, violations)

    sys.addaudithook(note)


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def _check_inside(name: str | bytes, allowed: tuple[str, ...], event: str, violations: list[str]) -> None:
    if event in ("os.remove", "os.rmdir") and not os.path.isabs(name):
        return  # relative to an open folder, as shutil.rmtree does it; its own event names that folder
    path = os.path.realpath(os.fsdecode(name))
    if not path.startswith(allowed):
        violations.append(f"wrote outside: {event} {path}")
