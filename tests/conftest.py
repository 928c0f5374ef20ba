"""Shared fixtures: the golden files (the small ones are kept here, the others skipped); one torch thread a process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
SMALL = Path(__file__).parent / "data" / "golden"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """`golden(name)` is the path of a golden file; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        for path in (GOLDEN / name, SMALL / name):
            if path.exists():
                return path
        pytest.skip(f"golden file {name} is not here: the folder ../shared/golden is not part of the package")

    return find
