"""Second attempts at a face that a detector misses: clearer frames, and parts of a frame."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

SMOOTHING = 5  # pixels; width of the mean against noise
DARKEST, BRIGHTEST = 0.02, 0.98  # quantiles of the gray levels that become black and white
MIN_SPREAD = 8.0  # gray levels between them; less is a flat area, whose noise is not made visible
SMALLEST_TILE = 300  # pixels; the shortest side of a part in which faces are looked for
SURROUNDINGS = 2.5  # side of the square around a face, in sides of its box
LEVELS = 2  # parts of a half and of a quarter of the longer side


def clearer(image: np.ndarray) -> np.ndarray:
    """The image [H, W, 3] with less noise and full contrast, float32 0…255; for dark, backlit and grainy frames."""
    pixels = torch.from_numpy(np.ascontiguousarray(image, np.float32)).permute(2, 0, 1)[None]
    smooth: np.ndarray = (
        F.avg_pool2d(pixels, SMOOTHING, 1, SMOOTHING // 2, count_include_pad=False)[0].permute(1, 2, 0).numpy()
    )
    gray = smooth[::4, ::4].mean(-1)
    low, high = np.quantile(gray, (DARKEST, BRIGHTEST))
    stretched: np.ndarray = np.clip((smooth - low) * np.float32(255 / max(high - low, MIN_SPREAD)), 0, 255)
    return stretched.astype(np.float32)


def square_tiles(height: int, width: int) -> list[list[tuple[int, int, int]]]:
    """Squares (left, top, side) that cover a frame and overlap by a third, larger ones first."""
    levels = []
    for level in range(1, LEVELS + 1):
        side = max(height, width) >> level
        if side < SMALLEST_TILE:
            break
        lefts, tops = (_starts(length, side) for length in (width, height))
        levels.append([(left, top, side) for top in tops for left in lefts])
    return levels


def square_around(box: np.ndarray, height: int, width: int) -> tuple[int, int, int]:
    """The square (left, top, side) around a box, within the frame as far as possible."""
    x, y = (box[:2] + box[2:]) / 2
    side = round(min(max(SURROUNDINGS * float((box[2:] - box[:2]).max()), 32), max(height, width)))
    left, top = (
        int(np.clip(centre - side / 2, 0, max(length - side, 0))) for centre, length in ((x, width), (y, height))
    )
    return left, top, side


def _starts(length: int, side: int) -> list[int]:
    count = max(1, int(np.ceil((length - side) / (side * 2 / 3))) + 1)
    return [round(start) for start in np.linspace(0, max(length - side, 0), count)]
