"""Frames are shown as players show them: rotated, mirrored, with square pixels."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avhubert.data.orientation import Orientation, stretched_width
from avhubert.data.video import probe, read_frames, write_video
from tests.data.recordings import Recording, moving

pytestmark = pytest.mark.quick

# (a, b, c, d) of the display matrix: x' = a·x + c·y, y' = b·x + d·y; and what numpy does to the stored frame
MATRICES = {
    "as stored": ((1, 0, 0, 1), lambda stored: stored),
    "rotated by 90° clockwise": ((0, 1, -1, 0), lambda stored: np.rot90(stored, -1)),
    "rotated by 180°": ((-1, 0, 0, -1), lambda stored: np.rot90(stored, 2)),
    "rotated by 270° clockwise": ((0, -1, 1, 0), lambda stored: np.rot90(stored)),
    "left and right mirrored": ((-1, 0, 0, 1), lambda stored: stored[:, ::-1]),
    "top and bottom mirrored": ((1, 0, 0, -1), lambda stored: stored[::-1]),
    "mirrored, rotated by 90°": ((0, 1, 1, 0), lambda stored: stored.swapaxes(0, 1)),
    "mirrored, rotated by 270°": ((0, -1, -1, 0), lambda stored: stored[::-1, ::-1].swapaxes(0, 1)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_every_display_matrix_is_applied(tmp_path: Path, name: str) -> None:
    matrix, expected = MATRICES[name]
    stored = np.zeros((64, 96, 3), np.uint8)
    stored[:32, :32] = 255  # a white corner, top left
    stored[:32, 64:] = 120  # a gray one, top right
    write_video(tmp_path / "phone.mp4", [stored] * 3)
    content = bytearray((tmp_path / "phone.mp4").read_bytes())
    offset = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    content[offset : offset + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "phone.mp4").write_bytes(content)
    shown = expected(stored)
    frames = list(read_frames(tmp_path / "phone.mp4"))
    assert len(frames) == 3
    assert frames[0].shape == shown.shape
    assert np.abs(frames[0].astype(int) - shown).mean() < 4
    assert frames[0].flags.c_contiguous
    media = probe(tmp_path / "phone.mp4")
    assert (media.height, media.width) == shown.shape[:2]


@pytest.mark.parametrize(
    ("ratio", "width"),
    [
        (Fraction(16, 11), 1047),  # PAL DVD, wide
        (Fraction(8, 9), 640),  # NTSC DV
        (Fraction(4, 3), 960),
        (Fraction(1), 720),
        (Fraction(1001, 1000), 720),
        (Fraction(0), 720),
        (None, 720),
        (Fraction(1, 1000), 720),
        (Fraction(1000), 720),
    ],
)
def test_width_with_square_pixels(ratio: Fraction | None, width: int) -> None:
    assert stretched_width(720, ratio) == width


def test_pixels_that_are_not_square_are_stretched_before_rotation(tmp_path: Path) -> None:
    with Recording(tmp_path / "dv.mkv") as recording:
        stream = recording.video_stream("mpeg4", 96, 64)
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        recording.write_video(stream, [moving(48, 96, 64)] * 3)
    media = probe(tmp_path / "dv.mkv")
    assert (media.width, media.height) == (128, 64)
    frame = next(read_frames(tmp_path / "dv.mkv"))
    assert frame.shape == (64, 128, 3)
    assert int((frame[32, :, 0] > 127).sum()) == pytest.approx(64, abs=2)


def test_frames_keep_the_size_of_the_first_one(tmp_path: Path) -> None:
    """Browsers change the size of a recording with the bandwidth."""
    for name, width in (("1.ts", 96), ("2.ts", 64)):
        with Recording(tmp_path / name) as recording:
            stream = recording.video_stream("mpeg2video", width, 64)
            frames = [moving(width // 2, width, 64)] * 10
            recording.write_video(stream, frames, start=0.4 * (width == 64))
    (tmp_path / "both.ts").write_bytes((tmp_path / "1.ts").read_bytes() + (tmp_path / "2.ts").read_bytes())
    frames = list(read_frames(tmp_path / "both.ts"))
    assert len(frames) >= 19
    assert {frame.shape for frame in frames} == {(64, 96, 3)}
    assert int((frames[-1][32, :, 0] > 127).sum()) == pytest.approx(48, abs=2)


def test_an_orientation_that_changes_nothing_copies_nothing() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    assert Orientation().apply(image) is image
