"""Any tree of videos: every kind of transcript, long videos, unusual names, and errors."""

from __future__ import annotations

import itertools
import os
import struct
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from avhubert.corpora import cuts, folder
from avhubert.corpora.sources import SourceClip
from avhubert.corpora.transcripts import Piece, Transcript, TranscriptReader
from avhubert.data.media import StreamChoice
from avhubert.data.video import probe, write_video
from avhubert.errors import DataError
from avhubert.files import atomic_path
from tests.data.recordings import Recording

pytestmark = pytest.mark.quick

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Hello</i> there,

2
00:00:02,700 --> 00:00:04,000
{\\an8}my
friend

3
00:01:05,000 --> 00:01:06,000
Bye
"""
VTT = """WEBVTT

NOTE made by hand

intro
00:01.000 --> 00:02.500 align:start
Hello THERE
"""


def create_files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_subtitles_become_pieces(tmp_path: Path) -> None:
    create_files(tmp_path, "a.mp4", "b c/ünï.mkv")
    (tmp_path / "a.srt").write_text(SRT.replace("\n", "\r\n"), encoding="utf-8-sig", newline="")
    (tmp_path / "b c" / "ünï.vtt").write_text(VTT, encoding="utf-8")
    clips, rejections = folder.find(tmp_path)
    assert not rejections
    assert [(clip.id, clip.start, clip.end, clip.text) for clip in clips] == [
        ("a_000", 1.0, 4.0, "hello there, my friend"),
        ("a_001", 65.0, 66.0, "bye"),
        ("b c/ünï", 1.0, 2.5, "hello there"),
    ]


def test_subtitles_are_joined_up_to_15_seconds_only(tmp_path: Path) -> None:
    cues = [f"00:{i // 60:02d}:{i % 60:02d}.000 --> 00:{i // 60:02d}:{i % 60:02d}.900\nw{i}\n" for i in range(40)]
    (tmp_path / "a.vtt").write_text("WEBVTT\n\n" + "\n".join(cues), encoding="utf-8")
    with TranscriptReader() as reader:
        transcript = reader.read(tmp_path / "a.mp4")
    assert transcript is not None
    pieces = transcript.pieces
    assert [(piece.start, piece.end) for piece in pieces] == [(0, 14.9), (15, 29.9), (30, 39.9)]
    assert " ".join(piece.text or "" for piece in pieces) == " ".join(f"w{i}" for i in range(40))


def test_a_table_gives_files_and_pieces(tmp_path: Path) -> None:
    create_files(tmp_path, "train/a b.mp4", "c.mp4", "d.mp4")
    (tmp_path / "transcripts.csv").write_text(
        'file,text,start,end\ntrain/a b.mp4,"One, two",0,1.5\ntrain/a b.mp4,Three,2,\nc.mp4,Four,,\ngone.mp4,Five,,\n',
        encoding="utf-8",
    )
    clips, rejections = folder.find(tmp_path)
    assert [(clip.id, clip.split, clip.start, clip.end, clip.text) for clip in clips] == [
        ("c", "", 0, None, "four"),
        ("d", "", 0, None, None),
        ("train/a b_000", "train", 0, 1.5, "one, two"),
        ("train/a b_001", "train", 2, None, "three"),
    ]
    assert [(rejection.id, rejection.reason) for rejection in rejections] == [
        ("gone.mp4", "transcripts.csv names it, but there is no such video")
    ]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"file;text\r\nb/a.mp4;One, two\r\nc.mp4;Three\r\n;;\r\n", id="semicolons, empty row"),
        pytest.param(b"sep=;\r\nFile ;Text;start\r\nb/a.mp4;One, two;0,0\r\nc.mp4;Three;\r\n", id="sep="),
        pytest.param(b'file,text\nb\\a.mp4,"One,\r\ntwo"\n./c.mp4,Three\n', id="quoted line break, backslash"),
        pytest.param(b'file,text\nb/a.mp4,"One,\\ntwo"\nC.MP4,Three\n', id="escaped line break, case"),
        pytest.param("file\ttext\nb/a.mp4\tOne, two\nc.mp4\tThree\n".encode("utf-16"), id="Excel's Unicode text"),
        pytest.param(b'\xef\xbb\xbf"file","text"\r"b/a","One, two"\r"c","Three"\r', id="BOM, no extensions, old Mac"),
        pytest.param(b'file,text,end\nb/a.mp4,"One, two",0:00:09\nc.mp4,Three,\n', id="clock times"),
    ],
)
def test_tables_as_tools_write_them(tmp_path: Path, content: bytes) -> None:
    create_files(tmp_path, "b/a.mp4", "c.mp4")
    (tmp_path / "Transcripts.CSV").write_bytes(content)
    clips, rejections = folder.find(tmp_path)
    assert [(clip.id, clip.text) for clip in clips] == [("b/a", "one, two"), ("c", "three")]
    assert not rejections


def test_quotes_in_a_table(tmp_path: Path) -> None:
    create_files(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "transcripts.csv").write_text(
        'file,text\na.mp4,"say ""hi"", twice"\nb.mp4,"say \\"hi\\", twice"\n', encoding="utf-8"
    )
    clips, _ = folder.find(tmp_path)
    assert [clip.text for clip in clips] == 2 * ['say "hi", twice']


def test_names_with_decomposed_accents_and_other_letter_case(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Zoë")
    create_files(tmp_path, f"{decomposed}.mp4", "Zoë 2.mp4", "talk.mp4", "b.MOV")
    (tmp_path / "transcripts.csv").write_text(f"file,text\nZoë.mp4,one\n{decomposed} 2.mp4,two\n", encoding="utf-8")
    (tmp_path / "talk.TXT").write_text("three", encoding="utf-8")
    (tmp_path / "b.MOV.srt").write_text(SRT, encoding="utf-8")
    clips, rejections = folder.find(tmp_path)
    assert not rejections
    texts = {clip.id: clip.text for clip in clips}
    assert texts == {
        decomposed: "one",
        "Zoë 2": "two",
        "talk": "three",
        "b_000": "hello there, my friend",
        "b_001": "bye",
    }


def test_bad_cues_are_named_and_guessed_encodings_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_video(tmp_path / "a.mp4", [np.zeros((16, 16), np.uint8)] * 50)
    (tmp_path / "a.srt").write_bytes(
        "1\n00:00:00,000 --> 00:00:01,000\ncafé\n2\n00:00:0x,000 --> 00:00:04,000\nno\n"
        "3\n00:00:03,000 --> 00:00:04,000\nlate\n".encode("latin-1")
    )
    clips, rejections = folder.find(tmp_path)
    assert [(clip.id, clip.end, clip.text) for clip in clips] == [("a", 1.0, "café")]
    assert [(rejection.id, rejection.kind) for rejection in rejections] == [
        ("a, line 5", "malformed subtitle"),
        ("a, 3 to 4 s", "subtitle beyond the end of the video"),
    ]
    assert "1 transcripts are not UTF-8 and were read as cp1252 (a.srt)" in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name,text\na,b\n", "must begin with a line that names its columns"),
        ("", "must begin with a line that names its columns"),
        ("file,text,start,end\na.mp4,b,x,2\n", "line 2: start and end must be numbers"),
        ("file,text,start,end\na.mp4,b,3,2\n", "line 2: needs a file, a text, and an end after its start"),
        ("file,text,start\na.mp4,b,-1\n", "line 2: start and end must be numbers"),
        ("file,text\na.mp4,\n", "line 2: needs a file, a text"),
        ("file,text\na.mp4," + 140_000 * "x", "line 2: field larger than field limit"),
    ],
)
def test_a_malformed_table_is_an_error(tmp_path: Path, content: str, words: str) -> None:
    create_files(tmp_path, "a.mp4")
    (tmp_path / "transcripts.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        folder.find(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.srt", b"1\n00:00:01,000 --> soon\nHello\n", "'00:00:01,000 --> soon' is not START --> END"),
        ("a.srt", b"1\n00:00:02,000 --> 00:00:01,000\nHello\n", "does not end after its start"),
        ("a.vtt", b"WEBVTT\n", "the subtitles a.vtt hold no text"),
        ("a.txt", b"{\\rtf1\\ansi hello}", "a.txt is RTF, not plain text; save it as plain text"),
        ("a.txt", b"<!DOCTYPE html><p>hello", "a.txt is HTML, not plain text"),
        ("a.srt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a.srt is a Git LFS pointer"),
        ("a.txt", b"\xff\xfe\x00", "a.txt is not text in a known encoding; convert it"),
    ],
)
def test_a_malformed_transcript_rejects_its_video(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    create_files(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / name).write_bytes(content)
    clips, rejections = folder.find(tmp_path)
    assert [clip.id for clip in clips] == ["b"]
    assert words in rejections[0].reason
    (tmp_path / "b.mp4").unlink()
    with pytest.raises(DataError, match=r"none of the 1 videos of .* can be used; the first: "):
        folder.find(tmp_path)


def test_ids_are_unique_and_names_of_any_kind_are_used(tmp_path: Path) -> None:
    names = ("a.mp4", "a.mov", "日本 語.mp4", "12:30.mp4", "-rf.mp4", "emoji 😀.mp4", " spaces .mp4")
    create_files(tmp_path, *names)
    clips, rejections = folder.find(tmp_path)
    assert not rejections
    assert {clip.path.name: clip.id for clip in clips} == {
        "a.mov": "a", "a.mp4": "a_", "日本 語.mp4": "日本 語", "12:30.mp4": "12:30", "-rf.mp4": "-rf",
        "emoji 😀.mp4": "emoji 😀", " spaces .mp4": " spaces ",
    }  # fmt: skip


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
def test_names_that_are_no_text_are_escaped_in_ids(tmp_path: Path) -> None:
    for name in (b"caf\xe9.mp4", b"tab\tname.mp4", b"new\nline.mp4", "sep\u2028.mp4".encode(), b"caf\xe9.xyz"):
        (tmp_path / os.fsdecode(name)).touch()
    clips, rejections = folder.find(tmp_path)
    assert sorted(clip.id for clip in clips) == ["caf%E9", "new%0Aline", "sep%E2%80%A8", "tab%09name"]
    assert [rejection.id for rejection in rejections] == ["caf%E9.xyz"]


@pytest.mark.skipif(sys.platform == "win32", reason="paths are shorter there")
def test_long_names_leave_room_for_endings(tmp_path: Path) -> None:
    create_files(tmp_path, "x" * 251 + ".mp4", "é" * 125 + ".mp4", "x" * 250 + "y.mp4")
    ids = [clip.id for clip in folder.find(tmp_path)[0]]
    assert len(set(ids)) == 3
    assert all(len(identifier.encode()) <= 230 for identifier in ids)
    with atomic_path(tmp_path / f"{ids[0]}_face2.mp4") as temporary:
        temporary.touch()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("AVHUBERT_CACHE", str(folder))
    return folder


def test_long_videos_are_cut_between_scenes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    backgrounds = [np.kron(rng.integers(0, 255, (8, 8)), np.ones((12, 12))).astype(np.uint8) for _ in range(3)]
    lengths = (150, 225, 90)  # frames: 6, 9 and 3.6 s
    scenes = [
        np.roll(background, round(3 * np.sin(i / 8)), 1)
        for background, n in zip(backgrounds, lengths, strict=True)
        for i in range(n)
    ]
    write_video(tmp_path / "film.mp4", scenes, audio=np.zeros(16_000 * 19, np.int16))
    clips, _ = folder.find(tmp_path)
    assert [(clip.start, clip.end) for clip in clips] == [(0.0, 6.0), (6.0, 15.0), (15.0, None)]
    # slowly increasing light is no new scene
    fading = [np.full((96, 96), i // 2, np.uint8) for i in range(450)]
    write_video(tmp_path / "film.mp4", fading)
    assert (folder.find(tmp_path)[0][0].start, folder.find(tmp_path)[0][0].end) == (0.0, 13.0)


def test_a_long_video_is_cut_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", [np.zeros((16, 16), np.uint8)] * 400, audio=np.zeros(16 * 16_000, np.int16))
    first = folder.find(tmp_path)
    assert len(list((cache / "cuts").iterdir())) == 1
    monkeypatch.setattr(cuts, "cut", None)  # would be called otherwise
    assert folder.find(tmp_path) == first


def test_without_a_cache_long_videos_are_cut_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_video(tmp_path / "a.mp4", [np.zeros((16, 16), np.uint8)] * 400, audio=np.zeros(16 * 16_000, np.int16))
    expected = folder.find(tmp_path)
    (tmp_path / "file.txt").touch()
    monkeypatch.setenv("AVHUBERT_CACHE", str(tmp_path / "file.txt"))
    assert folder.find(tmp_path) == expected
    assert "file.txt/cuts: Not a directory; set AVHUBERT_CACHE to a folder that you can write to" in caplog.text


def test_a_damaged_cache_is_made_again(tmp_path: Path, cache: Path) -> None:
    write_video(tmp_path / "a.mp4", [np.zeros((16, 16), np.uint8)] * 400, audio=np.zeros(16 * 16_000, np.int16))
    expected = folder.find(tmp_path)
    [file] = (cache / "cuts").iterdir()
    content = file.read_bytes()
    file.write_text("[[0", encoding="utf-8")
    assert folder.find(tmp_path) == expected
    assert file.read_bytes() == content


def test_long_videos_are_cut_where_the_audio_is_quiet(tmp_path: Path) -> None:
    seconds, pauses = 50, (7.0, 13.0, 22.5, 31.0, 44.0)
    audio = np.random.default_rng(0).integers(-8000, 8000, 16_000 * seconds).astype(np.int16)
    for pause in pauses:
        audio[round(16_000 * (pause - 0.2)) : round(16_000 * (pause + 0.2))] = 0
    write_video(tmp_path / "long.mp4", [np.zeros((16, 16), np.uint8)] * (25 * seconds), audio=audio)
    write_video(tmp_path / "short.mp4", [np.zeros((16, 16), np.uint8)] * 25, audio=audio[:16_000])
    clips, _ = folder.find(tmp_path)
    long = [clip for clip in clips if clip.path.name == "long.mp4"]
    assert clips[-1] == SourceClip("short", tmp_path / "short.mp4", "", every_face=True)
    assert long[0].start == 0
    assert long[-1].end is None
    for before, after in itertools.pairwise(long):
        assert before.end == after.start
        assert min(abs(after.start - pause) for pause in pauses) < 0.2
        assert 5 <= after.start - before.start <= 15
    assert 5 <= seconds - long[-1].start <= 15
    (tmp_path / "long.txt").write_text("all that is said", encoding="utf-8")
    with TranscriptReader() as reader:
        assert reader.read(tmp_path / "long.mp4") == Transcript([Piece(0.0, None, "all that is said")])


def test_what_is_no_video_is_named_and_is_no_input(tmp_path: Path) -> None:
    create_files(tmp_path, "a.MTS", "a.wav", "b.mp3", "c.xyz", "._a.mp4", "__MACOSX/a.mp4", "old/journal/0-of-1.jsonl")
    clips, rejections = folder.find(tmp_path)
    assert [clip.id for clip in clips] == ["a"]
    assert [(rejection.id, rejection.kind, rejection.is_input) for rejection in rejections] == [
        ("b.mp3", "an audio file", False),
        ("c.xyz", "the extension .xyz is not one of a recording; name the file to read it", False),
        ("old", "a folder that avhubert wrote; name it to read it", False),
    ]
    (tmp_path / "a.MTS").unlink()
    with pytest.raises(DataError, match=r"contains no videos; skipped 2 \(an audio file\): a\.wav, b\.mp3; skipped 1"):
        folder.find(tmp_path)


def test_absolute_names_in_a_table(tmp_path: Path) -> None:
    create_files(tmp_path, "day/a.mp4")
    (tmp_path / "transcripts.csv").write_text(f"file,text\n{tmp_path / 'day' / 'a.mp4'},hello\n", encoding="utf-8")
    clips, rejections = folder.find(tmp_path)
    assert [clip.text for clip in clips] == ["hello"]
    assert not rejections


def test_empty_subtitles_beside_a_text(tmp_path: Path) -> None:
    create_files(tmp_path, "a.mp4", "a.srt")
    (tmp_path / "a.txt").write_text("hello", encoding="utf-8")
    assert [clip.text for clip in folder.find(tmp_path)[0]] == ["hello"]


def test_files_that_look_like_transcripts_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    create_files(tmp_path, "a.mp4", "a.en.vtt", "b.mp4", "b.TextGrid", "c.mp4", "c.info.json", "Transcripts.xlsx")
    clips, _ = folder.find(tmp_path)
    assert [clip.text for clip in clips] == [None, None, None]
    assert [record.message for record in caplog.records] == [
        "Transcripts.xlsx is not read; save it as transcripts.csv",
        "2 videos have no transcript, but a file beside them that is not read (a.en.vtt, b.TextGrid); name subtitles "
        "as the video (talk.srt for talk.mp4), or save other files as .srt, .vtt or .txt",
    ]


def test_a_long_video_whose_header_says_that_it_is_short_is_cut(tmp_path: Path) -> None:
    with Recording(tmp_path / "long.mkv") as recording:
        recording.write_both(recording.audio_stream(), recording.video_stream(), 32)
    whole = cuts.cut_if_long(tmp_path / "long.mkv")
    assert whole is not None
    assert len(whole) > 2
    content = bytearray((tmp_path / "long.mkv").read_bytes())
    position = content.index(b"\x44\x89\x88") + 3  # the element Duration, a float of 8 bytes, in milliseconds
    content[position : position + 8] = struct.pack(">d", 8000.0)
    (tmp_path / "long.mkv").write_bytes(content)
    assert probe(tmp_path / "long.mkv").duration_seconds < 10
    assert [(clip.start, clip.end) for clip in folder.find(tmp_path).clips] == whole
    assert len(cuts.cut_if_long(tmp_path / "long.mkv", "a") or []) > 2


def test_the_chosen_streams_decide_where_a_long_video_is_cut(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-8000, 8000, 16_000 * 23).astype(np.int16)
    with Recording(tmp_path / "two.mkv") as recording:
        audios = [recording.audio_stream("flac") for _ in range(2)]
        videos = [recording.video_stream("mjpeg") for _ in range(2)]
        for stream, pause in zip(audios, (9, 12), strict=True):
            quiet = noise.copy()
            quiet[round(16_000 * (pause - 0.2)) : round(16_000 * (pause + 0.2))] = 0
            recording.write_audio(stream, quiet)
        for stream, scene in zip(videos, (575, 450), strict=True):  # only the second one has two scenes
            recording.write_video(stream, [np.full((64, 160, 3), 200 * (i >= scene), np.uint8) for i in range(575)])
    starts = {(0, 0): [0, 9], (0, 1): [0, 9, 18], (1, 0): [0, 12]}
    for choice, expected in starts.items():
        pieces = cuts.cut_if_long(tmp_path / "two.mkv", streams=StreamChoice(*choice))
        assert [round(start) for start, _ in pieces or []] == expected
    for _ in range(2):  # the second time, the cuts are cached
        clips = folder.find(tmp_path, streams=StreamChoice(1, 1)).clips
        assert [round(clip.start) for clip in clips] == [0, 12, 18]
        assert [round(clip.start) for clip in folder.find(tmp_path, streams=StreamChoice(0, 0)).clips] == [0, 9]
