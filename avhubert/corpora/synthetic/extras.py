"""What real pictures have and the plain drawing has not: glasses, beards, moving light, a hand before the mouth.

Glasses and beards belong to a speaker, light and hands to a clip. They draw from random numbers of their own, so that a
corpus without them has the bytes that it always had.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.corpora.synthetic.look import CENTRE, EYE_X, EYE_Y, Look
from avhubert.corpora.synthetic.painting import SIZE, cover, ellipse, paint
from avhubert.errors import ConfigError, one_of

KINDS = ("glasses", "beard", "light", "hands", "faces")


SPEAKERS_SHARE = 0.6  # of the speakers wear glasses; of the even ones, whose voices are low, as many a beard


def check(kinds: tuple[str, ...]) -> None:
    """ConfigError names a kind that does not exist."""
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(one_of("extra", kind, KINDS))


@dataclass(frozen=True)
class Extras:
    """What is added to one clip of `frames` frames; a part that is None is not drawn.

    rim: colour of the glasses; beard: how dense, 0…1; light: a lamp's path, [frames, 2] in pixels, and its strength;
    hand: its path [frames, 2] (NaN while it is away) and the colour of its skin.
    """

    rim: np.ndarray | None = None
    beard: float | None = None
    light: tuple[np.ndarray, float] | None = None
    hand: tuple[np.ndarray, np.ndarray] | None = None

    def under(self, part: np.ndarray, x: np.ndarray, y: np.ndarray, shade: np.ndarray, look: Look) -> None:
        """What lies beneath the lips, onto `part` [h, w, 3]; (x, y) canonical, y moving with the jaw."""
        if self.beard is None:
            return
        dx = x - CENTRE
        chin = ellipse(dx, y - look.mouth_y - 4, look.face_width * 0.86, look.chin - look.mouth_y - 2)
        cheeks = np.maximum(chin, look.mouth_y - 22 - y + 0.012 * dx**2)
        moustache = ellipse(dx, y - look.mouth_y + 10, 26, 5.5)
        lips = ellipse(dx, y - look.mouth_y - 1, look.mouth_width + 5, 9)
        where = np.maximum(cover(cheeks, 5), cover(moustache, 3)) * cover(-lips, 3)
        hairs = 0.8 + 0.2 * np.sin(2.7 * x + 1.3 * np.sin(0.9 * y)) * np.sin(1.9 * y + 0.4 * x)
        paint(part, look.hair * (hairs * shade)[..., None], self.beard * where)

    def over(self, part: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
        """What lies on the face, onto `part` [h, w, 3]; (x, y) canonical."""
        if self.rim is None:
            return
        rim = np.full(x.shape, np.inf)
        for side in (-1, 1):
            lens = ellipse(x - CENTRE - side * EYE_X, y - EYE_Y - 2, 20, 14.5)
            rim = np.minimum(rim, np.abs(lens) - 1.1)
            glint = cover(lens + 3, 2) * cover(np.abs(x - CENTRE - side * EYE_X + 0.6 * (y - EYE_Y) + 6) - 1.6, 2)
            paint(part, np.array((245.0, 248, 250)), 0.28 * glint)
        across = np.abs(x - CENTRE)
        rim = np.minimum(rim, np.maximum(np.abs(y - EYE_Y + 1 - 0.02 * across**2) - 1.1, across - 8))  # the bridge
        arms = np.maximum(np.abs(y - EYE_Y + 3) - 1.3, np.maximum(46 - across, across - 57))
        paint(part, self.rim, cover(np.minimum(rim, arms), 1.2))

    def before(self, picture: np.ndarray, frame: int) -> None:
        """What lies between the head and the camera, onto the whole picture [SIZE, SIZE, 3]."""
        y, x = np.meshgrid(np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32), indexing="ij")
        if self.light is not None:
            path, strength = self.light
            glow = np.exp(-0.5 * (((x - path[frame, 0]) / 90) ** 2 + ((y - path[frame, 1]) / 90) ** 2))
            picture *= (1 - 0.45 * strength + strength * glow)[..., None]
        if self.hand is not None and not np.isnan(self.hand[0][frame, 0]):
            (left, top), skin = self.hand[0][frame], self.hand[1]
            for finger in range(4):
                tilt = x - left - 11.5 * finger - 0.18 * (y - top)
                long = np.maximum(np.abs(tilt) - 5.4, top + (6, 0, 2, 9)[finger] - y)
                tone = 0.92 - 0.16 * (tilt / 5.4) ** 2
                paint(picture, skin * tone[..., None], cover(long, 1.5))
            palm = ellipse(x - left - 18 - 0.18 * (y - top), y - top - 74, 30, 34)
            paint(picture, skin * 0.88, cover(palm, 1.5))


def draw(kinds: tuple[str, ...], seed: int, speaker: int, index: int, frames: int, look: Look) -> Extras:
    """The extras of clip `index`, a function of (seed, speaker) and (seed, index)."""
    own, rng = np.random.default_rng([seed, speaker, 5]), np.random.default_rng([seed, index, 6])
    wears, grows = own.random(2) < SPEAKERS_SHARE
    rim, dense = own.uniform(15, 90) * np.array((1.0, 0.85, 0.75)), own.uniform(0.55, 0.9)
    time = np.arange(frames) / FRAME_RATE
    phase, speed = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.2, 0.5, 2)
    lamp = CENTRE + 90 * np.sin(2 * np.pi * speed * time[:, None] + phase)
    strength = float(rng.uniform(0.3, 0.6))
    hand = np.full((frames, 2), np.nan)
    start, lasts = rng.uniform(0, max(0.1, frames / FRAME_RATE - 0.6)), rng.uniform(0.3, 0.6)
    inside = (time - start) / lasts
    there = (inside >= 0) & (inside < 1)
    rise = np.sin(np.pi * inside[there])
    hand[there] = np.stack([np.full(len(rise), rng.uniform(70, 120)), 230 - rng.uniform(60, 95) * rise], 1)
    return Extras(
        rim=rim if "glasses" in kinds and wears else None,
        beard=float(dense) if "beard" in kinds and grows and speaker % 2 == 0 else None,
        light=(lamp, strength) if "light" in kinds else None,
        hand=(hand, look.skin * rng.uniform(0.85, 1.05)) if "hands" in kinds else None,
    )
