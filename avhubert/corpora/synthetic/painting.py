"""Painting primitives: soft shapes, smooth noise, sampling of a packed image.

Images are float [H, W, 3] RGB, 0…255.
"""

from __future__ import annotations

import numpy as np

SIZE = 224  # pixels; width and height of a face's video


def cover(distance: np.ndarray, softness: float = 1.0) -> np.ndarray:
    """How much of a pixel is inside, 0…1, from a signed distance in pixels (negative inside)."""
    return np.clip(0.5 - distance / softness, 0.0, 1.0)


def ellipse(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    """Signed distance (first order) to an ellipse of half axes a, b around the origin."""
    r = np.sqrt((x / a) ** 2 + (y / b) ** 2) + 1e-6
    gradient = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2) / r + 1e-6
    return (r - 1) / gradient


def blob(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    """A Gaussian of height 1 and standard deviations a, b around the origin."""
    return np.exp(-0.5 * ((x / a) ** 2 + (y / b) ** 2))


def paint(image: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> None:
    """Blend a colour, [3] or [H, W, 3], into an image with the weight `alpha` [H, W]."""
    alpha = alpha.astype(image.dtype, copy=False)
    for channel in range(3):
        plane = image[..., channel]
        plane += (colour[..., channel] - plane) * alpha


def cloud(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth random values around 0, [H, W]: random numbers on a coarse grid, interpolated smoothly."""
    values = rng.standard_normal((cells + 2, cells + 2))
    for axis, length in enumerate(shape):
        position = np.linspace(0, cells, length)
        index = np.minimum(position.astype(int), cells)
        part = position - index
        part = part * part * (3 - 2 * part)
        low, high = np.take(values, index, axis), np.take(values, index + 1, axis)
        part = part[:, None] if axis == 0 else part[None, :]
        values = low + (high - low) * part
    return values


def pack(image: np.ndarray) -> np.ndarray:
    """Four channels 0…255 [224, 224, 4] → uint64 [224 * 224], 16 bits per channel: one product weights all four."""
    packed: np.ndarray = np.rint(np.clip(image, 0, 255)).astype(np.uint16).reshape(-1, 4).view(np.uint64).ravel()
    return packed


def sample(packed: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear samples of a packed image at (x, y), to 1/16 pixel, edges repeated → float32 [*x.shape, 4], 0…255."""
    column = (np.clip(x, 0, SIZE - 1.07) * np.float32(16)).astype(np.int32)
    row = (np.clip(y, 0, SIZE - 1.07) * np.float32(16)).astype(np.int32)
    fx, fy = (column & 15).astype(np.uint64), (row & 15).astype(np.uint64)
    index = (row >> 4) * SIZE + (column >> 4)
    # the weights sum to 256, so that the sum of a channel fits into its 16 bits
    both = fx * fy
    sixteen = np.uint64(16)
    total = packed[index] * (np.uint64(256) + both - sixteen * (fx + fy))
    total += packed[index + 1] * (sixteen * fx - both)
    total += packed[index + SIZE] * (sixteen * fy - both)
    total += packed[index + SIZE + 1] * both
    values: np.ndarray = total.view(np.uint16).reshape(*x.shape, 4) * np.float32(1 / 256)
    return values
