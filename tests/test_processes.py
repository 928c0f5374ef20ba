"""Work in processes that raise, die, hang or run out of memory: only the task of that process fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from avhubert.errors import AvhubertError, ConfigError, MediaError
from avhubert.processes import CRASHED, NO_MEMORY, NO_PROGRESS, Caller, Failure, report_progress, run_in_processes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def work(task: str) -> str:
    """What a decoder can do, by the name of the task."""
    match task.split()[0]:
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(7)
        case "hang":
            time.sleep(3600)
        case "slow":
            for _ in range(12):
                time.sleep(0.25)
                report_progress()
        case "raise":
            raise MediaError("the file is damaged", kind="damaged", path="x.mp4")
        case "fail":
            raise ValueError("not a number")
        case "config":
            raise ConfigError("no such model", path="m.tflite")
        case "full":
            raise OSError(28, "No space left on device")
        case "greedy":
            blocks = []
            while True:
                blocks.append(np.empty(1 << 30, np.uint8))  # no page of them is used
        case "pid":
            return str(os.getpid())
    return task.upper()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce a limit of memory")
def test_a_task_that_takes_all_memory_fails_alone_and_its_process_is_replaced() -> None:
    results = dict(run_in_processes(work, ["pid 1", "greedy", "pid 2"], 1, 30))
    assert isinstance(greedy := results["greedy"], Failure)
    assert greedy.kind == NO_MEMORY
    assert results["pid 1"] != results["pid 2"]


def fail_to_start() -> None:
    raise SystemExit(3)


def test_only_the_guilty_tasks_fail_and_the_pool_goes_on() -> None:
    tasks = [
        "a",
        "segfault",
        "b",
        "kill",
        "hang",
        "exit",
        "slow",
        "raise",
        "fail",
        *(f"t{n}" for n in range(20)),
    ]
    start = time.monotonic()
    outcomes = dict(run_in_processes(work, tasks, 2, 1.5))
    assert sorted(outcomes) == sorted(tasks)
    failures = {task: outcome for task, outcome in outcomes.items() if isinstance(outcome, Failure)}
    traceback = failures.pop("fail").traceback
    assert "ValueError: not a number" in traceback
    assert failures == {
        "raise": Failure("damaged", "the file is damaged"),
        "segfault": Failure(CRASHED, "the decoder crashed (SIGSEGV)"),
        "kill": Failure(CRASHED, "the decoder crashed (killed; if memory was short, use fewer --workers)"),
        "exit": Failure(CRASHED, "the decoder crashed (exit code 7)"),
        "hang": Failure(NO_PROGRESS, "no progress for 1.5 s"),
    }
    assert outcomes["slow"] == "SLOW"  # it takes 3 s in all, but says that it goes on
    assert outcomes["t19"] == "T19"
    assert time.monotonic() - start < 60


def test_one_process_does_all_tasks_in_order() -> None:
    outcomes = list(run_in_processes(work, ["pid 1", "pid 2", "kill", "pid 3"], 1, 10))
    pids = [outcome for _, outcome in outcomes]
    assert [task for task, _ in outcomes] == ["pid 1", "pid 2", "kill", "pid 3"]
    assert pids[0] == pids[1] != pids[3]


@pytest.mark.parametrize(
    ("task", "error", "words"), [("config", ConfigError, "no such model"), ("full", OSError, "No space left")]
)
def test_an_error_of_every_task_ends_the_job_and_all_processes(task: str, error: type[Exception], words: str) -> None:
    outcomes = run_in_processes(work, ["pid", task, "hang"], 1, 60)
    _, pid = next(outcomes)
    with pytest.raises(error, match=words) as caught:
        next(outcomes)
    if task == "config":
        assert caught.value.path == Path("m.tflite")
    with pytest.raises(ProcessLookupError):
        os.kill(int(str(pid)), 0)


def test_calls_go_to_one_process_until_it_dies() -> None:
    caller = Caller(10)
    pids = [caller.call(os.getpid) for _ in range(2)]
    assert pids[0] == pids[1] != os.getpid()
    assert caller.call(partial(os._exit, 7)) == Failure(CRASHED, "the decoder crashed (exit code 7)")
    with pytest.raises(ConfigError, match="no such model"):
        caller.call(partial(work, "config"))
    assert caller.call(os.getpid) not in (pids[0], os.getpid())
    caller.close()
    caller.close()


def test_a_process_that_cannot_start_is_an_error_of_the_job() -> None:
    with pytest.raises(AvhubertError, match=r"a worker process could not be started \(exit code 3\)"):
        list(run_in_processes(work, ["a"], 1, 60, fail_to_start))


def test_a_hanging_process_ends_with_its_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import os, sys, time\n"
        "from avhubert.processes import run_in_processes\n"
        "def hang(path):\n"
        "    open(path, 'w').write(str(os.getpid()))\n"
        "    time.sleep(3600)\n"
        "if __name__ == '__main__':\n"
        "    list(run_in_processes(hang, [sys.argv[1]], 1, 3600))\n",
        encoding="utf-8",
    )
    note = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, str(script), str(note)], env={**os.environ, "PYTHONPATH": os.getcwd()})
    deadline = time.monotonic() + 60
    while not (note.is_file() and note.read_text(encoding="utf-8")) and time.monotonic() < deadline:
        time.sleep(0.02)
    child = int(note.read_text(encoding="utf-8"))
    parent.kill()
    parent.wait()
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("the process outlived its parent")
