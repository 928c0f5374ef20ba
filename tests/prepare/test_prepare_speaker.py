"""Of several faces the one whose mouth moves with the sound is the speaker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.audio import read_audio
from avhubert.data.video import read_frames, write_video
from avhubert.prepare.mouth import find_mouth


@pytest.fixture(scope="module")
def talking(tmp_path_factory) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures [T, H, W, 3] and sound of two drawn people."""
    root = tmp_path_factory.mktemp("speakers")
    make_corpus(root, 4, speakers=2, seed=9)
    found = sorted(root.rglob("*.mp4"))[:2]
    return [(np.stack(list(read_frames(path))), read_audio(path)) for path in found]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("other", ["still", "moving"])
def test_the_speaker_is_who_moves_with_the_sound(
    talking: list[tuple[np.ndarray, np.ndarray]], tmp_path: Path, side: int, other: str
) -> None:
    (speaker, sound), (listener, _) = talking
    frames = min(len(speaker), len(listener))
    speaker, listener = speaker[:frames], listener[:frames]
    if other == "still":
        listener = np.repeat(listener[:1], frames, 0)
    else:  # moves the mouth when the speaker is silent
        level = np.abs(sound[: frames * 640].astype(float)).reshape(frames, -1).mean(1)
        quiet = np.convolve(level, np.ones(5) / 5, "same") < np.median(level) / 2
        listener = listener[np.where(quiet, np.arange(frames), np.argmax(~quiet))]
    both = [speaker, listener] if side == 0 else [listener, speaker]
    write_video(tmp_path / "two.mp4", np.concatenate(both, 2), audio=sound)
    found = find_mouth(tmp_path / "two.mp4", audio=sound)
    middle = float((found.box[:, 0] + found.box[:, 2]).mean() / 2)
    assert (middle > speaker.shape[2]) == bool(side)
    assert "2 faces were seen; the active speaker is the one whose mouth motion matches the audio" in found.warnings


def test_without_sound_or_in_silence_the_first_is_taken(
    talking: list[tuple[np.ndarray, np.ndarray]], tmp_path: Path
) -> None:
    (one, sound), (two, _) = talking
    frames = min(len(one), len(two), 20)
    write_video(tmp_path / "two.mp4", np.concatenate([one[:frames], two[:frames]], 2))
    for silence in (None, np.zeros_like(sound), np.zeros(0, np.int16)):
        found = find_mouth(tmp_path / "two.mp4", audio=silence)
        assert "2 faces were seen; the active speaker is the one that is visible longest and largest" in found.warnings
