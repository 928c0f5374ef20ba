"""GRID: the folders of every mirror give the same clips, words come from names and alignments, flaws are named."""

from __future__ import annotations

import logging
import tarfile
import zipfile
from pathlib import Path

import pytest

from avhubert.corpora import grid
from avhubert.corpora.alignments import read_alignment
from avhubert.corpora.sources import Listing, phones_per_frame
from avhubert.errors import DataError

pytestmark = pytest.mark.quick

WORDS = "bin blue at f two now"
ALIGNMENT = """0 23750 sil
23750 29500 bin
29500 34000 blue
34000 35500 at
35500 41000 f
41000 47250 two
47250 53000 now
53000 74500 sil
"""
MIRRORS = {  # video, alignment and audio of bbaf2n by s1
    "Zenodo": ("s1/bbaf2n.mpg", "alignments/s1/bbaf2n.align", "audio_25k/s1/bbaf2n.wav"),
    "Sheffield": ("s1/video/mpg_6000/bbaf2n.mpg", "s1/align/bbaf2n.align", "s1_50kHz/bbaf2n.wav"),
    "one folder of alignments": ("video/s1/bbaf2n.mpg", "align/s1/bbaf2n.align", "audio/s1/bbaf2n.wav"),
    "flat": ("s1/bbaf2n.mp4", "s1/bbaf2n.align", "s1/bbaf2n.wav"),
    "Windows": ("S1/BBAF2N.MPG", "S1/align/BBAF2N.ALIGN", "S1/BBAF2N.WAV"),
    "long names": ("speaker_01/bbaf2n.avi", "speaker_01/bbaf2n.align", "speaker_01/bbaf2n.wav"),
    "alignments of one speaker": ("s1/bbaf2n.mpg", "align/bbaf2n.align", "audio/s1/bbaf2n.wav"),
}


def put(folder: Path, name: str, content: str | bytes = b"media") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def reasons(listing: Listing) -> dict[str, str]:
    return {rejection.id: rejection.reason for rejection in listing.rejections}


@pytest.mark.parametrize("mirror", MIRRORS)
def test_every_mirror_gives_the_same_clip(mirror: str, tmp_path: Path) -> None:
    video, alignment, audio = MIRRORS[mirror]
    put(tmp_path, video)
    put(tmp_path, alignment, ALIGNMENT)
    put(tmp_path, audio)
    listing = grid.find(tmp_path)
    (clip,) = listing.clips
    assert (clip.id, clip.speaker, clip.text) == ("s1/bbaf2n", "s1", WORDS)
    assert (clip.path, clip.phones, clip.audio) == (tmp_path / video, tmp_path / alignment, tmp_path / audio)
    assert listing.rejections == []
    (clip,) = grid.find(tmp_path, "a").clips
    assert clip.path == tmp_path / audio


def test_the_folder_of_one_speaker_can_be_given(tmp_path: Path) -> None:
    put(tmp_path, "s31/bbaf2n.mpg")
    assert [clip.id for clip in grid.find(tmp_path / "s31").clips] == ["s31/bbaf2n"]


def test_names_spell_sentences() -> None:
    assert grid.sentence("bbaf2n") == WORDS
    assert grid.sentence("lgwxzs") == "lay green with x zero soon"
    for other in ("bbaw2n", "bbaf2", "bbaf2nn", "xbaf2n", "bbaf0n"):
        assert grid.sentence(other) is None


def test_a_missing_alignment_is_no_error_but_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "s1/bbaf2n.mpg")
    put(tmp_path, "s2/lgwxzs.mpg")
    with caplog.at_level(logging.WARNING):
        listing = grid.find(tmp_path)
    assert [(clip.text, clip.phones) for clip in listing.clips] == [(WORDS, None), ("lay green with x zero soon", None)]
    assert listing.rejections == []
    assert "2 sentences have no .align (s1/bbaf2n, s2/lgwxzs)" in caplog.text


def test_an_alignment_gives_the_words_of_another_name(tmp_path: Path) -> None:
    put(tmp_path, "s1/take one.mp4")
    put(tmp_path, "s1/take one.align", ALIGNMENT)
    (clip,) = grid.find(tmp_path).clips
    assert (clip.id, clip.text) == ("s1/take one", WORDS)


