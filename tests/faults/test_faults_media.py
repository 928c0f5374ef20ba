"""Short forms of the parts `media` and `serve`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults import damaged_media

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="the campaign forks")]


def test_damaged_recordings_are_named(folder: Path) -> None:
    case = damaged_media.make(folder, seed=100)
    outcomes = [case(number) for number in range(int(os.environ.get("AVHUBERT_FAULTS", "30")))]
    assert [outcome for outcome in outcomes if outcome.is_fault] == []


def test_a_busy_server_answers_everything(folder: Path) -> None:
    pytest.importorskip("fastapi", reason="FastAPI is not installed (pip install 'avhubert[serve]')")
    from tests.faults import busy_server

    case = busy_server.make(folder, seed=100)
    try:
        outcomes = [case(number) for number in range(4)]
    finally:
        case.close()  # type: ignore[attr-defined]
    assert [outcome for outcome in outcomes if outcome.is_fault] == []
