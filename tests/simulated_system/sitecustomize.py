"""Makes every Python process whose PYTHONPATH has this folder look like Windows or macOS to the modules of avhubert.

$SIMULATED_SYSTEM is 'win32' or 'darwin'. Modules and functions that the system lacks are missing, and `sys.platform` is
its name, but only for imports in avhubert: libraries see the real system. On 'win32', in the whole process: names that
Windows refuses cannot be created, and open files can be neither renamed nor deleted. Text that avhubert reads or writes
in the encoding of the locale is an error.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import os
import signal
import sys
import types
import warnings

SYSTEM = os.environ["SIMULATED_SYSTEM"]
MISSING_MODULES = {
    "win32": {"fcntl", "grp", "pwd", "pty", "tty", "termios", "resource", "syslog", "posix", "readline"},
    "darwin": {"msvcrt", "winreg", "_winapi", "winsound", "nt"},
}[SYSTEM]
ON_LINUX_ONLY = {
    *("sched_getaffinity", "sched_setaffinity", "posix_fadvise", "posix_fallocate", "memfd_create", "getrandom"),
    *("O_TMPFILE", "O_DIRECT", "O_PATH", "O_NOATIME", "pidfd_open", "eventfd", "fdatasync", "splice"),
}
ON_POSIX_ONLY = {
    *("fork", "forkpty", "pread", "pwrite", "preadv", "pwritev", "getuid", "geteuid", "getgid", "getegid", "getpgid"),
    *("setpgid", "setsid", "setuid", "killpg", "nice", "uname", "sysconf", "statvfs", "fstatvfs", "mkfifo", "mknod"),
    *("getloadavg", "chown", "lchown", "chroot", "fchmod", "fchown", "sendfile", "wait", "wait3", "wait4", "WNOHANG"),
    *("O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "sync", "set_blocking", "get_blocking"),
}
SIGNALS = {name for name in dir(signal) if name.startswith("SIG")}
WINDOWS_SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN"}
FUNCTIONS_OF_SIGNAL = {"alarm", "setitimer", "getitimer", "pause", "sigwait", "pthread_sigmask", "pthread_kill"}
MISSING = {
    "win32": {
        "os": ON_LINUX_ONLY | ON_POSIX_ONLY,
        "signal": (SIGNALS - WINDOWS_SIGNALS) | FUNCTIONS_OF_SIGNAL,
        "sys": set(),
    },
    "darwin": {
        "os": ON_LINUX_ONLY,
        "signal": {"SIGRTMIN", "SIGRTMAX", "SIGPWR", "SIGSTKFLT"},
        "sys": {"getwindowsversion"},
    },
}[SYSTEM]


class Module(types.ModuleType):
    """A module of the standard library as it is on the simulated system."""

    def __init__(self, name: str, changes: dict[str, object]) -> None:
        super().__init__(name)
        self.__dict__.update(_real=sys.modules[name], _missing=MISSING[name], _changes=changes)

    def __getattr__(self, name: str) -> object:
        if name in self._missing:
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}' on {SYSTEM}")
        return self._changes[name] if name in self._changes else getattr(self._real, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._real, name, value)


def _locking(descriptor: int, mode: int, count: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


MODULES = {
    "sys": Module("sys", {"platform": SYSTEM}),
    "os": Module("os", {"name": "nt"} if SYSTEM == "win32" else {}),
    "signal": Module("signal", {}),
}
if SYSTEM == "win32":
    MODULES["msvcrt"] = types.ModuleType("msvcrt")
    MODULES["msvcrt"].LK_NBLCK, MODULES["msvcrt"].locking = 2, _locking

_real_import = builtins.__import__


def _import(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if level == 0 and (importer == "avhubert" or importer.startswith("avhubert.")):
        top = name.partition(".")[0]
        if top in MISSING_MODULES:
            raise ModuleNotFoundError(f"No module named '{top}' on {SYSTEM}", name=top)
        if top in MODULES and (name == top or not fromlist):
            return MODULES[top]
    return _real_import(name, globals, locals, fromlist, level)


# --------------------------------------------------------------------------- file names and open files of Windows
FORBIDDEN = set('<>:"|?*\\') | {chr(code) for code in range(32)}
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in "123456789")}


def _check_name(path: object) -> None:
    if isinstance(path, (str, bytes, os.PathLike)):
        name = os.path.basename(os.fsdecode(path))
        if set(name) & FORBIDDEN or name.partition(".")[0].lower() in RESERVED or name != name.rstrip(". "):
            raise OSError(errno.EINVAL, "Windows refuses this name", os.fsdecode(path))


def _open_paths() -> set[str]:
    """Paths that this process has open or mapped."""
    paths = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            paths.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        paths.update(line.split(maxsplit=5)[5].rstrip("\n") for line in maps if "/" in line)
    return paths


def _check_closed(path: object) -> None:
    if isinstance(path, (str, bytes, os.PathLike)):
        name = os.path.abspath(os.fsdecode(path))
        if any(used == name or used.startswith(f"{name}/") for used in _open_paths()):
            raise PermissionError(errno.EACCES, "the file is open: Windows neither renames nor deletes it", name)


def _audit(event: str, arguments: tuple) -> None:
    creates = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
    if creates or event == "os.mkdir":
        _check_name(arguments[0])
    elif event == "os.rename":
        _check_closed(arguments[0])
        _check_closed(arguments[1])
        _check_name(arguments[1])
    elif event == "os.remove":
        _check_closed(arguments[0])


builtins.__import__ = _import
if SYSTEM == "win32":
    sys.addaudithook(_audit)
warnings.filterwarnings("error", category=EncodingWarning, module=r"avhubert(\.|$)")
