"""Painting primitives: soft shapes, smooth noise, sampling of a packed frame."""

from __future__ import annotations

import numpy as np

SIZE = 224


# ------------------------------------------------------------------ painting
def cover(distance: np.ndarray, softness: float = 1.0) -> np.ndarray:
    """How much of a pixel lies inside, 0…1, from a signed distance in pixels (negative inside)."""
    return np.clip(0.5 - distance / softness, 0.0, 1.0)


def ellipse(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    """Signed distance (first order) to an ellipse of half axes a, b around the origin."""
    r = np.sqrt((x / a) ** 2 + (y / b) ** 2) + 1e-6
    gradient = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2) / r + 1e-6
    return (r - 1) / gradient


def blob(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    return np.exp(-0.5 * ((x / a) ** 2 + (y / b) ** 2))


def paint(picture: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> None:
    alpha = alpha.astype(picture.dtype, copy=False)
    for channel in range(3):
        plane = picture[..., channel]
        plane += (colour[..., channel] - plane) * alpha


def cloud(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth random values about 0, [H, W]: random numbers on a coarse grid, joined by smooth steps."""
    grid = rng.standard_normal((cells + 2, cells + 2))
    out = grid
    for axis, length in enumerate(shape):
        position = np.linspace(0, cells, length)
        index = np.minimum(position.astype(int), cells)
        part = position - index
        part = part * part * (3 - 2 * part)
        low, high = np.take(out, index, axis), np.take(out, index + 1, axis)
        part = part[:, None] if axis == 0 else part[None, :]
        out = low + (high - low) * part
    return out


def pack(picture: np.ndarray) -> np.ndarray:
    """Four channels 0…255 [224, 224, 4] → uint64 [224 * 224], 16 bits a channel: one product weighs all four."""
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint16).reshape(-1, 4).view(np.uint64).ravel()


def sample(packed: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear samples of a packed picture at (x, y), to 1/16 pixel, edges repeated → float32 [*x.shape, 4], 0…255."""
    column = (np.clip(x, 0, SIZE - 1.07) * np.float32(16)).astype(np.int32)
    row = (np.clip(y, 0, SIZE - 1.07) * np.float32(16)).astype(np.int32)
    fx, fy = (column & 15).astype(np.uint64), (row & 15).astype(np.uint64)
    index = (row >> 4) * SIZE + (column >> 4)
    # the weights add up to 256, so a channel's sum stays within its 16 bits
    both = fx * fy
    sixteen = np.uint64(16)
    total = packed[index] * (np.uint64(256) + both - sixteen * (fx + fy))
    total += packed[index + 1] * (sixteen * fx - both)
    total += packed[index + SIZE] * (sixteen * fy - both)
    total += packed[index + SIZE + 1] * both
    return total.view(np.uint16).reshape(*x.shape, 4) * np.float32(1 / 256)
