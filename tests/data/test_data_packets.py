"""Damage is skipped and reported, seeking loses nothing, and the end of a stream is where its last frame is."""

from __future__ import annotations

import errno
import re
import struct
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avhubert.data import forward, packets
from avhubert.data.audio import read_audio
from avhubert.data.forward import OPEN_PASSES, ForwardPass, close_passes
from avhubert.data.lengths import content_seconds
from avhubert.data.media import DamageLog
from avhubert.data.timestamps import Clock, TimedFrame
from avhubert.data.video import probe, read_frames, thumbnails
from avhubert.errors import MediaError
from tests.data.recordings import Recording, audio_file, break_packets, moving, speech

pytestmark = pytest.mark.quick


def whole_and_parts(path: Path, seconds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """The audio of a file at once, and read in parts."""
    whole, parts, start = read_audio(path), [], 0
    while True:
        try:
            parts.append(read_audio(path, start, start + seconds))
        except MediaError:
            return whole, np.concatenate(parts)
        start += seconds


def column(frame: np.ndarray) -> int:
    """The index of a frame of `moving`."""
    return int((frame[32, :, 0] > 127).sum())


# --------------------------------------------------------------------------- damage
def test_damaged_packets_of_the_audio_are_skipped_and_reported(tmp_path: Path) -> None:
    path = audio_file(tmp_path / "talk.m4a", speech(12), "aac")
    healthy = read_audio(path)
    break_packets(path, range(94, 97))  # from 6 s on
    damage = DamageLog()
    samples = read_audio(path, damage=damage)
    assert len(samples) == len(healthy)
    assert np.array_equal(samples[: 5 * 16_000], healthy[: 5 * 16_000])
    assert np.abs(samples[7 * 16_000 :].astype(int) - healthy[7 * 16_000 :]).mean() < 10
    assert damage.sentences() == ("3 damaged packets of the audio were skipped at 6.0 s (0.19 s lost)",)
    whole, parts = whole_and_parts(path)
    assert len(whole) == len(parts)


def test_a_part_reports_only_its_own_damage_and_several_passes_report_it_once(tmp_path: Path) -> None:
    path = audio_file(tmp_path / "talk.m4a", speech(12), "aac")
    break_packets(path, range(94, 95))
    damage = DamageLog()
    read_audio(path, 0, 5, damage=damage)
    read_audio(path, 7, 12, damage=damage)
    assert not damage
    for _ in range(2):
        read_audio(path, 5, 7, damage=damage)
    assert damage.sentences() == ("1 damaged packet of the audio was skipped at 6.0 s (0.06 s lost)",)


def test_damaged_packets_of_the_video_are_skipped_and_reported(tmp_path: Path) -> None:
    with Recording(tmp_path / "v.mov") as recording:
        stream = recording.video_stream("mjpeg")
        recording.write_video(stream, [moving(index) for index in range(100)])
    break_packets(tmp_path / "v.mov", range(50, 60), "video")
    damage = DamageLog()
    frames = list(read_frames(tmp_path / "v.mov", damage=damage))
    assert len(frames) == 100
    assert [column(frame) for frame in frames[:50]] == list(range(50))
    assert [column(frame) for frame in frames[60:]] == list(range(60, 100))
    assert [str(entry) for entry in damage.damages()] == [
        "10 damaged packets of the video were skipped at 2.0 s (0.40 s lost)"
    ]
    assert len(list(thumbnails(tmp_path / "v.mov", 8))) == 90


def test_a_video_whose_last_packets_are_damaged_keeps_the_frames_before_them(tmp_path: Path) -> None:
    with Recording(tmp_path / "v.mov") as recording:
        recording.write_video(recording.video_stream("mjpeg"), [moving(index) for index in range(40)])
    break_packets(tmp_path / "v.mov", range(37, 40), "video")
    frames = list(read_frames(tmp_path / "v.mov", damage=(damage := DamageLog())))
    assert [column(frame) for frame in frames] == list(range(37))
    assert damage.damages()[0].packets == 3


def test_the_last_part_of_a_video_whose_last_packets_are_damaged_is_read(tmp_path: Path) -> None:
    with Recording(tmp_path / "v.mp4") as recording:
        recording.write_video(recording.video_stream("mpeg4"), [moving(index) for index in range(100)])
    break_packets(tmp_path / "v.mp4", range(97, 100), "video")
    frames = list(read_frames(tmp_path / "v.mp4", 3))
    assert len(frames) == 22
    assert abs(column(frames[0]) - 75) <= 1


def test_a_fragmented_file_that_is_cut_in_its_last_packet_is_read(tmp_path: Path) -> None:
    with Recording(tmp_path / "f.mp4", movflags="frag_keyframe+empty_moov") as recording:
        audio, video = recording.audio_stream(), recording.video_stream()
        recording.write_both(audio, video, 6)
    content = (tmp_path / "f.mp4").read_bytes()
    (tmp_path / "f.mp4").write_bytes(content[: len(content) * 7 // 10])
    damage = DamageLog()
    assert len(read_audio(tmp_path / "f.mp4", damage=damage)) > 3 * 16_000
    assert len(list(read_frames(tmp_path / "f.mp4", damage=damage))) > 75


def test_a_stream_of_which_nothing_can_be_decoded_is_an_error(tmp_path: Path) -> None:
    path = audio_file(tmp_path / "a.m4a", speech(2), "aac")
    break_packets(path)
    with pytest.raises(MediaError, match=r"cannot read the audio of .*a\.m4a: "):
        read_audio(path)
    with Recording(tmp_path / "v.mov") as recording:
        recording.write_video(recording.video_stream("mjpeg"), [moving(index) for index in range(5)])
    break_packets(tmp_path / "v.mov", kind="video")
    with pytest.raises(MediaError, match=r"v\.mov cannot be decoded: Invalid data"):
        list(read_frames(tmp_path / "v.mov"))


# --------------------------------------------------------------------------- seeking and times
@pytest.mark.parametrize("name", ["sound.mpg", "both.mpg", "both.ts", "both.mkv", "both.avi"])
def test_parts_have_the_length_of_the_whole_in_every_container(tmp_path: Path, name: str) -> None:
    codec = {".mpg": "mp2", ".avi": "libmp3lame"}.get(Path(name).suffix, "aac")
    rate = 48_000 if codec == "mp2" else 16_000
    with Recording(tmp_path / name) as recording:
        audio = recording.audio_stream(codec, rate)
        if name.startswith("both"):
            video = recording.video_stream("mpeg2video" if name.endswith("mpg") else "mpeg4")
            recording.write_both(audio, video, 23)
        else:
            recording.write_audio(audio, speech(23, rate))
    whole, parts = whole_and_parts(tmp_path / name)
    assert len(whole) == len(parts)
    assert len(whole) >= 22.9 * 16_000
    assert np.abs(whole.astype(int) - parts).mean() < 20
    if name.startswith("both"):
        frames = list(read_frames(tmp_path / name))
        for start in (3, 11, 19):
            part = list(read_frames(tmp_path / name, start, start + 1))
            assert [column(frame) for frame in part] == [
                column(frame) for frame in frames[25 * start : 25 * start + 25]
            ]


@pytest.mark.parametrize("before", [0.7, 4.0])
def test_a_clock_that_wraps_loses_nothing(tmp_path: Path, before: float) -> None:
    """The clock of a transport stream has 33 bits, at 90 kHz: it starts again after 26.5 hours."""
    with Recording(tmp_path / "wrap.ts") as recording:
        recording.write_both(recording.audio_stream(), recording.video_stream(), 12, 2**33 / 90_000 - before - 1.4)
    whole, parts = whole_and_parts(tmp_path / "wrap.ts", 3)
    assert len(whole) == len(parts)
    assert len(whole) >= 12 * 16_000
    frames = list(read_frames(tmp_path / "wrap.ts"))
    assert len(frames) >= 300
    shown = [column(frame) for frame in frames[-300:]]
    assert all((column - index) % 160 in (0, 1, 159) for index, column in enumerate(shown))
    part = list(read_frames(tmp_path / "wrap.ts", 6, 7))
    assert [column(frame) for frame in part] == [column(frame) for frame in frames[150:175]]


@pytest.mark.parametrize("start", [-5.0, -0.6])
def test_times_before_0_lose_nothing(tmp_path: Path, start: float) -> None:
    with Recording(tmp_path / "early.ts", avoid_negative_ts="disabled", mpegts_copyts="1") as recording:
        recording.write_both(recording.audio_stream(), recording.video_stream(), 8, start)
    with av.open(str(tmp_path / "early.ts")) as container:
        assert container.start_time < 0
    assert len(read_audio(tmp_path / "early.ts")) >= 8 * 16_000
    frames = list(read_frames(tmp_path / "early.ts"))
    assert {column(frame) for frame in frames} == set(range(160))


class _Unseekable:
    """A container whose seek raises, as that of an mp4 does whose first packets have the same decoding time."""

    def __init__(self, container: av.container.InputContainer, error: OSError) -> None:
        self._container, self._error = container, error

    def __enter__(self) -> _Unseekable:
        return self

    def __exit__(self, *error: object) -> None:
        self._container.close()

    def __getattr__(self, name: str):
        return getattr(self._container, name)

    def seek(self, *arguments: object, **options: object) -> None:
        raise self._error


@pytest.mark.parametrize("number", [errno.EPERM, errno.EIO])
def test_seeking_that_fails_falls_back_to_decoding_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with Recording(tmp_path / "vlc.mp4") as recording:
        recording.write_both(recording.audio_stream(), recording.video_stream(), 6)
    audio, frames = read_audio(tmp_path / "vlc.mp4", 3, 5), list(read_frames(tmp_path / "vlc.mp4", 3, 5))
    opened = packets.open_container
    monkeypatch.setattr(packets, "open_container", lambda path: _Unseekable(opened(path), OSError(number, "no")))
    # the decoder has more history than after a seek
    assert np.abs(read_audio(tmp_path / "vlc.mp4", 3, 5).astype(int) - audio).mean() < 20
    again = list(read_frames(tmp_path / "vlc.mp4", 3, 5))
    assert [column(frame) for frame in again] == [column(frame) for frame in frames]


def test_a_seek_that_lands_too_late_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = audio_file(tmp_path / "a.mkv", speech(9), "flac")
    expected = read_audio(path, 4, 6)
    opened = packets.open_container

    class Late(_Unseekable):
        def seek(self, offset: int, **options: object) -> None:
            self._container.seek(offset + 3_000_000, backward=True)

    monkeypatch.setattr(packets, "open_container", lambda path: Late(opened(path), OSError()))
    assert np.array_equal(read_audio(path, 4, 6), expected)


def test_a_gap_at_the_end_of_a_part_is_not_the_end_of_the_track(tmp_path: Path) -> None:
    with Recording(tmp_path / "gap.mkv") as recording:
        stream = recording.audio_stream("flac")
        recording.write_audio(stream, speech(3), 0.0, last=False)
        recording.write_audio(stream, speech(3), 12.0)
    assert len(read_audio(tmp_path / "gap.mkv", 0, 5)) == 5 * 16_000
    silent = read_audio(tmp_path / "gap.mkv", 5, 10)
    assert len(silent) == 5 * 16_000
    assert not silent.any()
    assert read_audio(tmp_path / "gap.mkv", 11, 14).any()
    with pytest.raises(MediaError, match=r"is empty from 16\.00 s on"):
        read_audio(tmp_path / "gap.mkv", 16, 20)


def test_recordings_that_were_joined_are_read_to_the_end(tmp_path: Path) -> None:
    for name in ("1.ts", "2.ts"):
        with Recording(tmp_path / name) as recording:
            recording.write_both(recording.audio_stream(), recording.video_stream(), 15)
    (tmp_path / "joined.ts").write_bytes((tmp_path / "1.ts").read_bytes() + (tmp_path / "2.ts").read_bytes())
    assert len(read_audio(tmp_path / "joined.ts")) >= 29.9 * 16_000
    assert len(list(read_frames(tmp_path / "joined.ts"))) >= 748


@pytest.mark.parametrize("name", ["a.ts", "a.mpg"])
def test_short_recordings_that_were_joined_are_read_to_the_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = both(path, "mpeg2video", "mp2", form="vob" if name == "a.mpg" else None)
    one = len(read_audio(path))
    path.write_bytes(3 * content)
    assert abs(len(read_audio(path)) - 3 * one) < 0.2 * 16_000
    assert abs(len(list(read_frames(path))) - 300) < 6
    assert abs(content_seconds(path) - 3 * one / 16_000) < 0.3
    whole, parts = whole_and_parts(path, 3)  # a seek could land in another one of the recordings
    assert len(whole) == len(parts)
    assert np.abs(whole.astype(int) - parts).mean() < 0.1 * np.abs(whole.astype(int)).mean()


def test_single_wrong_timestamps_are_repaired() -> None:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 160), np.int16), "s16", "mono")
    duration = Fraction(1, 25)

    def times(*given: float) -> list[float]:
        clock: Clock[av.AudioFrame] = Clock()
        timed = [TimedFrame(frame, Fraction(time).limit_denominator(100)) for time in given]
        repaired = [frame for each in timed for frame in clock.add(each, duration)]
        return [float(frame.time) for frame in [*repaired, *clock.flush()]]

    assert times(0, 0.04, 0.08) == [0, 0.04, 0.08]
    assert times(0, 0.04, 5000, 0.12, 0.16) == [0, 0.04, 0.08, 0.12, 0.16]
    assert times(100, 100.04, 3, 100.12) == [100, 100.04, 100.08, 100.12]
    assert times(0, 30, 60, 90) == [0, 30, 60, 90]  # slides
    assert times(5, 5.04, 1, 5.12, 5.16) == [5, 5.04, 5.08, 5.12, 5.16]
    assert times(5, 5.04, 0, 0.04) == [5, 5.04, 5.08, 5.12]
    assert times(20, 20.04, 0, 0.04) == [20, 20.04, 20.08, 20.12]  # the clock starts again
    assert times(0, 0.04, 90_000) == [0, 0.04, 0.08]


