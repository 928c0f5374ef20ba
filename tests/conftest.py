"""Shared fixtures: the golden folder (skipped with a reason where it is absent); one torch thread per process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """`golden(name)` is the path of a golden file; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        path = GOLDEN / name
        if not path.exists():
            pytest.skip(f"golden file {name} is not here: the folder ../shared/golden is not part of the package")
        return path

    return find
