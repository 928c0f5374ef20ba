"""The server with the built-in model reads a clip of a real person."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import REAL
from tests.serve.conftest import running

httpx = pytest.importorskip("httpx", reason="httpx is not installed")
pytestmark = pytest.mark.real


def test_the_page_and_the_api_with_the_built_in_model(tmp_path: Path) -> None:
    (tmp_path / "serve").mkdir()
    clip = REAL / "grid" / "s1" / "bbaf2n.mp4"
    with running(Path("builtin"), tmp_path / "serve") as server, httpx.Client(timeout=120) as client:
        assert client.get(f"{server.address}/health").json()["model"] == "builtin"
        assert "The built-in model knows 51 words" in client.get(f"{server.address}/config").text
        with open(clip, "rb") as file:
            answer = client.post(f"{server.address}/v1/transcriptions", files={"file": file})
    assert answer.status_code == 200
    assert answer.json()["modality"] == "av"
    assert answer.json()["words"]
