"""All modules and the quick commands on a simulated Windows and macOS; see simulated_system/sitecustomize.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import avhubert

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the simulation reads /proc")

SIMULATION = Path(__file__).parent / "simulated_system"
PACKAGES = Path(avhubert.__file__).parents[1]
SYSTEMS = ["win32", "darwin"]


def run(system: str, code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Run Python code on the simulated system; the console of Windows has the encoding cp1252."""
    environment = {
        **os.environ,
        "SIMULATED_SYSTEM": system,
        "PYTHONPATH": os.pathsep.join([str(SIMULATION), str(PACKAGES)]),
        "PYTHONWARNDEFAULTENCODING": "1",
        "PYTHONIOENCODING": "cp1252" if system == "win32" else "utf-8",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        encoding="cp1252" if system == "win32" else "utf-8",
        env=environment,
        cwd=cwd,
        timeout=300,
    )


IMPORT_ALL = """
import importlib, pkgutil, sys
import avhubert
count = 0
for module in pkgutil.walk_packages(avhubert.__path__, "avhubert."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:  # of an extra that is not installed
            if "on win32" in str(error) or "on darwin" in str(error) or error.name.startswith("avhubert"):
                raise
        count += 1
assert "avhubert.platforms" in sys.modules
print(count, sys.modules["avhubert.platforms"].sys.platform)
"""


@pytest.mark.parametrize("system", ["win32", pytest.param("darwin", marks=pytest.mark.slow)])
def test_every_module_can_be_imported(system: str) -> None:
    done = run(system, IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    count, name = done.stdout.split()
    assert name == system
    assert int(count) > 150


COMMANDS = """
import os, sys
from pathlib import Path
from avhubert.cli import main

data, labels, recording, small_model, small_scratch, all_commands = sys.argv[1:]
small_model, small_scratch = small_model.split("|"), small_scratch.split("|")
once = ["train.max_steps=1", "train.save_every=1", "train.validate_every=1", "train.log_every=1"]

def run(*words):
    code = main(words)
    assert code == 0, (words, code)

if __name__ == "__main__":
    assert main(["doctor"]) in (0, 1)
    run("info", data)
    run("cluster", data, "--features", "mfcc", "--clusters", "4", "--out", "labels")
    run("shards", data, "shards")
    run("finetune", "--config-name", "tiny", f"data.dir={data}", "run_dir=fine", *once, *small_scratch)
    run("info", "fine")
    run("transcribe", recording, "--model", "fine", "--out", "text", "--modality", "a")
    if all_commands:
        run("synth", "corpus", "--clips", "6", "--speakers", "2", "--workers", "1")
        run("prepare", "lrs3", "corpus", "prepared", "--workers", "2", "--max-rejected", "1")
        run("pretrain", "--config-name", "tiny_iter1", f"data.dir={data}", f"data.labels={labels}", "run_dir=pre",
            *once, *small_model)
        run("evaluate", "fine", data, "--out", "results", "--modality", "a")
"""


@pytest.mark.parametrize(
    ("system", "all_commands"),
    [("win32", ""), *(pytest.param(system, "all", marks=pytest.mark.slow) for system in SYSTEMS)],
)
def test_commands(
    system: str,
    all_commands: str,
    data_dir: Path,
    labels_dir: Path,
    small_model: list[str],
    small_scratch: list[str],
    tmp_path: Path,
) -> None:
    """Training, evaluation, transcription and preparation, with worker processes; every line of text ends in \\n."""
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    name = "emoji \U0001f600 ä"
    shutil.copy(data_dir / "test0.mp4", recordings / f"{name}.mp4")
    shutil.copy(data_dir / "test0.wav", recordings / f"{name}.wav")
    work = tmp_path / "work"
    work.mkdir()
    paths = [str(data_dir), str(labels_dir), str(recordings / f"{name}.wav")]
    done = run(system, COMMANDS, *paths, "|".join(small_model), "|".join(small_scratch), all_commands, cwd=work)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (work / "text" / f"{name}.txt").is_file()
    manifest = (work / "shards" / "train.tsv").read_text(encoding="utf-8")
    assert "shards/train-000000.tar/000000.npy" in manifest
    texts = [path for path in work.rglob("*") if path.suffix in (".tsv", ".txt", ".json", ".jsonl", ".yaml", ".km")]
    assert len(texts) > 10
    assert not [path for path in texts if b"\r" in path.read_bytes()]


REFUSED = """
import os, sys, tempfile
from pathlib import Path
import avhubert.platforms as platforms

def refused(action):
    try:
        action()
    except (OSError, AttributeError, ImportError, EncodingWarning) as error:
        return type(error).__name__
    return "allowed"

file = open("open.txt", "w", encoding="utf-8")
Path("other.txt").write_text("x", encoding="utf-8")
source = "def f(code):\\n    exec(code)\\ndef g(path):\\n    return open(path).read()"
module = {"__name__": "avhubert.simulated"}
exec(source, module)
print(*map(refused, [
    lambda: os.replace("other.txt", "open.txt"),
    lambda: open("12:30.txt", "w", encoding="utf-8"),
    lambda: os.mkdir("con"),
    lambda: module["f"]("import fcntl"),
    lambda: module["f"]("import os; os.getuid()"),
    lambda: module["f"]("import signal; signal.SIGKILL"),
    lambda: module["g"]("other.txt"),
]))
"""


def test_the_simulation_refuses_what_windows_refuses(tmp_path: Path) -> None:
    done = run("win32", REFUSED, cwd=tmp_path)
    assert done.stdout.split() == [
        "PermissionError", "OSError", "OSError", "ModuleNotFoundError", "AttributeError", "AttributeError",
        "EncodingWarning",
    ], done.stderr  # fmt: skip
