"""The crop from nose to chin: square of each frame by itself, edges of the frame, frames without a face."""

from __future__ import annotations

import numpy as np
import pytest

from avhubert.errors import ConfigError
from avhubert.prepare.detectors.blazeface import MESH
from avhubert.prepare.detectors.interface import IBUG, Landmarks
from avhubert.prepare.geometry import lower_face_square, square_corners, square_crop
from avhubert.prepare.mouth import _mouth_track
from avhubert.prepare.tracking import Track

pytestmark = pytest.mark.quick


def gradient(height: int = 200, width: int = 240) -> np.ndarray:
    return np.add.outer(np.arange(height) * 0.5, np.arange(width) * 0.5).astype(np.uint8)


def test_square_is_centred_on_the_points_and_as_large_as_their_extent() -> None:
    # left, top, right, bottom between pixel centres; 0 is the edge of the first pixel in the square
    assert lower_face_square(np.array([59.5, 99.5, 120.5, 139.5], np.float32)).tolist() == [90, 120, 30]


def test_square_of_its_own_size_is_cut_unchanged() -> None:
    image = gradient()
    assert np.array_equal(square_crop(image, np.array([100, 90, 44])), image[46:134, 56:144])


def test_other_sizes_are_resized_linearly_between_pixel_centres() -> None:
    small = square_crop(gradient(), np.array([100, 90, 22])).astype(float)
    position = np.clip((np.arange(88) + 0.5) / 2 - 0.5, 0, 43)
    assert small.shape == (88, 88)
    assert np.abs(small - (np.add.outer(position + 68, position + 78) * 0.5)).max() <= 1.5


@pytest.mark.parametrize("square", [[10, 90, 20], [100, 10, 20], [100, 90, 0], [400, 90, 20], [0, 0, 0]])
def test_square_beyond_the_left_or_upper_edge_or_outside_is_black(square: list[int]) -> None:
    assert not square_crop(gradient() + 1, np.array(square)).any()


def test_square_beyond_the_right_edge_is_filled_by_the_rest() -> None:
    image = np.full((200, 240, 3), 90, np.uint8)
    assert (square_crop(image, np.array([230, 90, 40])) == 90).all()


def test_corners_are_those_of_the_square() -> None:
    assert square_corners(np.array([[90, 120, 30]]))[0].tolist() == [[60, 90], [120, 90], [120, 150], [60, 150]]


def mesh(shift: float) -> Landmarks:
    points = np.random.default_rng(0).uniform(60, 120, (468, 2)).astype(np.float32) + np.float32(shift)
    return Landmarks.from_points(points, MESH)


def test_frames_without_a_face_are_black_and_no_frame_is_smoothed() -> None:
    track = _mouth_track(Track({0: mesh(0), 2: mesh(10)}), 3, "nose-to-chin")
    assert track.squares is not None
    first, missing, last = track.squares.tolist()
    assert missing == [0, 0, 0]
    assert [after - before for before, after in zip(first, last, strict=True)] == [10, 10, 0]
    assert not track.crop(gradient(), 1).any()
    assert track.crop(gradient(), 0).shape == (88, 88)
    assert track.select(np.array([0, 0, 2])).squares.tolist() == [first, first, last]  # type: ignore[union-attr]
    assert track.corners().shape == (3, 4, 2)


def test_mean_face_is_the_default_and_has_no_squares() -> None:
    track = _mouth_track(Track({0: mesh(0)}), 1, "mean-face")
    assert track.squares is None
    assert track.crop(gradient(), 0).shape == (96, 96)


def test_landmarks_of_68_points_cannot_make_the_crop() -> None:
    points = np.random.default_rng(0).uniform(60, 120, (68, 2)).astype(np.float32)
    with pytest.raises(ConfigError, match="needs the points of the built-in face detector"):
        _mouth_track(Track({0: Landmarks.from_points(points, IBUG)}), 1, "nose-to-chin")
