"""The speakers of a folder: a table, names of folders; LRS3 and VoxCeleb2 name them in their folders."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from avhubert.corpora import lrs3, voxceleb2
from avhubert.corpora.registry import check_corpus
from avhubert.corpora.sources import Listing, SourceClip
from avhubert.corpora.speakers import BY_FOLDER, with_speakers
from avhubert.errors import ConfigError, DataError

pytestmark = pytest.mark.quick

NAMES = ("anna/day 1/a.mp4", "anna/guest.mp4", "ben/a.mp4", "test/carla/a.mp4", "loose.mp4")


def listing(src: Path) -> Listing:
    return Listing([SourceClip(name.removesuffix(".mp4"), src / name, "") for name in NAMES], [])


def speakers(src: Path, how: str | Path | None) -> dict[str, str]:
    return {clip.id: clip.speaker for clip in with_speakers(listing(src), src, how).clips}


def test_folders_name_speakers(tmp_path: Path) -> None:
    assert speakers(tmp_path, BY_FOLDER) == {
        "anna/day 1/a": "anna",
        "anna/guest": "anna",
        "ben/a": "ben",
        "test/carla/a": "carla",
        "loose": "",
    }


def test_a_table_names_recordings_and_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert set(speakers(tmp_path, None).values()) == {""}  # no table
    table = f"file\tspeaker\nAnna\tAnna Bell\nanna\\guest\tBen\n\n{tmp_path}/ben/a.mp4\tBen\ngone.mp4\tDora\n"
    (tmp_path / "speakers.tsv").write_text(table, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        result = with_speakers(listing(tmp_path), tmp_path, None)
    assert [clip.speaker for clip in result.clips] == ["Anna Bell", "Ben", "Ben", "", ""]
    assert [(item.id, item.is_input) for item in result.rejections] == [("gone.mp4", False)]
    assert "speakers.tsv names no speaker of 2 of 5 clips" in caplog.text
    other = tmp_path / "other.tsv"
    other.write_text(".\tEve\n", encoding="utf-8")
    assert set(speakers(tmp_path, other).values()) == {"Eve"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("anna\n", "line 1: 'anna' is not a recording or folder, a tab, and its speaker"),
        ("anna\tA\nanna\tB\n", "line 2: 'anna' has two speakers"),
        ("anna\tA\tB\n", "line 1: .* is not a recording or folder, a tab, and its speaker"),
    ],
)
def test_a_wrong_table_is_an_error(table: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "speakers.tsv").write_text(table, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        with_speakers(listing(tmp_path), tmp_path, None)


def test_speakers_are_for_folders() -> None:
    with pytest.raises(ConfigError, match="--speakers is for the corpus folder, not for lrs3"):
        check_corpus("lrs3", None, None, BY_FOLDER)


def test_corpora_name_speakers_in_their_folders(tmp_path: Path) -> None:
    for name in ("pretrain/0af00/00001", "trainval/x", "dev/mp4/id00012/abc/00001"):
        path = tmp_path / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"media")
        path.with_suffix(".txt").write_text("Text:  HELLO\n", encoding="utf-8")
    assert [clip.speaker for clip in lrs3.find(tmp_path).clips] == ["0af00", ""]
    assert [clip.speaker for clip in voxceleb2.find(tmp_path / "dev").clips] == ["id00012"]
