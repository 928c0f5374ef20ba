"""The active speaker is the face whose mouth motion matches the audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.audio import read_audio
from avhubert.data.media import MediaPart
from avhubert.data.video import read_frames, write_video
from avhubert.prepare.mouth import find_mouth


@pytest.fixture(scope="module")
def talking(tmp_path_factory) -> list[tuple[np.ndarray, np.ndarray]]:
    """Frames [T, H, W, 3] and audio of two synthetic people."""
    root = tmp_path_factory.mktemp("speakers")
    make_corpus(root, 4, speakers=2, seed=9)
    result = sorted(root.rglob("*.mp4"))[:2]
    return [(np.stack(list(read_frames(path))), read_audio(path)) for path in result]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("other", ["still", "moving"])
def test_the_speaker_is_the_face_whose_motion_matches_the_audio(
    talking: list[tuple[np.ndarray, np.ndarray]], tmp_path: Path, side: int, other: str
) -> None:
    (speaker, samples), (listener, _) = talking
    frames = min(len(speaker), len(listener))
    speaker, listener = speaker[:frames], listener[:frames]
    if other == "still":
        listener = np.repeat(listener[:1], frames, 0)
    else:  # moves the mouth while the speaker is silent
        level = np.abs(samples[: frames * 640].astype(float)).reshape(frames, -1).mean(1)
        quiet = np.convolve(level, np.ones(5) / 5, "same") < np.median(level) / 2
        listener = listener[np.where(quiet, np.arange(frames), np.argmax(~quiet))]
    faces = [speaker, listener] if side == 0 else [listener, speaker]
    write_video(tmp_path / "two.mp4", np.concatenate(faces, 2), audio=samples)
    result = find_mouth(MediaPart(tmp_path / "two.mp4"), audio=samples)
    centre = float((result.box[:, 0] + result.box[:, 2]).mean() / 2)
    assert (centre > speaker.shape[2]) == bool(side)
    assert "2 faces were seen; the active speaker is the one whose mouth motion matches the audio" in result.warnings


def test_without_audio_or_in_silence_the_largest_face_is_the_speaker(
    talking: list[tuple[np.ndarray, np.ndarray]], tmp_path: Path
) -> None:
    (first, samples), (second, _) = talking
    frames = min(len(first), len(second), 20)
    write_video(tmp_path / "two.mp4", np.concatenate([first[:frames], second[:frames]], 2))
    for silence in (None, np.zeros_like(samples), np.zeros(0, np.int16)):
        result = find_mouth(MediaPart(tmp_path / "two.mp4"), audio=silence)
        assert "2 faces were seen; the active speaker is the one that is visible longest and largest" in result.warnings
