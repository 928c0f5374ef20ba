"""What differs between Linux, macOS and Windows: locks, limits, signals, cores, memory, renaming, cameras.

No other module imports a module, or uses a function, that one of these systems lacks, and no other module asks which
system it is; `tests/test_platforms.py` checks both.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

MAX_WINDOWS_PROCESSES = 60  # that one process can wait for: 63 handles less those of the pool
REPLACE_SECONDS = 2.0  # for which another program may hold a file open on Windows


def lock_file(handle: IO[str]) -> None:
    """Lock an open file until it is closed; OSError if another process holds the lock."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def claim(path: Path) -> int | None:
    """Lock a file or folder that is being written, until the returned descriptor is closed.

    Returns:
        None where that is impossible: on Windows, which does not rename open files, and on file systems without locks.

    Raises:
        BlockingIOError: Another claim holds it.
        OSError: It cannot be opened.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor


def replace(source: str | Path, target: str | Path) -> None:
    """Rename a file or folder, over an existing file.

    On Windows a file that another program has open, such as a virus scanner, cannot be replaced: the call is repeated
    for two seconds.
    """
    deadline = time.monotonic() + REPLACE_SECONDS
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if not is_windows() or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def limit_memory(limit: int) -> bool:
    """Limit the memory of this process to `limit` bytes; False where the system has no such limit.

    Windows has none, and macOS accepts the limit without enforcing it.
    """
    if sys.platform == "win32":
        return False
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    except (ValueError, OSError):  # the administrator's limit is lower
        return False
    return sys.platform != "darwin"


def stop_signals() -> tuple[signal.Signals, ...]:
    """SIGTERM, SIGINT and, except on Windows, SIGUSR1."""
    return tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block; a process that is started in it never gets it. No effect on Windows."""
    if is_windows():
        yield
        return
    delayed: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:  # other threads receive the signal too, and Python handles it in the main thread
        handler = signal.signal(signal.SIGINT, lambda number, frame: delayed.append(number))
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a new process inherits this
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
            if delayed:
                signal.raise_signal(signal.SIGINT)


def usable_cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_processes(wanted: int) -> int:
    """At most `wanted` processes: Windows can wait for 60 only."""
    return min(wanted, MAX_WINDOWS_PROCESSES) if is_windows() else wanted


def free_memory() -> int | None:
    """Bytes that a new process may use, within the limit of its control group; None if unknown on this system."""
    if sys.platform != "linux":
        return None
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        rows = dict(line.split(":", 1) for line in lines)
        free = int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no control group, or "max": no limit
        limit = int((group / "memory.max").read_text(encoding="utf-8"))
        free = min(free, limit - int((group / "memory.current").read_text(encoding="utf-8")))
    return free


def describe_system() -> str:
    """Name and processor, such as "Linux x86_64"."""
    return f"{platform.system()} {platform.machine()}"


def is_windows() -> bool:
    """Whether this is Windows."""
    return sys.platform == "win32"


def has_nccl() -> bool:
    """Whether PyTorch can have NCCL, which several GPUs and sharding need: on Linux only."""
    return sys.platform == "linux"


def camera_arguments(number: int) -> list[str] | None:
    """Arguments with which the program ffmpeg reads a camera and the default microphone; None: not known here."""
    if sys.platform == "linux":
        return ["-f", "v4l2", "-i", f"/dev/video{number}", "-f", "alsa", "-i", "default"]
    if sys.platform == "darwin":
        return ["-f", "avfoundation", "-framerate", "30", "-i", f"{number}:default"]
    return None
