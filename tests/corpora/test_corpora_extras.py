"""Glasses, beards, moving light, hands and listeners change only their own part of the frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avhubert.cli.app import main
from avhubert.corpora.synthetic import extras
from avhubert.corpora.synthetic.look import EYE_Y, speaker_look
from avhubert.corpora.synthetic.painting import SIZE
from avhubert.corpora.synthetic.performance import CorpusSettings, perform
from avhubert.corpora.synthetic.schedule import clip_spec
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.audio import read_audio
from avhubert.data.media import MediaPart
from avhubert.data.video import probe
from avhubert.errors import ConfigError
from avhubert.files import sha256
from avhubert.prepare.mouth import find_mouth

SEED = 7


def frames(index: int, *kinds: str) -> np.ndarray:
    settings = CorpusSettings(SEED, extras=kinds, speakers=4)
    return np.stack(list(perform(clip_spec(index, 4), settings).frames())).astype(int)


def change(index: int, *kinds: str) -> np.ndarray:
    """Change of every pixel by the extras, [T, H, W]."""
    return np.abs(frames(index, *kinds) - frames(index)).mean(-1)


def clip_with(kind: str) -> int:
    """A clip whose speaker has the extra."""
    for index in range(9):
        clip_extras = extras.draw_extras(
            (kind,), SEED, clip_spec(index, 4).speaker, index, 50, speaker_look(SEED, index)
        )
        if (clip_extras.rim if kind == "glasses" else clip_extras.beard) is not None:
            return index
    raise AssertionError(kind)


def test_glasses_change_the_eyes_and_a_beard_the_mouth() -> None:
    glasses = change(clip_with("glasses"), "glasses").mean((0, 2))
    assert EYE_Y - 25 < glasses.argmax() < EYE_Y + 30
    assert glasses[150:].max() < 0.05
    beard = change(clip_with("beard"), "beard").mean((0, 2))
    assert 130 < beard.argmax() < 205
    assert beard[:110].max() < 0.05


def test_a_hand_is_visible_for_a_while_and_light_moves() -> None:
    hand = change(0, "hands").mean((1, 2))
    assert hand.max() > 1
    assert 0.02 < (hand > 0.5).mean() < 0.7
    lit = frames(0, "light").mean(-1)
    plain = frames(0).mean(-1)
    ratio = lit[:, ::40, ::40] / plain[:, ::40, ::40]
    assert np.ptp(ratio, axis=0).max() > 0.1


def test_skin_has_texture_and_a_lens_blurs_and_lifts_black() -> None:
    plain, skin, lens = (frames(0, *kinds)[:3].mean(-1) for kinds in ((), ("skin",), ("lens",)))
    cheek, mouth = (slice(None), slice(120, 136), slice(70, 92)), (slice(None), slice(140, 185), slice(85, 140))

    def roughness(image: np.ndarray) -> float:
        return float(np.abs(np.diff(image[cheek], 2, axis=1)).mean())

    def edges(image: np.ndarray) -> float:
        return float(np.abs(np.diff(image[mouth], axis=1)).max())

    assert roughness(skin) > 1.1 * roughness(plain)
    assert edges(lens) < 0.9 * edges(plain)
    assert lens.min() > plain.min() + 3


def test_a_silent_listener_is_beside_the_speaker(tmp_path: Path) -> None:
    assert main(["synth", str(tmp_path / "c"), "--clips", "4", "--seed", "7", "--extra", "faces", "glasses"]) == 0
    videos = sorted((tmp_path / "c").rglob("*.mp4"))
    assert {probe(video).width for video in videos} == {2 * SIZE}
    by_audio = 0
    for video in videos:
        track = find_mouth(MediaPart(video), audio=read_audio(video))
        assert any("2 faces" in warning for warning in track.warnings)
        by_audio += any("matches the audio" in warning for warning in track.warnings)
    assert by_audio >= 3
    with pytest.raises(ConfigError, match=r"holds a corpus made with extra \['faces', 'glasses'\], not \[\]"):
        make_corpus(tmp_path / "c", 4, seed=7)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    kinds = ("hands", "light", "beard")
    for name, workers in (("one", 1), ("two", 2)):
        make_corpus(tmp_path / name, 4, seed=7, extra=kinds if workers == 1 else kinds[::-1], workers=workers)
    one, two = (
        {path.relative_to(tmp_path / name): sha256(path) for path in sorted((tmp_path / name).rglob("*.mp4"))}
        for name in ("one", "two")
    )
    assert one == two


def test_an_unknown_extra_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synth", str(tmp_path / "c"), "--clips", "4", "--extra", "hat"]) == 2
    assert "unknown extra 'hat'; known: beard, faces, glasses, hands, lens, light, skin" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
