"""Subtitles as people's tools write them: formats, missing blank lines, markup, repeats, times beyond the end."""

from __future__ import annotations

import pytest

from avhubert.corpora.subtitles import Cue, Subtitles, parse, spoken, within
from avhubert.corpora.transcripts import joined

pytestmark = pytest.mark.quick

YOUTUBE = """WEBVTT
Kind: captions
Language: en

00:00:00.080 --> 00:00:02.389 align:start position:0%
\x20
hello<00:00:00.560><c> and</c><00:00:00.800><c> welcome</c>

00:00:02.389 --> 00:00:02.399 align:start position:0%
hello and welcome
\x20

00:00:02.399 --> 00:00:04.400 align:start position:0%
hello and welcome
to<00:00:02.600><c> the</c><c> show</c>

00:00:04.400 --> 00:00:04.410 align:start position:0%
to the show
\x20

00:00:04.410 --> 00:00:06.000 align:start position:0%
to the show
[Music]
"""
YOUTUBE_AS_SRT = """1
00:00:00,080 --> 00:00:02,389

hello and welcome

2
00:00:02,389 --> 00:00:02,399
hello and welcome


3
00:00:02,399 --> 00:00:04,400
hello and welcome
to the show

4
00:00:04,400 --> 00:00:04,410
to the show
"""
ASS = """[Script Info]
Title: x

[V4+ Styles]
Format: Name, Fontname
Style: Default,Arial

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,{\\an8\\i1}Hello, there\\Nfriend{\\i0}
Comment: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,a note
Dialogue: 0,0:00:03.00,0:00:04.50,Default,,0,0,0,,{\\p1}m 0 0 l 10 10{\\p0}
"""
VTT = """WEBVTT - title

STYLE
::cue { color: red }

NOTE
made by hand

1
00:01.000 --> 00:02.000
<v Bob>Hi &lt;there&gt;</v>

intro
00:05.000 --> 00:06.000 line:0
- What?
- JOHN SMITH: Nothing.

NOTE a later note

00:07.000 --> 00:08.000
Ok
"""


def pieces_of(content: str) -> list[tuple[float, float | None, str | None]]:
    return [(piece.start, piece.end, piece.text) for piece in joined(parse(content).cues)]


@pytest.mark.parametrize(
    ("content", "pieces"),
    [
        pytest.param(YOUTUBE, [(0.08, 4.4, "hello and welcome to the show")], id="youtube"),
        pytest.param(YOUTUBE_AS_SRT, [(0.08, 4.4, "hello and welcome to the show")], id="youtube as srt"),
        pytest.param(ASS, [(1.0, 2.5, "hello, there friend")], id="ass"),
        pytest.param(VTT, [(1.0, 2.0, "hi <there>"), (5.0, 6.0, "what? nothing."), (7.0, 8.0, "ok")], id="vtt"),
        pytest.param(
            "0:00:00.599,0:00:04.160\nHi, I am\nBob.\n\n0:00:04.160,0:00:06.770\nFine.\n",
            [(0.599, 6.77, "hi, i am bob. fine.")],
            id="sbv",
        ),
        pytest.param(
            "[00:00.000 --> 00:02.000]  Hello.\n[00:03.000 --> 00:04.120]  More -> here.\n",
            [(0.0, 2.0, "hello."), (3.0, 4.12, "more -> here.")],
            id="whisper",
        ),
        pytest.param(
            "0.100000\t1.500000\thello there\n\\\t100.0\t200.0\n2,5\t3,0\tcomma\n",
            [(0.1, 1.5, "hello there"), (2.5, 3.0, "comma")],
            id="audacity",
        ),
    ],
)
def test_formats(content: str, pieces: list[tuple[float, float, str]]) -> None:
    assert pieces_of(content) == pieces
    assert pieces_of(content.replace("\n", "\r\n")) == pieces
    assert not parse(content).bad


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            "1\r00:00:01,000 --> 00:00:02,000\r[MUSIC]\r2\r00:00:03,000 --> 00:00:04,000\rHi there\r", id="cr"
        ),
        pytest.param("1\n00:00:01,000 --> 00:00:02,000\n2\n00:00:03,000 --> 00:00:04,000\nHi there", id="empty cue"),
        pytest.param("00:00:03,000 --> 00:00:04,000\nHi there\n", id="no numbers"),
        pytest.param("1\r\r\n00:00:03,000 --> 00:00:04,000\r\r\nHi\r\r\nthere\r\r\n", id="doubled cr"),
        pytest.param(
            "1\n00:00:03,000 --> 00:00:04,000\nHi\n\nthere\n\n2\n\n3\n", id="blank line inside, stray numbers"
        ),
        pytest.param("1\n00: 00: 03, 000 -> 00: 00: 04, 000\nHi there\n", id="spaces in times"),
        pytest.param("1\n0:0:3.0 --> 0:0:4\nHi there\n", id="short times"),
        pytest.param("1\n00:00:03:000 --> 00:00:04:000 X1:1 X2:2\nHi there\n", id="colon before milliseconds"),
        pytest.param("1\n00:00:03,000 --> 00:00:04,000\n- <i>Hi</i>{\\an8}\\Nthere (laughs)\u200e\n", id="markup"),
        pytest.param(2 * "1\n00:00:03,000 --> 00:00:04,000\nHi there\n\n", id="the same cue twice"),
    ],
)
def test_variants_of_subrip(content: str) -> None:
    assert pieces_of(content) == [(3.0, 4.0, "hi there")]
    assert not parse(content).bad