# --------------------------------------------------------------------------- what is not read
def test_frames_that_are_too_large_are_an_error(tmp_path: Path) -> None:
    with Recording(tmp_path / "small.avi") as recording:
        recording.write_video(recording.video_stream("rawvideo"), [moving(0)])
    content = bytearray((tmp_path / "small.avi").read_bytes())
    form = content.index(b"strf") + 8
    content[form + 4 : form + 12] = struct.pack("<ii", 10_000, 10_000)
    (tmp_path / "huge.avi").write_bytes(content)
    with pytest.raises(
        MediaError, match=r"the frames of .*huge\.avi have 10000 × 10000 pixels, more than the 50 million"
    ):
        probe(tmp_path / "huge.avi")
    with pytest.raises(MediaError, match="scale the video down"):
        list(read_frames(tmp_path / "huge.avi"))


# --------------------------------------------------------------------------- files without seeking
@pytest.fixture
def demuxed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Seeking fails in every file; counts the packets that are demuxed, by the kind of their stream."""
    count: Counter[str] = Counter()
    opened = packets.open_container

    class Counting(_Unseekable):
        def demux(self, stream: av.stream.Stream) -> Iterator[av.Packet]:
            for packet in self._container.demux(stream):
                count[stream.type] += 1
                yield packet

    monkeypatch.setattr(packets, "open_container", lambda path: Counting(opened(path), OSError(errno.EIO, "no")))
    close_passes()
    return count


def windows(path: Path, passes: int = 2) -> Iterator[tuple[int, list[int], np.ndarray]]:
    """Parts of 5 s that overlap by 2 s, as transcription reads them: start, columns of the frames, samples."""
    for start in range(0, 19, 3):
        for _ in range(passes):
            columns = [column(frame) for frame in read_frames(path, start, start + 5)]
        yield start, columns, read_audio(path, start, start + 5)


@pytest.mark.parametrize(("name", "codec"), [("v.mp4", "libx264"), ("v.avi", "mpeg4")])
def test_parts_of_a_file_without_seeking_are_read_in_one_pass(
    tmp_path: Path, demuxed: Counter[str], name: str, codec: str
) -> None:
    path = tmp_path / name
    with Recording(path) as recording:
        audio = recording.audio_stream("libmp3lame" if name.endswith("avi") else "aac")
        recording.write_both(audio, recording.video_stream(codec), 20)
    frames, samples = [column(frame) for frame in read_frames(path)], read_audio(path)
    demuxed.clear()
    for start, columns, part in windows(path):
        assert columns == frames[25 * start : 25 * start + 125]
        expected = samples[16_000 * start : 16_000 * (start + 5)]
        assert np.abs(part.astype(int) - expected)[:79_000].mean() < 20  # the decoder has less history
    # the first part of a file is read before it is known that seeking fails, each time from the beginning
    assert 500 <= demuxed["video"] < 500 + 2 * 250
    assert demuxed["audio"] < 1.5 * (20 * 16_000 / 576 + 60)


def test_the_clock_of_a_joined_file_goes_on_in_a_later_part(tmp_path: Path, demuxed: Counter[str]) -> None:
    for name in ("1.ts", "2.ts"):
        with Recording(tmp_path / name) as recording:
            recording.write_both(recording.audio_stream(), recording.video_stream(), 12)
    path = tmp_path / "joined.ts"
    path.write_bytes((tmp_path / "1.ts").read_bytes() + (tmp_path / "2.ts").read_bytes())
    frames = [column(frame) for frame in read_frames(path)]
    demuxed.clear()
    assert all(columns == frames[25 * start : 25 * start + 125] for start, columns, _ in windows(path))
    assert demuxed["video"] < 600 + 2 * 250 + 150


def test_a_part_before_the_last_one_and_a_changed_file_are_read_again(tmp_path: Path, demuxed: Counter[str]) -> None:
    with Recording(tmp_path / "v.mp4") as recording:
        recording.write_both(recording.audio_stream(), recording.video_stream(), 30)
    read = lambda start: [column(frame) for frame in read_frames(tmp_path / "v.mp4", start, start + 2)]  # noqa: E731
    assert read(20) == [index % 160 for index in range(500, 550)]
    assert read(10) == [index % 160 for index in range(250, 300)]
    with Recording(tmp_path / "v.mp4") as recording:
        recording.write_video(recording.video_stream(), [moving(index + 7) for index in range(750)])
    assert read(20) == [(index + 7) % 160 for index in range(500, 550)]


def test_the_packets_that_are_kept_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = audio_file(tmp_path / "a.mkv", speech(30), "flac")
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        kept: ForwardPass[None] = ForwardPass(container, stream)
        monkeypatch.setattr("avhubert.data.forward.MAX_BYTES", 20_000)
        sizes = [packet.size for packet in kept.packets(container.demux(stream))]
        assert sum(sizes) > 100_000
        assert not kept.go_to(Fraction(100))  # no packet has a mark, and the first one is gone
        assert sum(packet.size for packet in kept.packets(iter(()))) <= 20_000


def test_only_a_few_passes_stay_open(tmp_path: Path, demuxed: Counter[str]) -> None:
    for number in range(OPEN_PASSES + 3):
        read_audio(audio_file(tmp_path / f"{number}.m4a", speech(6), "aac"), 4, 5)
    assert len(forward._idle) == OPEN_PASSES
    close_passes()
    assert not forward._idle


# --------------------------------------------------------------------------- damage that the decoder conceals
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4")])
def test_frames_that_the_decoder_estimates_are_reported(tmp_path: Path, name: str, codec: str) -> None:
    with Recording(tmp_path / name) as recording:
        recording.write_video(recording.video_stream(codec), [moving(index) for index in range(150)])
    list(read_frames(tmp_path / name, damage=(damage := DamageLog())))
    assert not damage
    with av.open(str(tmp_path / name)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray((tmp_path / name).read_bytes())
    for position, size in places[60:70]:
        assert position is not None
        content[position + size // 2] ^= 0xFF
    (tmp_path / name).write_bytes(content)
    frames = list(read_frames(tmp_path / name, damage=damage))
    assert len(frames) == 150
    [sentence] = [str(entry) for entry in damage.damages() if entry.estimated]
    assert re.fullmatch(r"\d+ damaged frames? of the video w\w+ decoded with errors at 2\.\d s \(0\.\d+ s\)", sentence)
    list(read_frames(tmp_path / name, 4, 6, damage=(healthy := DamageLog())))
    assert not healthy


# --------------------------------------------------------------------------- damage to the container
def both(path: Path, video: str, audio: str, rate: int = 48_000, form: str | None = None) -> bytes:
    """Write 4 s of speech and a moving video; the content of the file."""
    with Recording(path, form) as recording:
        recording.write_both(recording.audio_stream(audio, rate), recording.video_stream(video), 4)
    return path.read_bytes()


def read_all(path: Path) -> DamageLog:
    """Read both streams of a file; what is damaged in them."""
    damage = DamageLog()
    read_audio(path, damage=damage)
    list(read_frames(path, damage=damage))
    return damage


@pytest.mark.parametrize("position", [0.4, 0.6, 0.8])
@pytest.mark.parametrize("kind", ["overwritten", "cut out"])
def test_damage_to_a_transport_stream_is_reported_with_its_time(tmp_path: Path, position: float, kind: str) -> None:
    path = tmp_path / "a.ts"
    content = both(path, "mpeg2video", "mp2")
    assert not read_all(path)
    whole = read_audio(path)
    first, last = round(position * len(content)), round(position * len(content)) + 6000
    replaced = np.random.default_rng(0).bytes(6000) if kind == "overwritten" else b""
    path.write_bytes(content[:first] + replaced + content[last:])
    damage = read_all(path)
    assert abs(len(read_audio(path)) - len(whole)) < 0.1 * 16_000
    for stream in ("audio", "video"):
        times = [entry.start for entry in damage.damages() if entry.stream == stream]
        assert times, damage.sentences()
        assert all(abs(time - 4 * position) < 1 for time in times)


def test_a_short_gap_in_the_audio_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with Recording(path) as recording:
        stream = recording.audio_stream("pcm_s16le")
        recording.write_audio(stream, speech(2), last=False)
        recording.write_audio(stream, speech(2), 2.1)
    damage = DamageLog()
    assert len(read_audio(path, damage=damage)) == round(4.1 * 16_000)
    assert damage.sentences() == ("the audio has nothing from 2.00 s to 2.10 s",)


def test_audio_that_is_lost_from_an_avi_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    content = both(path, "mpeg4", "mp3")
    assert not read_all(path)
    middle = len(content) // 2
    path.write_bytes(content[:middle] + content[middle + 8000 :])
    assert re.search(r"0\.\d\d s of the audio are missing by the header of the file", str(read_all(path).sentences()))


def test_a_damaged_flv_file_that_seems_to_get_another_stream_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.flv"
    content = bytearray(both(path, "flv", "aac", 44_100))
    position, tags = 13, []
    while position + 15 < len(content):
        if content[position] == 9:
            tags.append(position + 11)
        position += 15 + int.from_bytes(content[position + 1 : position + 4], "big")
    codec = tags[len(tags) // 2]
    content[codec] = content[codec] & 0xF0 | 4  # the codec of this frame: On2 VP6
    path.write_bytes(content)
    assert len(read_audio(path)) >= 3.9 * 16_000
    assert len(list(read_frames(path))) >= 98


def test_a_lost_end_of_an_ogg_file_is_reported(tmp_path: Path) -> None:
    path = audio_file(tmp_path / "a.opus", speech(6, 48_000), "libopus", 48_000)
    content = path.read_bytes()
    pages = [match.start() for match in re.finditer(b"OggS", content)]
    path.write_bytes(content[: pages[-3]] + content[pages[-1] :])
    damage = DamageLog()
    read_audio(path, damage=damage)
    assert re.search(r"the file has 6\.\d s, but nothing is read after [34]\.\d s", str(damage.sentences()))
