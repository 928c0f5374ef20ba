"""A full disk gives the operating system's error; equal content gives equal files."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avhubert.checkpoints.writing import write_archive, write_safetensors

pytestmark = pytest.mark.quick

FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from avhubert.checkpoints.writing import write_archive, write_safetensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for write in (write_archive, lambda state, path: write_safetensors(state, path, {"format": "pt"})):
    try:
        write({"weight": torch.ones(100_000)}, Path(sys.argv[1]))
    except OSError as error:
        print(error.strerror)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes")
def test_a_file_that_cannot_grow(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path / "x"], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["File too large"] * 2, done.stderr


KILLED = """
import resource, signal, sys
from pathlib import Path
import torch
from avhubert.checkpoints.writing import write_safetensors
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
write_safetensors({"weight": torch.ones(100_000)}, Path(sys.argv[1]), {"format": "pt"})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes")
def test_the_next_write_removes_what_a_process_killed_in_a_write_left(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    done = subprocess.run([sys.executable, "-c", KILLED, path], capture_output=True, text=True)
    assert done.returncode == -signal.SIGXFSZ, done.stderr
    assert not path.exists()
    assert list(tmp_path.iterdir())
    write_safetensors({"weight": torch.ones(2)}, path, {"format": "pt"})
    assert list(tmp_path.iterdir()) == [path]
    assert torch.equal(load_file(path)["weight"], torch.ones(2))


def test_equal_content_gives_equal_files(tmp_path: Path) -> None:
    state = {"weight": torch.arange(8.0)}
    for number in range(6):
        write_archive(state, tmp_path / f"{number}.pt")
        write_safetensors(state, tmp_path / f"{number}.safetensors", {"b": "1", "a": "2", "format": "pt"})
    for suffix in ("pt", "safetensors"):
        assert len({path.read_bytes() for path in tmp_path.glob(f"*.{suffix}")}) == 1
    assert torch.equal(torch.load(tmp_path / "0.pt", weights_only=True)["weight"], state["weight"])
