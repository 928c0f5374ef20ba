"""Geometry of the mouth crops: stabilisation on the mean face and a 96 × 96 window, or a square from nose to chin.

Coordinates are (x, y) in pixels. T frames at 25 fps.
"""

from __future__ import annotations

import numpy as np

from avhubert.constants import CROP_SIZE, MOUTH_SIZE
from avhubert.data.video import rgb_to_gray

MEAN_FACE_SIZE = 256
SMOOTHING = 12  # frames whose mean landmarks decide a frame's transform: the frame itself and those after it
# the mean face's stable points: nose base, eye corners (iBUG 33, 36, 39, 42, 45)
MEAN_FACE = np.array(
    [[128.870, 137.303], [92.522, 94.369], [112.772, 94.944], [145.525, 94.535], [166.677, 93.566]], np.float64
)


def interpolate(index: np.ndarray, values: np.ndarray, frames: int) -> np.ndarray:
    """Fill gaps linearly: values [n, …] known at the frames `index` → [frames, …]; both ends are repeated."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    all_frames = np.arange(frames)
    filled = np.stack([np.interp(all_frames, index, column) for column in flat.T], axis=1)
    return filled.reshape(frames, *values.shape[1:])


def similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity [2, 3] (rotation, scale, shift) that maps points [n, 2] onto target [n, 2]: least squares."""
    z, w = points @ np.array([1, 1j]), target @ np.array([1, 1j])
    z_mean, w_mean = z.mean(), w.mean()
    a = np.vdot(z - z_mean, w - w_mean) / np.vdot(z - z_mean, z - z_mean)
    b = w_mean - a * z_mean
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def stabilise(stable: np.ndarray, smoothing: int = SMOOTHING) -> np.ndarray:
    """Transforms [T, 2, 3] onto the mean face from stable points [T, 5, 2].

    Frame i uses the mean of frames i … i + smoothing − 1; the last frames reuse the last transform.
    """
    frames = len(stable)
    window = min(smoothing, frames)
    full = frames - window + 1
    transforms = [similarity(stable[i : i + window].mean(0), MEAN_FACE) for i in range(full)]
    return np.stack(transforms + [transforms[-1]] * (frames - full))


def head_turn(stable: np.ndarray) -> np.ndarray:
    """How far the nose is from the middle of the eyes along their line, in eye distances: [T], 0 in frontal view."""
    line = stable[:, 4] - stable[:, 1]
    nose = stable[:, 0] - (stable[:, 1] + stable[:, 4]) / 2
    turn: np.ndarray = np.einsum("ti,ti->t", nose, line) / np.maximum(np.einsum("ti,ti->t", line, line), 1e-9)
    return turn


