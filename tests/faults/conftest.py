"""The small world of the campaign, made once for all short forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.world import make_world


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the cases, with the world in it. Only one part works in it at a time."""
    folder = tmp_path_factory.mktemp("faults")
    make_world(folder / "world")
    return folder