def test_a_malformed_cue_is_named_and_the_others_are_used() -> None:
    subtitles = parse(
        "1\n00:00:0x,000 --> 00:00:02,000\nlost\n\n2\n00:00:03,000 --> 00:00:03,000\nlost\n\n"
        "3\n00:00:05,000 --> 00:00:06,000\nfine\n"
    )
    assert [cue.text for cue in subtitles.cues] == ["fine"]
    assert [(bad.where, bad.reason) for bad in subtitles.bad] == [
        ("line 2", "line 2, '00:00:0x,000 --> 00:00:02,000' is not START --> END"),
        ("line 6", "line 6, '00:00:03,000 --> 00:00:03,000' does not end after its start"),
    ]


@pytest.mark.parametrize("content", ["", "Just text.\nAt 10:30 -> we go.\nA --> B\n", "1 2 3\n"])
def test_plain_text_has_no_cues(content: str) -> None:
    assert parse(content) == Subtitles()


def test_a_spoken_repetition_is_kept() -> None:
    times = ("1,000 --> 00:00:02,000", "2,000 --> 00:00:03,000", "3,000 --> 00:00:04,000", "4,000 --> 00:00:05,000")
    words = ("No.", "No.", "Yes.", "Fine.")
    content = "\n\n".join(f"00:00:0{time}\n{word}" for time, word in zip(times, words, strict=True))
    assert pieces_of(content) == [(1.0, 5.0, "no. no. yes. fine.")]


def test_names_of_speakers_before_each_cue() -> None:
    cue = "00:00:0{}.000 --> 00:00:0{}.900\n{}\n\n"
    lines = ("Jane Doe: Hello all.", "John: At last: hi.", "So.", "Zoë O'Neil: Yes.")
    content = "WEBVTT\n\n" + "".join(cue.format(i, i, line) for i, line in enumerate(lines, 1))
    assert [cue.text for cue in parse(content).cues] == ["hello all.", "at last: hi.", "so.", "yes."]
    content = "WEBVTT\n\n" + "".join(cue.format(i, i, line) for i, line in enumerate(("Note: one.", "two", "three"), 1))
    assert [cue.text for cue in parse(content).cues] == ["note: one.", "two", "three"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[MUSIC\nPLAYING] hello", "hello"),
        ("♪ la la ♪", "la la"),
        (">> Yes. >> No.", "yes. >> no."),
        ("MR. SMITH: Come in!", "come in!"),
        ("NOTE: THIS IS ALL UPPER CASE", "note: this is all upper case"),
        ("5 < 6 and 3-4", "5 < 6 and 3-4"),
        ("（男）你好 【音乐】", "你好"),
        ("(sighs)", ""),
        ("[SPEAKER_00]: Hello", "hello"),
    ],
)
def test_what_is_spoken(text: str, words: str) -> None:
    assert spoken(text) == words


def test_cues_beyond_the_end_of_the_video() -> None:
    cues = [
        Cue(0.0, 1.0, ("one",)),
        Cue(1.5, 9.0, ("place red at c",)),
        Cue(1.9, 9.0, ("long text",) * 9),
        Cue(5, 6, ("x",)),
    ]
    result = within(Subtitles(cues), 2.0)
    assert [(cue.start, cue.end) for cue in result.cues] == [(0.0, 1.0), (1.5, None)]
    assert [bad.where for bad in result.bad] == ["1.9 to 9 s", "5 to 6 s"]
    assert result.bad[1].reason == "the subtitle of 5 to 6 s is beyond the end of the video, which lasts 2.00 s"
    assert within(Subtitles(cues), None) == Subtitles(cues)
