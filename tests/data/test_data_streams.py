"""Which of several streams is read: the default one, unless it is silent or still; covers never; reported."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from avhubert.data.audio import read_audio
from avhubert.data.media import DamageLog, StreamChoice
from avhubert.data.video import probe, read_frames
from avhubert.errors import MediaError
from tests.data.recordings import Recording, moving, speech, still

pytestmark = pytest.mark.quick

SILENCE = np.zeros(4 * 16_000, np.int16)
HUM = (2000 * np.sin(2 * np.pi * 100 * np.arange(4 * 16_000) / 16_000)).astype(np.int16)
SPEECH = speech(4)
QUIET_SPEECH = (SPEECH // 20).astype(np.int16)  # other speech, told apart by its level


def tracks(path: Path, *samples: np.ndarray, default: int | None = None) -> Path:
    """A file with several audio streams, one of which has the default flag."""
    with Recording(path) as recording:
        streams = [recording.audio_stream("flac") for _ in samples]
        for index, stream in enumerate(streams):
            stream.disposition = Disposition.default.value if index == default else 0  # PyAV 15 takes no flags
        for stream, each in zip(streams, samples, strict=True):
            recording.write_audio(stream, each)
    return path


@pytest.mark.parametrize(
    ("contents", "default", "chosen", "reason"),
    [
        ((SILENCE, SPEECH), None, 1, " (stream 0 is silent)"),
        ((SILENCE, SPEECH), 0, 1, " (stream 0 is silent)"),
        ((HUM, SPEECH), 0, 1, " (stream 0 has steady sound)"),
        ((QUIET_SPEECH, SPEECH), 1, 1, " (it is the default)"),
        ((SPEECH, QUIET_SPEECH), 0, 0, ""),
        ((SPEECH, QUIET_SPEECH), None, 0, ""),
        ((SILENCE, SILENCE), None, 0, ""),
        ((SILENCE, HUM, SPEECH), None, 2, " (stream 0 is silent, stream 1 has steady sound)"),
    ],
)
def test_which_audio_stream_is_read(
    tmp_path: Path, contents: tuple[np.ndarray, ...], default: int | None, chosen: int, reason: str
) -> None:
    path = tracks(tmp_path / "obs.mkv", *contents, default=default)
    damage = DamageLog()
    samples = read_audio(path, damage=damage)
    assert np.array_equal(samples[: len(SPEECH)], contents[chosen])
    assert damage.sentences() == (
        f"the file has {len(contents)} audio streams; stream {chosen} is read{reason}; --audio-stream chooses another",
    )
    assert np.array_equal(read_audio(path, 1, 2), samples[16_000:32_000])


def test_a_requested_stream_is_read_and_nothing_is_reported(tmp_path: Path) -> None:
    path = tracks(tmp_path / "two.mkv", SILENCE, SPEECH)
    damage = DamageLog()
    assert not read_audio(path, streams=StreamChoice(audio=0), damage=damage).any()
    assert np.array_equal(read_audio(path, streams=StreamChoice(audio=1), damage=damage)[: len(SPEECH)], SPEECH)
    assert not damage


def test_a_stream_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    path = tracks(tmp_path / "two.mkv", SILENCE, SPEECH)
    message = r"two\.mkv has 2 audio streams; --audio-stream 2 does not exist, positions start at 0"
    for read in (read_audio, probe):
        with pytest.raises(MediaError, match=message):
            read(path, streams=StreamChoice(audio=2))
    with pytest.raises(MediaError, match=r"has 0 video streams; --video-stream 0 does not exist"):
        list(read_frames(path, streams=StreamChoice(video=0)))


def videos(path: Path, *kinds: str, default: int | None = None) -> Path:
    frames = {"moving": [moving(index) for index in range(50)], "still": [still(index) for index in range(50)]}
    with Recording(path) as recording:
        streams = [recording.video_stream() for _ in kinds]
        for index, stream in enumerate(streams):
            stream.disposition = Disposition.default.value if index == default else 0  # PyAV 15 takes no flags
        for stream, kind in zip(streams, kinds, strict=True):
            recording.write_video(stream, frames[kind])
    return path


@pytest.mark.parametrize(
    ("kinds", "default", "chosen", "reason"),
    [
        (("still", "moving"), 0, 1, " (stream 0 is still)"),
        (("still", "moving"), None, 1, " (stream 0 is still)"),
        (("moving", "still"), None, 0, " (stream 1 is still)"),
        (("moving", "moving"), 1, 1, " (it is the default)"),
        (("still", "still"), None, 0, ""),
    ],
)
def test_which_video_stream_is_read(
    tmp_path: Path, kinds: tuple[str, ...], default: int | None, chosen: int, reason: str
) -> None:
    path = videos(tmp_path / "screen.mkv", *kinds, default=default)
    damage = DamageLog()
    frames = list(read_frames(path, damage=damage))
    assert bool(np.ptp(frames[40])) == (kinds[chosen] == "moving")
    assert damage.sentences() == (
        f"the file has 2 video streams; stream {chosen} is read{reason}; --video-stream chooses another",
    )
    other = list(read_frames(path, streams=StreamChoice(video=1 - chosen)))
    assert bool(np.ptp(other[40])) == (kinds[1 - chosen] == "moving")


def put_cover_first(path: Path) -> None:
    """Move the metadata of an mp4 file, which has the cover, before its tracks."""
    content = path.read_bytes()
    moov = content.index(b"moov") - 4
    (size,) = struct.unpack_from(">I", content, moov)
    atoms, position = [], moov + 8
    while position < moov + size:
        (length,) = struct.unpack_from(">I", content, position)
        atoms.append(content[position : position + length])
        position += length
    atoms.sort(key=lambda atom: [b"mvhd", b"udta"].index(atom[4:8]) if atom[4:8] in (b"mvhd", b"udta") else 2)
    path.write_bytes(content[: moov + 8] + b"".join(atoms) + content[moov + size :])


def test_a_cover_that_comes_first_is_not_the_video(tmp_path: Path) -> None:
    with Recording(tmp_path / "cover.mp4") as recording:
        cover = recording.video_stream("mjpeg", 64, 64)
        cover.disposition = Disposition.attached_pic.value
        video = recording.video_stream()
        recording.write_video(video, [moving(index) for index in range(30)])
        recording.write_video(cover, [still(0, 64, 64)])
    put_cover_first(tmp_path / "cover.mp4")
    with av.open(str(tmp_path / "cover.mp4")) as container:
        assert [bool(s.disposition & Disposition.attached_pic) for s in container.streams.video] == [True, False]
    damage = DamageLog()
    assert (probe(tmp_path / "cover.mp4", damage=damage).width) == 160
    assert len(list(read_frames(tmp_path / "cover.mp4", damage=damage))) == 30
    assert not damage
