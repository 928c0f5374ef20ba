"""Linux, macOS and Windows: only one module depends on the system, and text files have an encoding."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from avhubert import platforms

pytestmark = pytest.mark.quick

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = Path(platforms.__file__).parent
ONE_PLACE = PACKAGE / "platforms.py"

# absent from Windows, from macOS, or from both
MODULES = {
    *("fcntl", "grp", "pwd", "pty", "tty", "termios", "resource", "syslog", "posix", "readline", "crypt", "spwd"),
    *("msvcrt", "winreg", "_winapi", "winsound", "nt"),
}
NAMES_OF_OS = {
    *("fork", "forkpty", "pread", "pwrite", "preadv", "pwritev", "getuid", "geteuid", "getgid", "getegid", "getpgid"),
    *("setpgid", "setsid", "setuid", "killpg", "nice", "uname", "sysconf", "statvfs", "fstatvfs", "mkfifo", "mknod"),
    *("getloadavg", "chown", "lchown", "chroot", "fchmod", "fchown", "sched_getaffinity", "sched_setaffinity"),
    *(
        "posix_fadvise",
        "posix_fallocate",
        "memfd_create",
        "sendfile",
        "wait",
        "wait3",
        "wait4",
        "WNOHANG",
        "O_NOFOLLOW",
    ),
    *("O_DIRECTORY", "startfile", "getpriority", "setpriority", "ctermid", "O_CLOEXEC", "sync", "fdatasync"),
}
NAMES_OF_SIGNAL = {
    *("SIGKILL", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGSTOP", "SIGTSTP"),
    *("SIGCONT", "alarm", "setitimer", "pause", "sigwait", "pthread_sigmask", "pthread_kill", "siginterrupt"),
}
QUESTIONS = {("sys", "platform"), ("os", "name"), ("platform", "system"), ("sys", "getwindowsversion")}


def sources(folder: str) -> list[Path]:
    return sorted((PACKAGE if folder == "avhubert" else PROJECT / folder).rglob("*.py"))


def platform_dependent(path: Path) -> list[str]:
    """The imports and names of a file that not every system has, and its questions about the system."""
    wrong = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            wrong += [f"{node.lineno}: import {name.name}" for name in node.names if name.name in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in {*MODULES, "os", "signal"}:
            names = {name.name for name in node.names}
            if node.module in MODULES or names & (NAMES_OF_OS | NAMES_OF_SIGNAL):
                wrong.append(f"{node.lineno}: from {node.module} import …")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module, name = node.value.id, node.attr
            absent = (module == "os" and name in NAMES_OF_OS) or (module == "signal" and name in NAMES_OF_SIGNAL)
            if absent or (module, name) in QUESTIONS:
                wrong.append(f"{node.lineno}: {module}.{name}")
        elif isinstance(node, ast.Constant) and str(node.value).startswith(("fork", "/proc", "/sys/", "/tmp", "/dev/")):
            wrong.append(f"{node.lineno}: {node.value!r}")
    return wrong


def test_only_one_module_depends_on_the_system() -> None:
    wrong = {
        str(path.relative_to(PACKAGE)): found
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != ONE_PLACE and (found := platform_dependent(path))
    }
    assert not wrong, f"use or extend avhubert/platforms.py: {wrong}"


def test_that_module_imports_nothing_of_the_system_at_its_top() -> None:
    tree = ast.parse(ONE_PLACE.read_text(encoding="utf-8"))
    names = {name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names}
    assert names
    assert not names & MODULES
    assert platform_dependent(ONE_PLACE), "the check finds what it looks for"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    """Also where another thread receives the signal."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    steps = []

    def interrupted() -> None:
        with platforms.without_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            steps.append("in the block")
        steps.append("after the block")

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        end.set()
        thread.join()
    assert steps == ["in the block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def without_encoding(path: Path) -> list[str]:
    """Calls that read or write text in the encoding of the locale, or write the system's line ends."""
    wrong = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        is_method = isinstance(node.func, ast.Attribute)
        of_files = is_method and isinstance(node.func.value, ast.Name) and node.func.value.id == "files"
        mode = ""
        if name == "open" and is_method and _is_open_of_a_path(node) and "encoding" not in keywords:
            wrong.append(f"{node.lineno}: open without encoding")
        elif name == "open" and not is_method:
            second = node.args[1] if len(node.args) > 1 else keywords.get("mode")
            mode = second.value if isinstance(second, ast.Constant) else "r"
            if "b" not in mode and "encoding" not in keywords:
                wrong.append(f"{node.lineno}: open without encoding")
        elif name in ("read_text", "write_text") and is_method and not of_files:
            position = 0 if name == "read_text" else 1
            if "encoding" not in keywords and len(node.args) <= position:
                wrong.append(f"{node.lineno}: {name} without encoding")
            mode = "w" if name == "write_text" else "r"
        elif name in ("run", "Popen", "check_output") and "text" in keywords and "encoding" not in keywords:
            wrong.append(f"{node.lineno}: {name} with text=True and without encoding")
        if set(mode) & set("wax") and "b" not in mode and "newline" not in keywords:
            wrong.append(f"{node.lineno}: text is written without newline")
    return wrong


def _is_open_of_a_path(call: ast.Call) -> bool:
    """Whether a call can be `path.open()` or `path.open("w")`, in text mode."""
    if not call.args:
        return {keyword.arg for keyword in call.keywords} <= {"mode", "newline", "errors"}
    mode = call.args[0].value if len(call.args) == 1 and isinstance(call.args[0], ast.Constant) else None
    return isinstance(mode, str) and set(mode) <= set("rwaxt+")


def test_tests_read_and_write_text_with_an_encoding() -> None:
    """The line ends that they write, and the encoding of a subprocess, do not matter."""
    wrong = {}
    for path in sorted((PROJECT / "tests").rglob("*.py")):
        found = [
            line
            for line in without_encoding(path)
            if line.endswith(("open without encoding", "_text without encoding"))
        ]
        if found and path.parent.name != "parity":  # its files are ASCII
            wrong[str(path)] = found
    assert not wrong


@pytest.mark.parametrize("folder", ["avhubert", "benchmarks", "docs", "scripts"])
def test_text_is_read_and_written_with_an_encoding(folder: str) -> None:
    paths = sources(folder)
    if not paths:
        pytest.skip(f"the folder {folder} is not here: the tests run against an installed package")
    wrong = {str(path): found for path in paths if (found := without_encoding(path))}
    assert not wrong


def test_the_check_of_encodings_finds_what_it_looks_for(tmp_path: Path) -> None:
    lines = (
        "open(p)",
        "p.open()",
        "p.open('a')",
        "open(p, 'w', encoding='utf-8')",
        "p.read_text()",
        "p.write_text('x', encoding='utf-8')",
        "subprocess.run(c, text=True)",
    )
    for line in lines:
        (tmp_path / "wrong.py").write_text(line, encoding="utf-8")
        assert len(without_encoding(tmp_path / "wrong.py")) == 1, line
    right = "open(p, 'rb'); p.read_text('utf-8'); open(p, 'a', encoding='utf-8', newline=''); files.write_text(p, 'x')"
    (tmp_path / "right.py").write_text(right, encoding="utf-8")
    assert not without_encoding(tmp_path / "right.py")


# --------------------------------------------------------------------------- the functions of avhubert.platforms
def test_a_lock_is_held_once_and_released_with_the_file(tmp_path: Path) -> None:
    with (
        open(tmp_path / "lock", "w", encoding="utf-8") as first,
        open(tmp_path / "lock", "w", encoding="utf-8") as second,
    ):
        platforms.lock_file(first)
        with pytest.raises(OSError):
            platforms.lock_file(second)
        first.close()
        platforms.lock_file(second)


def test_a_file_that_windows_holds_for_a_moment_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of Windows cannot be provoked elsewhere."""
    (tmp_path / "new").write_text("new", encoding="utf-8")
    (tmp_path / "old").write_text("old", encoding="utf-8")
    real, calls = os.replace, []

    def held(source: Path, target: Path) -> None:
        calls.append(time.monotonic())
        if len(calls) < 3:
            raise PermissionError(13, "Access is denied")
        real(source, target)

    monkeypatch.setattr(os, "replace", held)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(PermissionError):  # on other systems a PermissionError is final
        platforms.replace(tmp_path / "new", tmp_path / "old")
    monkeypatch.setattr(sys, "platform", "win32")
    platforms.replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text(encoding="utf-8") == "new"
    calls.clear()
    monkeypatch.setattr(platforms, "REPLACE_SECONDS", 0.0)
    (tmp_path / "new").write_text("newer", encoding="utf-8")
    with pytest.raises(PermissionError):
        platforms.replace(tmp_path / "new", tmp_path / "old")


def test_windows_waits_for_sixty_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert platforms.usable_processes(96) == (60 if sys.platform == "win32" else 96)
    monkeypatch.setattr(sys, "platform", "win32")
    assert platforms.usable_processes(96) == 60
    assert platforms.usable_processes(4) == 4


def test_cores_and_memory_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= platforms.usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert platforms.usable_cores() == os.cpu_count()
    assert platforms.free_memory() is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces the limit")
def test_a_process_beyond_its_memory_limit_gets_a_memory_error() -> None:
    code = "from avhubert import platforms; assert platforms.limit_memory(1 << 28); bytearray(1 << 29)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "MemoryError"


def test_no_memory_limit_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert not platforms.limit_memory(1)


def test_stop_signals_are_those_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"SIGTERM", "SIGINT"} <= {kind.name for kind in platforms.stop_signals()}
    monkeypatch.delattr(signal, "SIGUSR1", raising=False)
    assert [kind.name for kind in platforms.stop_signals()] == ["SIGTERM", "SIGINT"]
