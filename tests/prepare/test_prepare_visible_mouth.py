"""Crops without a mouth are refused: hands, microphones and masks before it, walls, foreheads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data

from avhubert.corpora.sources import SourceClip
from avhubert.data.video import write_video
from avhubert.errors import MediaError
from avhubert.prepare import visible_mouth
from avhubert.prepare.clip import prepare_clip
from avhubert.prepare.mouth import mouth_clip
from avhubert.prepare.visible_mouth import LEAST_SCORE, check_mouth, gradient_histogram, mouth_score

pytestmark = pytest.mark.quick
REASON = "the crop shows no mouth (a hand, a microphone, a mask, or no face)"


def talk(covered: bool) -> list[np.ndarray]:
    """A photographed face that moves; its mouth can be covered by fingers that move along."""
    face = skimage.data.astronaut()[:300, 80:380].copy()
    if covered:
        rows, columns = np.mgrid[:300, :300]
        fingers = (np.abs(columns - 144) < 42) & (np.abs(rows - 148) < 26)
        shade = 1 - 0.3 * np.abs((rows - 122) % 13 - 6) / 6
        face[fingers] = (np.array([205.0, 160, 140]) * shade[..., None])[fingers].astype(np.uint8)
    return [np.roll(face, round(4 * np.sin(index / 4)), 1) for index in range(12)]


def prepared(folder: Path, frames: list[np.ndarray], audio: np.ndarray | None, modality: str) -> str:
    """The reason for the rejection, or the warnings."""
    folder.mkdir()
    write_video(folder / "talk.mp4", frames, audio=audio)
    result = prepare_clip(SourceClip("talk", folder / "talk.mp4", ""), folder / "out", modality=modality)
    return result.rejection.reason if result.rejection else "; ".join(result.warnings)


def test_a_covered_mouth_is_refused_and_an_uncovered_one_is_not(tmp_path: Path) -> None:
    audio = np.random.default_rng(0).integers(-3000, 3000, 12 * 640, np.int16)
    assert prepared(tmp_path / "covered", talk(True), audio, "av") == REASON
    assert not (tmp_path / "covered/out/video/talk.mp4").exists()
    assert "no mouth" not in prepared(tmp_path / "uncovered", talk(False), audio, "av")
    assert (tmp_path / "uncovered/out/video/talk.mp4").exists()
    assert f"without video: {REASON}" in prepared(tmp_path / "any", talk(True), audio, "any")
    assert (tmp_path / "any/out/audio/talk.wav").exists()
    assert prepared(tmp_path / "silent", talk(True), None, "any") == REASON


def test_crops_beside_the_mouth_have_low_scores(tmp_path: Path) -> None:
    write_video(tmp_path / "talk.mp4", talk(False))
    crop = mouth_clip(tmp_path / "talk.mp4").frames[0]
    assert mouth_score(crop) > 1
    assert mouth_score(crop[::-1]) < LEAST_SCORE
    assert mouth_score(np.random.default_rng(0).normal(90, 6, (96, 96)).astype(np.uint8)) < LEAST_SCORE


def test_contrast_does_not_change_the_features() -> None:
    crop = skimage.data.camera()[100:196, 200:296]
    darker = crop / 2 + 30
    assert gradient_histogram(darker) == pytest.approx(gradient_histogram(crop), abs=0.01)


def test_most_crops_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visible_mouth, "mouth_score", lambda frame: -9.0 if frame.min() else 5.0)
    good, bad = np.zeros((96, 96), np.uint8), np.ones((96, 96), np.uint8)
    assert len(list(check_mouth([good] * 20 + [bad] * 10))) == 30
    with pytest.raises(MediaError, match="the crop shows no mouth"):
        list(check_mouth([good] * 10 + [bad] * 20))
