"""Captions in the video: a font that has their characters, and warnings where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from avhubert.data.video import read_frames, write_video
from avhubert.transcription import burn_in, fonts
from avhubert.transcription.fonts import caption_font, characters_of, default_font, font_warnings, system_fonts
from avhubert.transcription.transcript import Segment, Transcript

pytestmark = pytest.mark.quick

THAI, CHINESE, HINDI, ARABIC = "สวัสดี", "你好", "नमस्ते", "مرحبا"
LATIN = "abcdefghijklmnopqrstuvwxyz"


def make_font(path: Path, characters: str) -> Path:
    """A font in which each of these characters is a filled square."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000, isTTF=True)
    pen_class = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen
    pen = pen_class(None)
    pen.moveTo((0, 0))
    for corner in ((0, 900), (900, 900), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", *(f"u{ord(character):04X}" for character in sorted(set(characters)))]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({int(name[1:], 16): name for name in names[1:]})
    builder.setupGlyf({names[0]: pen_class(None).glyph(), **dict.fromkeys(names[1:], pen.glyph())})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def use_fonts(monkeypatch: pytest.MonkeyPatch, paths: Sequence[Path]) -> None:
    monkeypatch.setattr(fonts, "system_fonts", lambda: paths)
    burn_in._caption_font.cache_clear()


def test_the_default_font_is_used_for_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "system_fonts", lambda: pytest.fail("no other font is needed"))
    for text in ("bin blue", "Здравствуйте, Ελλάδα ñ", ARABIC, "", "a b\n"):
        assert caption_font(text) == default_font()
        assert font_warnings([text]) == []


def test_a_font_of_the_system_is_used_for_other_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = make_font(tmp_path / "letters.ttf", LATIN)
    thai = make_font(tmp_path / "thai.ttf", THAI)
    both = make_font(tmp_path / "both.ttf", THAI + LATIN)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    use_fonts(monkeypatch, [tmp_path / "broken.ttf", letters, thai, both])
    assert caption_font(THAI) == thai
    assert caption_font(f"{THAI} hello") == both
    assert font_warnings([THAI, f"{THAI} hello"]) == []
    assert characters_of(tmp_path / "broken.ttf") == frozenset()


def test_characters_without_a_font_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fonts(monkeypatch, [])
    (warning,) = font_warnings(["hello", THAI])
    assert warning == (
        "no font of this computer has the characters of Thai: they are boxes in the video; install a Noto font "
        "(https://fonts.google.com/noto; Debian, Ubuntu: fonts-noto-core)"
    )
    assert "characters of symbols: they are boxes" in font_warnings(["hello 🦔"])[0]
    (warning,) = font_warnings([f"{CHINESE} {HINDI}", "안녕"])
    assert "characters of Chinese, Devanagari (Hindi) and Korean: they are boxes" in warning
    assert "Debian, Ubuntu: fonts-noto-cjk fonts-noto-core)" in warning


def test_letters_that_cannot_be_joined_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_can_shape", lambda: False)
    (warning,) = font_warnings([ARABIC])
    assert warning.startswith(
        "the letters of Arabic are drawn unconnected and in the wrong order, because Pillow finds no"
    )
    assert font_warnings(["hello"]) == []


def test_fonts_of_the_system_are_files_with_noto_sans_first() -> None:
    found = system_fonts()
    assert all(path.suffix.lower() in (".ttf", ".ttc", ".otf") for path in found)
    preferred = ["noto" in path.name.lower() for path in found]
    assert preferred == sorted(preferred, reverse=True)


def test_captions_are_drawn_in_the_font_and_missing_characters_give_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = tmp_path / "video.mp4"
    write_video(video, [np.full((120, 160, 3), 90, np.uint8)] * 5)
    transcript = Transcript(CHINESE * 20, [Segment(0.0, 0.2, CHINESE * 20, -1.0)], "a")
    use_fonts(monkeypatch, [make_font(tmp_path / "chinese.ttf", CHINESE)])
    assert burn_in.burn_in(video, transcript, [], tmp_path / "a.mp4") == []
    frame = next(read_frames(tmp_path / "a.mp4")).astype(int)
    rows = np.flatnonzero((frame.mean(2) > 200).sum(1) > 100)  # squares of the font, in several lines
    assert len(rows) > 15
    assert np.abs(frame[:, [0, -1]] - 90).max() < 30  # no line is wider than the frame
    use_fonts(monkeypatch, [])
    (warning,) = burn_in.burn_in(video, transcript, [], tmp_path / "b.mp4")
    assert warning.startswith(f"{tmp_path / 'b.mp4'}: no font of this computer has the characters of Chinese")
