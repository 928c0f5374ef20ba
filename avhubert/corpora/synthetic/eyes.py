"""Draws the eyes of a frame: lids, iris, lashes; and when they blink."""

from __future__ import annotations

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.corpora.synthetic.look import Look
from avhubert.corpora.synthetic.painting import cover, paint

WINDOW = (15, 12)  # pixels around an eye that are drawn anew


def draw_blinks(rng: np.random.Generator, total: int) -> np.ndarray:
    """How far the lids are shut in each frame, 0…1 [T]: a blink of 0.2 s every few seconds."""
    lids = np.full(total, 0.12)
    blink = rng.uniform(0, 3.0) * FRAME_RATE
    while blink < total:
        lids = np.maximum(lids, np.clip(1.35 - np.abs(np.arange(total) - blink) / 2.2, 0, 1))
        blink += rng.uniform(1.6, 4.5) * FRAME_RATE
    return lids


def draw_eye(window: np.ndarray, look: Look, u: np.ndarray, v: np.ndarray, shade: np.ndarray, lid: float) -> None:
    """Draw an eye onto `window` [h, w, 3]; (u, v) [h, w] from its centre, `lid` 0 open … 1 shut."""
    shade = shade[..., None]
    bow = np.sqrt(np.clip(1 - (u / 11.5) ** 2, 0, 1))
    upper = -look.eye_height * bow * (1 - lid) + 2.2 * lid * bow
    lower = look.eye_height * 0.62 * bow
    opening = cover(upper - v, 1.2) * cover(v - lower, 1.2) * cover(np.abs(u) - 11.2, 1.2)
    white = np.array((232, 228, 222)) * shade * (0.80 + 0.2 * np.clip((v - upper) / 4, 0, 1))[..., None]
    eye = np.broadcast_to(white, window.shape).copy()
    r = np.hypot(u, v + 0.6)
    paint(eye, look.iris * 0.55, cover(r - 5.4))
    paint(eye, look.iris * (1.15 - 0.3 * cover(v + 1.5, 4))[..., None], cover(r - 4.5))
    paint(eye, np.array((14.0, 12, 12)), cover(r - 2.3))
    paint(eye, np.array((250.0, 250, 250)), cover(np.hypot(u - 1.7, v + 2.4) - 0.9))
    window += (eye - window) * opening[..., None]
    near = cover(np.abs(u) - 12, 1.5)
    paint(window, look.hair * 0.25, 0.9 * cover(np.abs(v - upper) - 0.75, 1.2) * near)
    paint(window, look.skin * 0.55 * shade, 0.4 * cover(np.abs(v - lower) - 0.4, 1.2) * near)
    crease = upper - 3.2
    paint(window, look.skin * 0.55 * shade, 0.5 * cover(np.abs(v - crease) - 0.4, 1.4) * cover(np.abs(u) - 10, 2))
