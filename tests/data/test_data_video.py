"""Video: in sync at any frame rate, exact gray levels, published crop and normalisation."""

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
    """Write a video whose frame at time t is white up to column 400 · t, so that the time can be read from it."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(
            "libx264", rate=Fraction(rate).limit_denominator(1001), options={"crf": "1", "threads": "1"}
        )
        stream.width, stream.height, stream.pix_fmt = 1280, 16, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 12_800)
        for time in times:
            rgb = np.zeros((16, 1280, 3), np.uint8)
            rgb[:, : round(400 * time)] = 255
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = round(time * 12_800), Fraction(1, 12_800)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())


def displayed_times(frames: list[np.ndarray]) -> np.ndarray:
    return np.array([float((frame > 127).mean()) * 1280 / 400 for frame in frames])


@pytest.mark.parametrize("rate", [24, 25, 29.97, 30, 50, 59.94, 60, 12.5])
def test_any_frame_rate_is_resampled_to_25_fps_in_sync(tmp_path: Path, rate: float) -> None:
    clock_video(tmp_path / "clock.mp4", [i / rate for i in range(round(2 * rate))], rate)
    frames = list(read_frames(tmp_path / "clock.mp4"))
    assert abs(len(frames) - 50) <= 1
    error = displayed_times(frames) - np.arange(len(frames)) / 25
    assert np.abs(error[-1]) <= 1 / rate + 0.004  # no source frame follows the last one
    assert np.abs(error[:-1]).max() <= 0.5 / rate + 0.004  # half a source frame, and the resolution of the read time


# (a, b, c, d) of mp4's display matrix, in 16.16 fixed point, for clockwise rotations by degrees; 1 << 30 is 1 in 2.30
ROTATIONS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_of_the_file_is_applied(tmp_path: Path, degrees: int) -> None:
    upright = np.zeros((64, 32, 3), np.uint8)
    upright[:16, :16] = 255  # a white corner, top left
    stored = np.rot90(upright, degrees // 90)  # stored counterclockwise; the file specifies a clockwise rotation
    write_video(tmp_path / "phone.mp4", [stored] * 3)
    content = bytearray((tmp_path / "phone.mp4").read_bytes())
    offset = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in ROTATIONS[degrees])
    content[offset : offset + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "phone.mp4").write_bytes(content)
    for frame in read_frames(tmp_path / "phone.mp4"):
        assert frame.shape == upright.shape
        assert np.abs(frame.astype(int) - upright).mean() < 4


def test_interlaced_frames_are_deinterlaced_in_sync(tmp_path: Path) -> None:
    """A bar moves between fields: without deinterlacing, its edge would differ between even and odd lines."""
    with av.open(str(tmp_path / "i.mkv"), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "1", "threads": "1", "x264-params": "tff=1"})
        stream.width, stream.height, stream.pix_fmt = 320, 64, "yuv420p"
        for index in range(20):
            rgb = np.zeros((64, 320, 3), np.uint8)
            rgb[1::2, : 40 + 10 * index] = 255  # the bottom field is first, as the encoder marks it
            rgb[::2, : 45 + 10 * index] = 255
            out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        out.mux(stream.encode())
    frames = list(read_frames(tmp_path / "i.mkv"))
    assert len(frames) == 20
    for index, frame in enumerate(frames):
        lines = frame[16:48, :, 0].astype(int)
        assert np.abs(lines[::2] - lines[1::2]).mean() < 1  # without deinterlacing: 5 of 320 columns, 4 levels
        assert abs((lines > 127).sum(1).mean() - (40 + 10 * index)) <= 3


def write_ten_bit_frame(path: Path, luma: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    """Write one frame of 10-bit planes losslessly."""
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


def test_10_bit_video_gives_the_gray_levels_of_8_bits(tmp_path: Path) -> None:
    gray = np.arange(256)
    luma = np.tile(np.round(64 + gray * 876 / 255).astype("<u2"), (96, 1))  # studio range, 10 bits
    write_ten_bit_frame(tmp_path / "ten.mkv", luma, *[np.full((48, 128), 512, "<u2")] * 2)
    for frames in (read_gray(tmp_path / "ten.mkv"), rgb_to_gray(np.stack(list(read_frames(tmp_path / "ten.mkv"))))):
        assert frames.shape == (1, 96, 256)
        assert np.abs(frames.astype(int) - gray).max() <= 2  # FFmpeg's conversion to RGB, as published, rounds down


def test_10_bit_video_gives_the_gray_levels_of_opencv(tmp_path: Path, golden) -> None:
    """The published conversion: cv2.VideoCapture, then cvtColor."""
    arrays = np.load(golden("opencv_gray_10bit.npz"))
    write_ten_bit_frame(tmp_path / "ten.mkv", arrays["luma"], arrays["u"], arrays["v"])
    for frames in (read_gray(tmp_path / "ten.mkv"), rgb_to_gray(np.stack(list(read_frames(tmp_path / "ten.mkv"))))):
        assert np.abs(frames[0].astype(int) - arrays["gray"]).max() <= 1


def test_variable_frame_rate_stays_in_sync(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.01, 0.06, 60))
    times -= times[0]
    clock_video(tmp_path / "clock.mp4", list(times))
    frames = list(read_frames(tmp_path / "clock.mp4"))
    nearest = np.array([times[np.abs(times - k / 25).argmin()] for k in range(len(frames))])
    assert np.abs(displayed_times(frames) - nearest).max() < 0.004


def test_25_fps_video_is_read_frame_by_frame(tmp_path: Path) -> None:
    clock_video(tmp_path / "clock.mp4", [i / 25 for i in range(30)])
    frames = list(read_frames(tmp_path / "clock.mp4"))
    assert len(frames) == 30
    assert np.abs(displayed_times(frames) - np.arange(30) / 25).max() < 0.004


def test_part_of_a_video_is_read(tmp_path: Path) -> None:
    clock_video(tmp_path / "clock.mp4", [i / 25 for i in range(75)])
    frames = list(read_frames(tmp_path / "clock.mp4", 1.2, 2.0))
    assert len(frames) == 20
    assert np.abs(displayed_times(frames) - 1.2 - np.arange(20) / 25).max() < 0.004


def test_gray_frames_equal_the_conversion_of_rgb_frames(tmp_path: Path) -> None:
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
    facts = json.loads(golden("video_transforms.json").read_text(encoding="utf-8"))
    frames = arrays["video_u8"]
    assert np.allclose(transform(frames)[:10], arrays["eval_f32"], atol=1e-6)
    for seed in (0, 5):
        drawn = facts["seeds"][str(seed)]
        transformed = transform(frames, drawn["delta_h"], drawn["delta_w"], drawn["flip"])
        assert np.allclose(transformed[:6], arrays[f"train_seed{seed}_f32"], atol=1e-6)


@given(st.integers(0, 8), st.integers(0, 8), st.booleans())
def test_transform_crops_at_the_given_offsets(top: int, left: int, flip: bool) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 96, 96), np.uint8)
    transformed = transform(frames, top, left, flip).numpy()
    crop = frames[:, top : top + 88, left : left + 88]
    expected = (crop[:, :, ::-1] if flip else crop) / 255
    assert np.allclose(transformed, (expected - 0.421) / 0.165, atol=1e-5)


def test_crop_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(MediaError, match=r"88×88 crop at \(9, 0\) does not fit a frame of 96×96"):
        transform(np.zeros((1, 96, 96), np.uint8), 9, 0)


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 12))
def test_written_video_is_read_back_and_its_bytes_are_reproducible(tmp_path_factory, count: int) -> None:
    folder = tmp_path_factory.mktemp("video")
    frames = np.random.default_rng(count).integers(0, 256, (count, 96, 96), np.uint8)
    for name in ("a.mp4", "b.mp4"):
        assert write_video(folder / name, frames) == count
    assert (folder / "a.mp4").read_bytes() == (folder / "b.mp4").read_bytes()
    assert read_gray(folder / "a.mp4").shape == frames.shape


def test_written_audio_and_video_are_in_sync(tmp_path: Path) -> None:
    """A flash and a click at 1 s are read at 1 s."""
    frames = np.zeros((50, 96, 96), np.uint8)
    frames[25] = 255
    samples = np.zeros(32_000, np.int16)
    samples[16_000:16_160] = 20_000
    write_video(tmp_path / "clap.mp4", frames, audio=samples)
    flash = np.array([frame.mean() for frame in read_frames(tmp_path / "clap.mp4")]).argmax() / 25
    click = np.abs(read_audio(tmp_path / "clap.mp4").astype(int)).argmax() / 16_000
    assert flash == 1.0
    assert abs(click - 1.005) < 0.02


def test_probe(tmp_path: Path) -> None:
    write_video(tmp_path / "x.mp4", np.zeros((25, 96, 96), np.uint8), audio=np.zeros(16_000, np.int16))
    info = probe(tmp_path / "x.mp4")
    assert (info.has_video, info.has_audio, info.width, info.height, info.fps) == (True, True, 96, 96, 25.0)
    assert abs(info.duration_seconds - 1) < 0.1


def test_invalid_files_are_errors_that_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video", encoding="utf-8")
    (tmp_path / "pointer.mp4").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", encoding="utf-8"
    )
    write_video(tmp_path / "whole.mp4", np.zeros((25, 96, 96), np.uint8))
    (tmp_path / "truncated.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:300])
    with av.open(str(tmp_path / "audio.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    for read in (lambda path: list(read_frames(path)), read_gray):
        for name, message in (
            ("missing.mp4", "does not exist|No such file"),
            ("text.mp4", "cannot be read as a video"),
            ("pointer.mp4", "is a Git LFS pointer, not the file itself; run `git lfs pull`"),
            ("truncated.mp4", "cannot be read as a video"),
            ("audio.mp4", "has no video track"),
        ):
            with pytest.raises(MediaError, match=message) as error:
                read(tmp_path / name)
            assert name in str(error.value)
    with pytest.raises(MediaError, match=r"no video frame between 9\.00 s and 10\.00 s"):
        list(read_frames(tmp_path / "whole.mp4", 9, 10))
    with pytest.raises(MediaError, match="there are no frames to write"):
        write_video(tmp_path / "none.mp4", [])
    assert not (tmp_path / "none.mp4").exists()