def window_corners(transforms: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The crop's corners in the frame, [T, 4, 2]: top left, top right, bottom right, bottom left."""
    half = MOUTH_SIZE // 2
    middle = np.clip(np.rint(centres), half, MEAN_FACE_SIZE - half)
    corners = middle[:, None] + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    inverse = np.linalg.inv(np.concatenate([transforms, np.tile([[[0.0, 0, 1]]], (len(transforms), 1, 1))], 1))
    in_frame: np.ndarray = np.einsum("tij,tnj->tni", inverse[:, :2, :2], corners) + inverse[:, None, :2, 2]
    return in_frame


def crop_steps(transforms: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """How far the middle of the crop moves over the scene from frame to frame, in pixels of the crop: [T − 1]."""
    corners = window_corners(transforms, centres)
    sides = np.linalg.norm(corners[1:, 1] - corners[1:, 0], axis=1)
    steps: np.ndarray = np.linalg.norm(np.diff(corners.mean(1), axis=0), axis=1) * MOUTH_SIZE / sides
    return steps


def lower_face_square(box: np.ndarray) -> np.ndarray:
    """The square of the crop from nose to chin: centre x, centre y and half of its side in whole pixels, int [3].

    Args:
        box: float [4], around nose, cheeks and chin: left, top, right, bottom; pixel centres at whole numbers.
    """
    low, high = box[:2].astype(np.float64) + 0.5, box[2:].astype(np.float64) + 0.5  # 0: the edge of the first pixel
    return np.array([*np.floor(low + (high - low) / 2), np.floor((high - low).max() / 2)], np.int64)


def square_corners(squares: np.ndarray) -> np.ndarray:
    """Corners of squares int [T, 3] in the frame, [T, 4, 2]: top left, top right, bottom right, bottom left."""
    corners: np.ndarray = squares[:, None, :2] + squares[:, None, 2:] * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return corners.astype(np.float64)


def square_crop(frame: np.ndarray, square: np.ndarray) -> np.ndarray:
    """uint8 [88, 88] gray: the square of the frame, uint8 [H, W, 3] RGB or [H, W], resized bilinearly.

    What of the square is beyond the right or lower edge is left out, so that the rest fills the crop. The crop is black
    if the square is empty or begins beyond the left or upper edge.
    """
    x, y, half = (int(value) for value in square)
    part = frame[max(y - half, 0) : max(y + half, 0), max(x - half, 0) : max(x + half, 0)]
    if min(x - half, y - half) < 0 or 0 in part.shape:
        return np.zeros((CROP_SIZE, CROP_SIZE), np.uint8)
    gray = (rgb_to_gray(part) if part.ndim == 3 else part).astype(np.float32)
    for axis in (0, 1):
        gray = _resized(gray, axis)
    resized: np.ndarray = np.rint(gray).astype(np.uint8)
    return resized


def _resized(image: np.ndarray, axis: int) -> np.ndarray:
    """The image with CROP_SIZE pixels along one axis: linear between pixel centres, edges repeated."""
    count = image.shape[axis]
    position = np.clip((np.arange(CROP_SIZE) + 0.5) * count / CROP_SIZE - 0.5, 0, count - 1)
    lower = np.floor(position).astype(np.intp)
    share = (position - lower).astype(np.float32)
    share = share[:, None] if axis == 0 else share
    upper = np.minimum(lower + 1, count - 1)
    resized: np.ndarray = image.take(lower, axis) * (1 - share) + image.take(upper, axis) * share
    return resized


def crop(frame: np.ndarray, transform: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """uint8 [96, 96] gray: the frame, uint8 [H, W, 3] RGB or [H, W], after `transform`, around `centre`.

    The centre is rounded half to even and clamped so that the window stays inside the 256 × 256 mean-face image;
    bilinear, zeros outside the frame, truncated. Only the window is computed.
    """
    half = MOUTH_SIZE // 2
    x, y = (int(np.clip(round(float(value)), half, MEAN_FACE_SIZE - half)) for value in centre)
    inverse = np.linalg.inv(np.vstack([transform, [0, 0, 1]]))[:2]
    column, row = np.meshgrid(np.arange(x - half, x + half), np.arange(y - half, y + half))
    source_x = inverse[0, 0] * column + inverse[0, 1] * row + inverse[0, 2]
    source_y = inverse[1, 0] * column + inverse[1, 1] * row + inverse[1, 2]
    left, top = int(np.floor(source_x.min())), int(np.floor(source_y.min()))
    right, bottom = int(np.floor(source_x.max())) + 2, int(np.floor(source_y.max())) + 2
    visible = frame[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    gray = rgb_to_gray(visible) if visible.ndim == 3 else visible
    # the part of the window outside the frame is 0
    window = np.zeros((bottom - top, right - left), np.float32)
    first_row, first_column = max(top, 0) - top, max(left, 0) - left
    window[first_row : first_row + gray.shape[0], first_column : first_column + gray.shape[1]] = gray
    column0, row0 = np.floor(source_x).astype(np.intp), np.floor(source_y).astype(np.intp)
    fx, fy = (source_x - column0).astype(np.float32), (source_y - row0).astype(np.float32)
    flat = window.reshape(-1)
    index = (row0 - top) * window.shape[1] + (column0 - left)
    upper = flat[index] * (1 - fx) + flat[index + 1] * fx
    index += window.shape[1]
    lower = flat[index] * (1 - fx) + flat[index + 1] * fx
    cropped: np.ndarray = (upper * (1 - fy) + lower * fy).astype(np.uint8)
    return cropped
