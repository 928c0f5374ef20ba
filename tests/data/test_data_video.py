"""Pictures: time is kept at any rate, gray is exact, crops and normalisation are the published ones."""

from __future__ import annotations

import json
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avhubert.data.audio import read_audio
from avhubert.data.video import probe, read_frames, read_gray, rgb_to_gray, transform, write_video
from avhubert.errors import MediaError

pytestmark = pytest.mark.quick


def clock_video(path: Path, times: list[float], rate: float = 25) -> None:
    """A video whose frame shown at time t is white up to column 400 · t: the time can be read back."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(
            "libx264", rate=Fraction(rate).limit_denominator(1001), options={"crf": "1", "threads": "1"}
        )
        stream.width, stream.height, stream.pix_fmt = 1280, 16, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 12_800)
        for time in times:
            picture = np.zeros((16, 1280, 3), np.uint8)
            picture[:, : round(400 * time)] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time * 12_800), Fraction(1, 12_800)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def times_of(frames: list[np.ndarray]) -> np.ndarray:
    return np.array([float((frame > 127).mean()) * 1280 / 400 for frame in frames])


@pytest.mark.parametrize("rate", [24, 25, 29.97, 30, 50, 59.94, 60, 12.5])
def test_any_rate_becomes_25_fps_with_its_time_kept(tmp_path: Path, rate: float) -> None:
    clock_video(tmp_path / "clock.mp4", [i / rate for i in range(round(2 * rate))], rate)
    frames = list(read_frames(tmp_path / "clock.mp4"))
    assert abs(len(frames) - 50) <= 1
    error = times_of(frames) - np.arange(len(frames)) / 25
    assert np.abs(error[-1]) <= 1 / rate + 0.004  # nothing follows the last source frame
    assert np.abs(error[:-1]).max() <= 0.5 / rate + 0.004  # half a source frame, and what can be read back


# FFmpeg's display matrices in mp4's 16.16 and 2.30 fixed point: (a, b, c, d) of turns to the right
TURNS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_phone_held_otherwise_is_turned_upright(tmp_path: Path, degrees: int) -> None:
    upright = np.zeros((64, 32, 3), np.uint8)
    upright[:16, :16] = 255  # a white corner, top left
    stored = np.rot90(upright, degrees // 90)  # turned to the left; the file says: turn it to the right
    write_video(tmp_path / "phone.mp4", [stored] * 3)
    content = bytearray((tmp_path / "phone.mp4").read_bytes())
    at = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in TURNS[degrees])
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "phone.mp4").write_bytes(content)
    for frame in read_frames(tmp_path / "phone.mp4"):
        assert frame.shape == upright.shape
        assert np.abs(frame.astype(int) - upright).mean() < 4


def test_interlaced_frames_have_no_comb_and_keep_their_time(tmp_path: Path) -> None:
    """A bar moves from field to field: woven, its edge would be at two places in every other line."""
    with av.open(str(tmp_path / "i.mkv"), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "1", "threads": "1", "x264-params": "tff=1"})
        stream.width, stream.height, stream.pix_fmt = 320, 64, "yuv420p"
        for index in range(20):
            picture = np.zeros((64, 320, 3), np.uint8)
            picture[1::2, : 40 + 10 * index] = 255  # the bottom field comes first, as the encoder marks it
            picture[::2, : 45 + 10 * index] = 255
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    frames = list(read_frames(tmp_path / "i.mkv"))
    assert len(frames) == 20
    for index, frame in enumerate(frames):
        lines = frame[16:48, :, 0].astype(int)
        assert np.abs(lines[::2] - lines[1::2]).mean() < 1  # woven: 5 of 320 columns, 4 levels
        assert abs((lines > 127).sum(1).mean() - (40 + 10 * index)) <= 3


def ten_bits(path: Path, luma: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    """One picture of 10-bit planes, little-endian, written without loss."""
    height, width = luma.shape
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p10le"
        frame = av.VideoFrame(width, height, "yuv420p10le")
        for plane, values in zip(frame.planes, (luma, u, v), strict=True):
            content = np.zeros((plane.height, plane.line_size // 2), "<u2")
            content[:, : values.shape[1]] = values
            plane.update(content.tobytes())
        out.mux(stream.encode(frame))
        out.mux(stream.encode())


def test_10_bits_give_the_gray_of_8(tmp_path: Path) -> None:
    gray = np.arange(256)
    luma = np.tile(np.round(64 + gray * 876 / 255).astype("<u2"), (96, 1))  # studio range, 10 bits
    ten_bits(tmp_path / "ten.mkv", luma, *[np.full((48, 128), 512, "<u2")] * 2)
    for made in (read_gray(tmp_path / "ten.mkv"), rgb_to_gray(np.stack(list(read_frames(tmp_path / "ten.mkv"))))):
        assert made.shape == (1, 96, 256)
        assert np.abs(made.astype(int) - gray).max() <= 2  # FFmpeg's RGB, which is the published path, rounds down


def test_10_bits_give_the_gray_that_opencv_gives(tmp_path: Path, golden) -> None:
    """The published path: cv2.VideoCapture, then cvtColor."""
    kept = np.load(golden("opencv_gray_10bit.npz"))
    ten_bits(tmp_path / "ten.mkv", kept["luma"], kept["u"], kept["v"])
    for made in (read_gray(tmp_path / "ten.mkv"), rgb_to_gray(np.stack(list(read_frames(tmp_path / "ten.mkv"))))):
        assert np.abs(made[0].astype(int) - kept["gray"]).max() <= 1


def test_a_variable_rate_keeps_its_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.01, 0.06, 60))
    times -= times[0]
    clock_video(tmp_path / "clock.mp4", list(times))
    frames = list(read_frames(tmp_path / "clock.mp4"))
    nearest = np.array([times[np.abs(times - k / 25).argmin()] for k in range(len(frames))])
    assert np.abs(times_of(frames) - nearest).max() < 0.004


def test_25_fps_comes_out_frame_by_frame(tmp_path: Path) -> None:
    clock_video(tmp_path / "clock.mp4", [i / 25 for i in range(30)])
    frames = list(read_frames(tmp_path / "clock.mp4"))
    assert len(frames) == 30
    assert np.abs(times_of(frames) - np.arange(30) / 25).max() < 0.004


def test_a_piece_of_a_video(tmp_path: Path) -> None:
    clock_video(tmp_path / "clock.mp4", [i / 25 for i in range(75)])
    frames = list(read_frames(tmp_path / "clock.mp4", 1.2, 2.0))
    assert len(frames) == 20
    assert np.abs(times_of(frames) - 1.2 - np.arange(20) / 25).max() < 0.004


def test_gray_is_what_rgb_gives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (6, 96, 96), np.uint8)
    write_video(tmp_path / "gray.mp4", gray, crf=10)
    write_video(tmp_path / "colour.mp4", rng.integers(0, 256, (4, 96, 96, 3), np.uint8))
    for name in ("gray.mp4", "colour.mp4"):
        through_rgb = np.stack([rgb_to_gray(frame) for frame in read_frames(tmp_path / name)])
        assert np.array_equal(read_gray(tmp_path / name), through_rgb)
    assert np.abs(read_gray(tmp_path / "gray.mp4").astype(int) - gray).mean() < 8


def test_gray_equals_the_published_decoding(golden) -> None:
    items = np.load(golden("dataset_items.npz"))
    for name in ("test00", "test01"):
        assert np.array_equal(read_gray(golden(f"media/{name}.mp4")), items[f"{name}:decoded_gray_u8"])
    means = read_gray(golden("media/test02.mp4")).reshape(-1, 96 * 96).mean(1)
    assert np.array_equal(means, items["test02:decoded_frame_means"])


def test_transform_equals_the_published_one(golden) -> None:
    arrays = np.load(golden("video_transforms.npz"))
    facts = json.loads(golden("video_transforms.json").read_text())
    frames = arrays["video_u8"]
    assert np.allclose(transform(frames)[:10], arrays["eval_f32"], atol=1e-6)
    for seed in (0, 5):
        drawn = facts["seeds"][str(seed)]
        made = transform(frames, drawn["delta_h"], drawn["delta_w"], drawn["flip"])
        assert np.allclose(made[:6], arrays[f"train_seed{seed}_f32"], atol=1e-6)


@given(st.integers(0, 8), st.integers(0, 8), st.booleans())
def test_transform_cuts_where_it_is_told(top: int, left: int, flip: bool) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 96, 96), np.uint8)
    made = transform(frames, top, left, flip).numpy()
    cut = frames[:, top : top + 88, left : left + 88]
    expected = (cut[:, :, ::-1] if flip else cut) / 255
    assert np.allclose(made, (expected - 0.421) / 0.165, atol=1e-5)


def test_a_crop_that_does_not_fit_is_refused() -> None:
    with pytest.raises(MediaError, match=r"88×88 crop at \(9, 0\) does not fit a frame of 96×96"):
        transform(np.zeros((1, 96, 96), np.uint8), 9, 0)


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 12))
def test_what_is_written_is_read_back_and_the_same_bytes_come_again(tmp_path_factory, count: int) -> None:
    folder = tmp_path_factory.mktemp("video")
    frames = np.random.default_rng(count).integers(0, 256, (count, 96, 96), np.uint8)
    for name in ("a.mp4", "b.mp4"):
        assert write_video(folder / name, frames) == count
    assert (folder / "a.mp4").read_bytes() == (folder / "b.mp4").read_bytes()
    assert read_gray(folder / "a.mp4").shape == frames.shape


def test_sound_and_picture_stay_together(tmp_path: Path) -> None:
    """A flash and a click at 1 s are found at 1 s in both."""
    frames = np.zeros((50, 96, 96), np.uint8)
    frames[25] = 255
    sound = np.zeros(32_000, np.int16)
    sound[16_000:16_160] = 20_000
    write_video(tmp_path / "clap.mp4", frames, audio=sound)
    seen = np.array([frame.mean() for frame in read_frames(tmp_path / "clap.mp4")]).argmax() / 25
    heard = np.abs(read_audio(tmp_path / "clap.mp4").astype(int)).argmax() / 16_000
    assert seen == 1.0
    assert abs(heard - 1.005) < 0.02


def test_probe(tmp_path: Path) -> None:
    write_video(tmp_path / "x.mp4", np.zeros((25, 96, 96), np.uint8), audio=np.zeros(16_000, np.int16))
    found = probe(tmp_path / "x.mp4")
    assert (found.has_video, found.has_audio, found.width, found.height, found.fps) == (True, True, 96, 96, 25.0)
    assert abs(found.duration_seconds - 1) < 0.1


def test_wrong_files_are_named_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    write_video(tmp_path / "whole.mp4", np.zeros((25, 96, 96), np.uint8))
    (tmp_path / "torn.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:300])
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    for read in (lambda path: list(read_frames(path)), read_gray):
        for name, words in (
            ("gone.mp4", "does not exist|No such file"),
            ("text.mp4", "cannot be read as a video"),
            ("torn.mp4", "cannot be read as a video"),
            ("sound.mp4", "has no video track"),
        ):
            with pytest.raises(MediaError, match=words) as error:
                read(tmp_path / name)
            assert name in str(error.value)
    with pytest.raises(MediaError, match=r"no video frame between 9\.00 s and 10\.00 s"):
        list(read_frames(tmp_path / "whole.mp4", 9, 10))
    with pytest.raises(MediaError, match="there are no frames to write"):
        write_video(tmp_path / "none.mp4", [])
    assert not (tmp_path / "none.mp4").exists()
