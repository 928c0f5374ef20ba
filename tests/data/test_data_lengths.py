"""The length by the header is compared with what is read, in both directions."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from avhubert.data.audio import read_audio, write_wav
from avhubert.data.lengths import content_seconds
from avhubert.data.media import DamageLog
from avhubert.data.video import probe, read_frames
from tests.data.recordings import Recording, audio_file, speech

pytestmark = pytest.mark.quick


def notes(path: Path, video: bool = False) -> tuple[str, ...]:
    damage = DamageLog()
    read_audio(path, damage=damage)
    if video:
        assert list(read_frames(path, damage=damage))
    return tuple(sentence for sentence in damage.sentences() if sentence.startswith("the header"))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.wav", "a.flac", "a.mp3"])
def test_a_download_that_stopped_half_way_is_reported_with_both_lengths(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    both = name in ("a.mp4", "a.mkv", "a.avi")
    if both:
        options = {"movflags": "+faststart"} if name == "a.mp4" else {}
        with Recording(path, **options) as recording:
            codec = "libmp3lame" if name == "a.avi" else "aac"
            recording.write_both(recording.audio_stream(codec), recording.video_stream(), 12)
    else:
        codec = {"a.wav": "pcm_s16le", "a.flac": "flac", "a.mp3": "libmp3lame"}[name]
        audio_file(path, speech(12, 44_100), codec, 44_100)
    assert notes(path, both) == ()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    sentences = notes(path, both)
    assert len(sentences) == 1
    assert sentences[0].startswith("the header of the file says 12.")
    assert sentences[0].endswith(" s: the download or the recording stopped before its end")
    assert 5 < float(sentences[0].split("ends after ")[1].split(" s")[0]) < 9


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("stated", [0, 2 * 16_000 * 2, 0xFFFFFFFF])
def test_a_wav_header_that_states_too_little_loses_nothing(tmp_path: Path, rate: int, stated: int) -> None:
    """A recorder that is killed leaves the size of an earlier time."""
    path = audio_file(tmp_path / "a.wav", speech(6, rate), "pcm_s16le", rate)
    content = bytearray(path.read_bytes())
    position = content.index(b"data")
    content[position + 4 : position + 8] = struct.pack("<I", stated)
    path.write_bytes(content)
    assert len(read_audio(path)) == pytest.approx(6 * 16_000, abs=20)
    assert len(read_audio(path, 4, 5)) == 16_000
    assert bool(notes(path)) == (stated == 2 * 16_000 * 2)


def test_a_wav_file_with_tags_after_its_samples_is_healthy(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", speech(2))
    content = (tmp_path / "a.wav").read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO"
    (tmp_path / "a.wav").write_bytes(content)
    assert np.array_equal(read_audio(tmp_path / "a.wav"), speech(2))
    assert notes(tmp_path / "a.wav") == ()


@pytest.mark.parametrize(("factor", "words"), [(0.25, "but it has 12."), (4.0, "but it ends after 12.")])
def test_a_header_that_lies_is_reported(tmp_path: Path, factor: float, words: str) -> None:
    path = tmp_path / "a.mkv"
    with Recording(path) as recording:
        recording.write_both(recording.audio_stream(), recording.video_stream(), 12)
    content = bytearray(path.read_bytes())
    position = content.index(b"\x44\x89\x88") + 3  # the element Duration, a float of 8 bytes
    (duration,) = struct.unpack_from(">d", content, position)
    struct.pack_into(">d", content, position, factor * duration)
    path.write_bytes(content)
    (sentence,) = notes(path, video=True)
    assert words in sentence
    assert len(read_audio(path)) >= 12 * 16_000
    assert content_seconds(path) == pytest.approx(12, abs=0.1)


def test_a_recording_whose_header_has_no_length_is_measured(tmp_path: Path) -> None:
    """Browsers write such files."""
    path = tmp_path / "a.webm"
    with Recording(path, form="webm", live="1") as recording:
        recording.write_both(recording.audio_stream("libopus", 48_000), recording.video_stream("libvpx"), 4)
    assert probe(path).duration_seconds == pytest.approx(4, abs=0.2)
