"""Cuts between shots: two people in the same place, slides; no cuts where light or people move."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data

from avhubert.data.shots import THUMBNAIL, ShotDetector, thumbnail

pytestmark = pytest.mark.quick


def cuts(frames: list[np.ndarray]) -> list[int]:
    detector = ShotDetector()
    return [index for index, frame in enumerate(frames) if detector.is_cut(thumbnail(frame))]


def moving(picture: np.ndarray, count: int) -> list[np.ndarray]:
    return [np.roll(picture, round(9 * np.sin(index / 3)), 1) for index in range(count)]


def test_a_cut_is_where_another_picture_begins() -> None:
    first, second = skimage.data.astronaut(), skimage.data.chelsea()[:, :300]
    assert cuts(moving(first, 12) + moving(np.resize(second, first.shape), 12)) == [12]
    assert cuts(moving(first[..., 1], 12) + [np.full((512, 512), 200, np.uint8)] * 12) == [12]  # a slide
    assert cuts(moving(first, 3) + moving(first[:, ::-1], 3) + moving(first, 3)) == [3, 6]


def test_a_shot_that_returns_within_a_second_goes_on() -> None:
    """Damaged frames or a flash in a shot are no new shot for the frames after them."""
    first, second = skimage.data.astronaut(), np.resize(skimage.data.chelsea()[:, :300], (512, 512, 3))
    gray = np.full_like(first, 120)

    def shots(frames: list[np.ndarray]) -> list[int]:
        detector = ShotDetector()
        return [detector.shot_of(thumbnail(frame)) for frame in frames]

    assert shots([*[first] * 5, *[gray] * 5, *[first] * 5]) == [*[0] * 5, *[5] * 5, *[0] * 5]
    assert shots([*[first] * 5, *[gray] * 30, *[first] * 2]) == [*[0] * 5, *[5] * 30, *[35] * 2]
    assert shots([*[first] * 5, *[gray] * 2, *[second] * 3, *[first] * 2]) == [*[0] * 5, 5, 5, *[7] * 3, 0, 0]


def test_flashes_fades_and_noise_are_no_cuts() -> None:
    picture = skimage.data.astronaut().astype(float)
    frames = moving(skimage.data.astronaut(), 20)
    frames[7] = (frames[7] * 0.7 + 70).astype(np.uint8)  # a flash
    assert cuts(frames) == []
    assert cuts([(picture * (1 - index / 20)).astype(np.uint8) for index in range(20)]) == []
    rng = np.random.default_rng(0)
    assert cuts([rng.normal(90, 6, (64, 64)).astype(np.uint8) for _ in range(20)]) == []


@pytest.mark.parametrize("shape", [(7, 9), (32, 32), (288, 360, 3), (1080, 1920, 3)])
def test_thumbnails_have_one_size(shape: tuple[int, ...]) -> None:
    assert thumbnail(np.full(shape, 50, np.uint8)).shape == (THUMBNAIL, THUMBNAIL)