def test_inputs_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    put(tmp_path, "s1/bbaf2n.mpg")
    put(tmp_path, "s1/bbaf3s.mpg")
    put(tmp_path, "s1/bbaf3s.align", ALIGNMENT)
    put(tmp_path, "s1/unknown.mpg")
    put(tmp_path, "s1/bbal6n.mpg")
    put(tmp_path, "s1/bbal6n.align", "0 10 bin\n5 20 blue\n")
    put(tmp_path, "s1/bbal7s.mpg")
    put(tmp_path, "s1/bbal7s.align", "0 ten bin\n")
    put(tmp_path, "s1/bbal8p.mpg")
    put(tmp_path, "s1/bbal8p.align", "0 75000 sil\n")
    put(tmp_path, "elsewhere/bbaf2n.mpg")
    listing = grid.find(tmp_path)
    assert [clip.id for clip in listing.clips] == ["s1/bbaf2n"]
    assert reasons(listing) == {
        "s1/bbaf3s": "its name spells 'bin blue at f three soon', but bbaf3s.align says 'bin blue at f two now'; "
        "remove the wrong one",
        "s1/unknown": "its name 'unknown' spells no sentence (such as bbaf2n), and there is no unknown.align",
        "s1/bbal6n": "bbal6n.align, line 2: '5 20 blue' ends before it starts, or starts before the line above it ends",
        "s1/bbal7s": "bbal7s.align, line 1: '0 ten bin' is not START END WORD",
        "s1/bbal8p": "bbal8p.align has no words",
        "elsewhere/bbaf2n.mpg": "no folder on its path is named after a speaker (s1, s2, …)",
    }


def test_a_speaker_without_videos_has_clips_of_audio_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "s1/bbaf2n.mpg")
    audio = put(tmp_path, "audio_25k/s21/bbaf3s.wav")
    with caplog.at_level(logging.WARNING):
        listing = grid.find(tmp_path)
    assert [clip.id for clip in listing.clips] == ["s1/bbaf2n"]
    (rejection,) = listing.rejections
    assert (rejection.id, rejection.is_input) == ("s21/bbaf3s", False)
    assert "1 sentences have audio but no video (s21/bbaf3s); --streams any takes them too" in caplog.text
    for modality in ("a", "any"):
        clip = grid.find(tmp_path, modality).clips[1]
        assert (clip.id, clip.path, clip.text) == ("s21/bbaf3s", audio, "bin blue at f three soon")


def test_of_two_videos_of_a_sentence_the_largest_is_used(tmp_path: Path) -> None:
    small = put(tmp_path, "s1/video/vcd/bbaf2n.mpg", b"small")
    large = put(tmp_path, "s1/video/mpg_6000/bbaf2n.mpg", b"much larger")
    listing = grid.find(tmp_path)
    assert [clip.path for clip in listing.clips] == [large]
    assert list(reasons(listing)) == [small.relative_to(tmp_path).as_posix()]


def test_archives_are_named_with_the_way_to_unpack_them(tmp_path: Path) -> None:
    put(tmp_path, "s1/bbaf2n.mpg")
    for archive, member in (("s1.zip", "s1/bbaf2n.mpg"), ("s2.zip", "s2/bbaf2n.mpg")):
        with zipfile.ZipFile(tmp_path / archive, "w") as file:
            file.writestr(member, "media")
    with tarfile.open(tmp_path / "s3.tar", "w") as tar:
        tar.add(tmp_path / "s1" / "bbaf2n.mpg", "align/bbaf2n.align")
    put(tmp_path, "s4.zip", (tmp_path / "s2.zip").read_bytes()[:30])
    named = reasons(grid.find(tmp_path))
    assert named.pop("s4.zip").startswith("a damaged or incomplete archive (")
    assert named == {
        "s2.zip": "an archive that is not unpacked; unpack it in its folder: unzip s2.zip",
        "s3.tar": "an archive that is not unpacked; unpack it in its folder: tar -xf s3.tar",
    }


def test_a_folder_of_archives_alone_is_an_error_that_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "s2.zip", "w") as file:
        file.writestr("s2/bbaf2n.mpg", "media")
    with pytest.raises(DataError, match=r"contains no GRID sentences.*unzip s2\.zip"):
        grid.find(tmp_path)


def test_alignments_are_true_labels_of_frames(tmp_path: Path) -> None:
    path = put(tmp_path, "bbaf2n.align", ALIGNMENT.replace("53000 74500 sil", "53000 74500 sp"))
    assert " ".join(word.text for word in read_alignment(path)[1:-1]) == WORDS
    row = phones_per_frame(path, 75)
    assert len(row) == 75
    assert row.count("blue") == 5  # 29.5 to 34 frames: the middles of frames 29 to 33
    assert row[23:35] == ["sil", *["bin"] * 5, *["blue"] * 5, "at"]
    assert set(row) == {"sil", *WORDS.split()}
