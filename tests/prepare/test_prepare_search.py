"""Faces that one look at a frame misses: upside down, small, dark, grainy; and no faces where there are none."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
from scipy import ndimage

from avhubert.prepare.detectors.blazeface import BlazeFace
from avhubert.prepare.detectors.search import clearer, square_around, square_tiles
from avhubert.prepare.tracking import SEARCH_EVERY, track_faces

pytestmark = pytest.mark.quick
MOUTH = np.array([224.0, 146.0])  # in the photograph


@pytest.fixture(scope="module")
def model() -> BlazeFace:
    return BlazeFace()


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """A face of 120 pixels."""
    return skimage.data.astronaut()


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_rotated_face_is_found_with_its_own_direction(
    model: BlazeFace, photograph: np.ndarray, quarters: int
) -> None:
    upright = track_faces([photograph], model)[0][0].frames[0]
    (track,), _ = track_faces([np.ascontiguousarray(np.rot90(photograph, quarters))] * 6, model)
    middle = (np.array(photograph.shape[1::-1]) - 1) / 2
    turn = np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), quarters)
    assert np.abs((upright.stable - middle) @ turn.T + middle - track.frames[5].stable).max() < 10


def test_a_small_face_in_a_wide_frame_is_found_and_followed(model: BlazeFace, photograph: np.ndarray) -> None:
    small = np.clip(ndimage.zoom(ndimage.gaussian_filter(photograph.astype(float), (1, 1, 0)), (0.4, 0.4, 1)), 0, 255)
    frames = []
    for shift in range(0, 12, 3):
        frame = np.full((720, 1280, 3), 110, np.uint8)
        frame[430 : 430 + len(small), 700 + shift : 700 + shift + small.shape[1]] = small
        frames.append(frame)
    assert not any(face for face in model.detect(frames[0]) if model.landmarks(frames[0], _region(face.box))[1] > 0)
    (track,), count = track_faces(frames, model)
    assert len(track.frames) == count == 4
    scale = (small.shape[0] - 1) / (len(photograph) - 1)
    for index, landmarks in track.frames.items():
        assert np.abs(landmarks.mouth - MOUTH * scale - [700 + 3 * index, 430]).max() < 6


def _region(box: np.ndarray) -> np.ndarray:
    return np.array([*(box[:2] + box[2:]) / 2, 1.5 * float((box[2:] - box[:2]).max()), 0.0])


def test_a_dark_grainy_face_is_found(model: BlazeFace, photograph: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 2.5, photograph.shape)
    dark = np.clip(photograph[:300, 80:380] * 0.03 + 4 + noise[:300, 80:380], 0, 255).astype(np.uint8)
    (track,), _ = track_faces([dark], model)
    assert np.abs(track.frames[0].mouth - MOUTH + [80, 0]).max() < 12


def test_a_wall_is_no_face_also_where_a_face_was(model: BlazeFace, photograph: np.ndarray) -> None:
    face = photograph[:300, 80:380]
    rng = np.random.default_rng(1)
    walls = [rng.normal(90, 6, face.shape).astype(np.uint8) for _ in range(5)]
    (track,), count = track_faces([face, face, *walls], model)
    assert (sorted(track.frames), count) == ([0, 1], 7)
    assert track_faces(walls, model)[0] == []


def test_the_search_is_not_repeated_in_every_frame(model: BlazeFace, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []
    monkeypatch.setattr(BlazeFace, "search", lambda self, frame, near: iter(searches.append(1) or []))
    track_faces([np.full((64, 64, 3), 90, np.uint8)] * (SEARCH_EVERY + 1), model)
    assert len(searches) == 2


def test_tiles_cover_the_frame_and_a_square_stays_inside() -> None:
    for height, width in ((720, 1280), (1920, 1080), (600, 600)):
        covered = np.zeros((height, width), int)
        for left, top, side in square_tiles(height, width)[-1]:
            assert left >= 0
            assert top >= 0
            covered[top : top + side, left : left + side] += 1
        assert covered.min() >= 1
    assert square_tiles(288, 360) == []
    assert square_around(np.array([1270.0, 0, 1300, 40]), 720, 1280) == (1180, 0, 100)


def test_a_flat_area_stays_without_structure() -> None:
    flat = np.random.default_rng(2).normal(50, 1, (96, 96, 3)).astype(np.uint8)
    assert clearer(flat).std() < 40
