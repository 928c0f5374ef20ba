"""Faces are detected and tracked; mouth clips equal those of the published system."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st

from avhubert.data.video import write_video
from avhubert.errors import MediaError
from avhubert.prepare import geometry, mouth
from avhubert.prepare.detectors.blazeface import BlazeFace
from avhubert.prepare.detectors.interface import Face, overlap
from avhubert.prepare.tracking import track_faces

pytestmark = pytest.mark.quick

IBUG_STABLE = [33, 36, 39, 42, 45]


@pytest.fixture(scope="module")
def face_model() -> BlazeFace:
    return BlazeFace()


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


# --------------------------------------------------------------------------- finding
def test_a_real_face_is_detected_at_its_position(face_model: BlazeFace, astronaut: np.ndarray) -> None:
    faces = face_model.detect(astronaut)
    assert len(faces) == 1
    left, top, right, bottom = faces[0].box
    assert left < 202 < 246 < right
    assert top < 110 < 155 < bottom
    tracks, frames = track_faces([astronaut] * 3, face_model)
    assert frames == 3
    result = tracks[0].frames[2]
    assert np.abs(result.mouth - np.array([224, 146])).max() < 5


def test_a_moving_face_is_tracked_between_detections(face_model: BlazeFace, astronaut: np.ndarray) -> None:
    shifts = [3 * i for i in range(20)]
    tracks, _ = track_faces((np.roll(astronaut, shift, 1) for shift in shifts), face_model)
    assert len(tracks) == 1
    assert sorted(tracks[0].frames) == list(range(20))
    motion = [tracks[0].frames[i].mouth[0] - tracks[0].frames[0].mouth[0] for i in range(20)]
    assert np.abs(np.array(motion) - shifts).max() < 3


def test_two_faces_give_two_tracks_the_larger_first(face_model: BlazeFace, astronaut: np.ndarray) -> None:
    head = astronaut[20:220, 120:320]
    frame = np.full((420, 640, 3), 128, np.uint8)
    frame[:400, :400] = np.repeat(np.repeat(head, 2, 0), 2, 1)
    frame[100:300, 430:630] = head
    tracks, _ = track_faces([frame] * 3, face_model)
    assert len(tracks) == 2
    assert tracks[0].frames[0].mouth[0] < 400 < tracks[1].frames[0].mouth[0]


def test_a_face_that_leaves_ends_its_track(face_model: BlazeFace, astronaut: np.ndarray) -> None:
    blank = np.full_like(astronaut, 90)
    tracks, frames = track_faces([astronaut] * 4 + [blank] * 4, face_model)
    assert frames == 8
    assert sorted(tracks[0].frames) == [0, 1, 2, 3]


def test_overlap() -> None:
    box = np.array([0, 0, 2, 2.0])
    assert overlap(box, box) == pytest.approx(1, abs=1e-6)
    assert overlap(box, box + np.array([1, 0, 1, 0])) == pytest.approx(1 / 3, abs=1e-6)
    assert overlap(box, box + 5) == 0
    assert Face(box, np.zeros((2, 2)), 0.9).score == 0.9


# --------------------------------------------------------------------------- cutting
def test_mouth_crop_equals_the_published_crop(golden, monkeypatch: pytest.MonkeyPatch) -> None:
    golden_data = np.load(golden("align_mouth.npz"))
    monkeypatch.setattr(geometry, "MEAN_FACE", golden_data["mean_face"][IBUG_STABLE])  # the golden set has its own
    points = golden_data["landmarks"]
    transforms = geometry.stabilise(points[:, IBUG_STABLE])
    centres = np.einsum("tij,tj->ti", transforms[:, :, :2], points[:, 48:68].mean(1)) + transforms[:, :, 2]
    assert np.allclose(transforms, golden_data["crop_full_margin12_params"][:, :2], atol=1e-9)
    assert np.allclose(centres, golden_data["crop_full_margin12_centers"], atol=1e-9)
    for row, frame in enumerate(golden_data["crop_full_margin12_frame_index"]):
        cropped = geometry.crop(golden_data["frames_u8_ch0"][frame], transforms[frame], centres[frame]).astype(int)
        difference = np.abs(cropped - golden_data["crop_full_margin12"][row][..., 0])
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01


def test_short_clips_and_missing_landmarks_equal_the_published_ones(golden, monkeypatch: pytest.MonkeyPatch) -> None:
    golden_data = np.load(golden("align_mouth.npz"))
    monkeypatch.setattr(geometry, "MEAN_FACE", golden_data["mean_face"][IBUG_STABLE])
    stable = golden_data["landmarks"][:, IBUG_STABLE]
    assert np.allclose(geometry.stabilise(stable[:8]), golden_data["crop_first8_params"][:, :2], atol=1e-9)
    assert np.allclose(geometry.stabilise(stable[:5], 1), golden_data["crop_first5_margin1_params"][:, :2], atol=1e-9)
    known = np.setdiff1d(np.arange(30), golden_data["missing_index"])
    filled = geometry.interpolate(known, golden_data["landmarks"][known], 30)
    assert np.allclose(filled, golden_data["landmarks_interpolated"], atol=1e-9)


@given(st.floats(0.3, 3), st.floats(-1, 1), st.floats(-100, 100), st.floats(-100, 100), st.integers(0, 2**32 - 1))
def test_a_similarity_is_recovered(scale: float, angle: float, x: float, y: float, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(5, 2)) * 20
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    result = geometry.similarity(points, points @ rotation.T + [x, y])
    assert np.allclose(result, np.column_stack([rotation, [x, y]]), atol=1e-6)


def test_a_crop_at_the_edge_is_clamped_and_zero_outside() -> None:
    frame = np.full((224, 224, 3), 200, np.uint8)
    upwards = np.array([[1.0, 0, 0], [0, 1, -40]])
    cropped = geometry.crop(frame, upwards, np.array([10.0, 300.0]))  # clamped to (48, 208): rows 160–255, columns 0–95
    assert cropped.shape == (96, 96)
    assert (cropped[:23] == 200).all()  # rows 200–222 of the frame
    assert (cropped[24:] == 0).all()  # it has no row 224


def test_a_still_image_gives_a_warning(tmp_path: Path, astronaut: np.ndarray) -> None:
    write_video(tmp_path / "still.mp4", [astronaut] * 15)
    clip = mouth.mouth_clip(tmp_path / "still.mp4")
    assert clip.frames.shape == (15, 96, 96)
    assert clip.face_share == 1
    assert any("the mouth does not move" in warning for warning in clip.warnings)
    middle = clip.frames[7].astype(int)
    assert middle[38:70, 25:70].std() > 20  # teeth and lips, not a cheek


def test_error_without_a_face_names_the_file(tmp_path: Path) -> None:
    write_video(tmp_path / "grass.mp4", np.random.default_rng(0).integers(60, 90, (6, 128, 128, 3), np.uint8))
    with pytest.raises(MediaError, match=r"no face was found in any of the 6 frames of .*grass\.mp4"):
        mouth.mouth_clip(tmp_path / "grass.mp4")
