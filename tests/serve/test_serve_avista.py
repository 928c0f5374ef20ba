"""A recognizer of AVista's layout behind a real server: an uploaded raw video gets its text."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from avhubert.checkpoints.load import load_recognizer
from avhubert.transcription.pipeline import transcribe
from avhubert.transcription.transcript import render
from tests.avista_folder import write_recognizer
from tests.serve.conftest import running


@pytest.mark.slow
def test_uploaded_video_gets_the_text_of_transcribe(clip: Path, tmp_path: Path) -> None:
    folder = write_recognizer(tmp_path / "avista")
    files = tmp_path / "server"
    files.mkdir()
    with running(folder, files, "--max-seconds", "20") as server:
        assert httpx.get(server.address + "/health").json()["model"] == "avista"
        for modality in ("av", "a", "v"):
            answer = httpx.post(
                f"{server.address}/v1/transcriptions",
                files={"file": ("talk.mp4", clip.read_bytes())},
                data={"modality": modality},
                timeout=120,
            )
            assert answer.status_code == 200, answer.text
            expected = transcribe(clip, load_recognizer(folder), modality)
            assert expected.modality == modality
            assert expected.segments
            assert answer.json() == json.loads(render(expected, "json"))
        assert server.emptied()
