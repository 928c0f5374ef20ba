"""A file that was cut off is named where its format lets that be known."""

from __future__ import annotations

from pathlib import Path

import pytest

from avhubert.data.audio import read_audio
from avhubert.data.media import DamageLog
from avhubert.data.truncation import CUT_OFF, IN_A_PACKET, NOT_MARKED, cut_off
from avhubert.data.video import read_frames
from tests.data.recordings import Recording, audio_file, speech

pytestmark = pytest.mark.quick


def notes(path: Path, video: bool) -> list[str]:
    damage = DamageLog()
    read_audio(path, damage=damage)
    if video:
        assert list(read_frames(path, damage=damage))
    return [sentence for sentence in damage.sentences() if CUT_OFF in sentence]


@pytest.mark.parametrize("name", ["a.opus", "a.aac", "a.ts", "a.mpg"])
def test_a_download_that_stopped_half_way_is_reported_without_a_length(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    both = name in ("a.ts", "a.mpg")
    codec = {"a.opus": "libopus", "a.aac": "aac", "a.ts": "aac", "a.mpg": "mp2"}[name]
    if both:
        with Recording(path) as recording:
            audio = recording.audio_stream(codec, 48_000)
            recording.write_both(audio, recording.video_stream("mpeg2video"), 8)
    else:
        audio_file(path, speech(8, 48_000), codec, 48_000)
    assert notes(path, both) == []
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10 // 188 * 188 + 77])
    assert notes(path, both) == [IN_A_PACKET]


def test_an_ogg_file_that_ends_with_a_page_is_cut_off_unless_that_is_the_last_one(tmp_path: Path) -> None:
    content = audio_file(tmp_path / "a.ogg", speech(8, 48_000), "libopus", 48_000).read_bytes()
    page = content.rindex(b"OggS")
    (tmp_path / "a.ogg").write_bytes(content[:page])
    assert notes(tmp_path / "a.ogg", False) == [NOT_MARKED]
    for cut in (2, 20, 28, 40):  # in the header of a page, in its table, in its content
        (tmp_path / "a.ogg").write_bytes(content[: page + cut])
        assert cut_off(tmp_path / "a.ogg", {"ogg"}) == IN_A_PACKET


@pytest.mark.parametrize(("packet", "offset"), [(188, 0), (192, 4), (204, 0)])
def test_each_size_of_transport_packets(tmp_path: Path, packet: int, offset: int) -> None:
    one = bytes(offset) + b"G" + b"\xff" * (packet - offset - 1)
    path = tmp_path / "a.ts"
    for more, cut in ((b"", False), (one[:100], True), (b"\0" * 100, False)):
        path.write_bytes(20 * one + more)
        assert cut_off(path, {"mpegts"}) == (IN_A_PACKET if cut else None)


def test_what_follows_the_last_aac_frame_is_no_frame(tmp_path: Path) -> None:
    content = audio_file(tmp_path / "a.aac", speech(4), "aac").read_bytes()
    last = content.rindex(b"\xff\xf1")
    for changed, cut in (
        (content, False),
        (content + b"TAG" + bytes(125), False),
        (content[:-1], True),
        (content[: last + 1], True),
        (content[: last + 3], True),
        (content[100:], False),
        (b"\xff" * 1000, False),
    ):
        (tmp_path / "a.aac").write_bytes(changed)
        assert cut_off(tmp_path / "a.aac", {"aac"}) == (IN_A_PACKET if cut else None)


def test_what_follows_the_end_of_a_program_stream_is_no_packet(tmp_path: Path) -> None:
    pack = b"\0\0\1\xba" + b"\x21" + bytes(7)  # MPEG-1
    packet = b"\0\0\1\xe0\0\x40" + bytes(64)
    for content, cut in (
        (pack + packet, False),
        (pack + packet + b"\0\0\1\xb9", False),
        (pack + packet + b"\0\0\1\xb9" + b"\0\0\1\xe0\0\x40", False),
        (pack + packet + bytes(500), False),
        (pack + packet + packet[:30], True),
        (pack + packet + pack[:2], True),
        (pack + packet + pack[:4], True),
        (pack + packet + packet[:5], True),
        (b"\xff" * 100, False),
    ):
        (tmp_path / "a.mpg").write_bytes(content)
        assert cut_off(tmp_path / "a.mpg", {"mpeg"}) == (IN_A_PACKET if cut else None)
    assert cut_off(tmp_path / "missing.mpg", {"mpeg"}) is None
