"""Damaged recordings are transcribed to their end, with warnings; the streams are chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avhubert.data.audio import read_audio, write_wav
from avhubert.data.media import StreamChoice
from avhubert.data.video import write_video
from avhubert.model.recognizer import Recognizer
from avhubert.transcription import reader
from avhubert.transcription.pipeline import transcribe
from tests.data.recordings import Recording, audio_file, break_packets

Talk = tuple[np.ndarray, np.ndarray]

pytestmark = pytest.mark.quick


def test_a_damaged_recording_is_transcribed_to_its_end_with_a_warning(
    talk: Talk, recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "CHUNK_SECONDS", 5)
    samples = np.tile(talk[1], 8)
    path = audio_file(tmp_path / "podcast.m4a", samples, "aac")
    break_packets(path, range(120, 123))
    seconds = len(read_audio(path)) / 16_000
    transcript = transcribe(path, recognizer, "a")
    assert transcript.segments[-1].end > seconds - 3
    assert any(
        warning.startswith("3 damaged packets of the audio were skipped at 7.") for warning in transcript.warnings
    )


def test_audio_that_cannot_be_read_does_not_reject_the_video(
    talk: Talk, recognizer: Recognizer, tmp_path: Path
) -> None:
    path = tmp_path / "talk.mp4"
    write_video(path, talk[0], audio=talk[1])
    break_packets(path)
    transcript = transcribe(path, recognizer)
    assert transcript.modality == "v"
    assert any("only the video is read" in warning for warning in transcript.warnings)


def test_the_requested_stream_is_transcribed(talk: Talk, recognizer: Recognizer, tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with Recording(path) as recording:
        streams = [recording.audio_stream("flac") for _ in range(2)]
        recording.write_audio(streams[0], np.zeros_like(talk[1]))
        recording.write_audio(streams[1], talk[1])
    write_wav(tmp_path / "alone.wav", talk[1])
    alone = transcribe(tmp_path / "alone.wav", recognizer, "a")
    chosen = transcribe(path, recognizer, "a")
    assert chosen.text == alone.text
    assert any("stream 1 is read (stream 0 is silent)" in warning for warning in chosen.warnings)
    assert not any(
        "stream" in warning for warning in transcribe(path, recognizer, "a", streams=StreamChoice(audio=1)).warnings
    )
    assert transcribe(path, recognizer, "a", streams=StreamChoice(audio=0)).text == ""
