"""Optional: glasses, beards, moving light, a hand in front of the mouth, a second face, skin and camera as real ones.

Glasses, beards and skin belong to a speaker, light, hands and the lens to a clip. They have random generators of their
own, so that they do not change the bytes of a corpus without them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.corpora.synthetic.look import CENTRE, EYE_X, EYE_Y, Look
from avhubert.corpora.synthetic.painting import SIZE, cover, ellipse, paint
from avhubert.corpora.synthetic.realism import Lens, Skin, draw_lens, draw_skin
from avhubert.errors import ConfigError, one_of

KINDS = ("glasses", "beard", "light", "hands", "faces", "skin", "lens")
SPEAKERS_SHARE = 0.6  # share of the speakers with glasses, and of the even ones (low voices) with a beard
GLINT = np.array((245.0, 248, 250))  # colour, RGB


def check(kinds: tuple[str, ...]) -> None:
    """ConfigError if a kind is unknown."""
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(one_of("extra", kind, KINDS))


@dataclass(frozen=True)
class Lamp:
    """A moving light: its path [frames, 2] in pixels, and its strength."""

    path: np.ndarray
    strength: float

    def draw(self, image: np.ndarray, x: np.ndarray, y: np.ndarray, frame: int) -> None:
        """Light the whole image [SIZE, SIZE, 3]."""
        glow = np.exp(-0.5 * (((x - self.path[frame, 0]) / 90) ** 2 + ((y - self.path[frame, 1]) / 90) ** 2))
        image *= (1 - 0.45 * self.strength + self.strength * glow)[..., None]


@dataclass(frozen=True)
class Hand:
    """A hand: its path [frames, 2] in pixels (NaN while it is out of view), and the colour of its skin."""

    path: np.ndarray
    skin: np.ndarray

    def draw(self, image: np.ndarray, x: np.ndarray, y: np.ndarray, frame: int) -> None:
        """Draw the hand onto the whole image [SIZE, SIZE, 3]."""
        left, top = self.path[frame]
        if np.isnan(left):
            return
        for finger in range(4):
            tilt = x - left - 11.5 * finger - 0.18 * (y - top)
            outline = np.maximum(np.abs(tilt) - 5.4, top + (6, 0, 2, 9)[finger] - y)
            tone = 0.92 - 0.16 * (tilt / 5.4) ** 2
            paint(image, self.skin * tone[..., None], cover(outline, 1.5))
        palm = ellipse(x - left - 18 - 0.18 * (y - top), y - top - 74, 30, 34)
        paint(image, self.skin * 0.88, cover(palm, 1.5))


@dataclass(frozen=True)
class Extras:
    """The extras of one clip; None: not drawn.

    Attributes:
        rim: Colour of the glasses.
        beard: Density of the beard, 0…1.
        lamp: A moving light.
        hand: A hand in front of the mouth.
        skin: Skin, nose, lips and teeth as of real people.
        lens: The blur and the stray light of a lens.
    """

    rim: np.ndarray | None = None
    beard: float | None = None
    lamp: Lamp | None = None
    hand: Hand | None = None
    skin: Skin | None = None
    lens: Lens | None = None

    def draw_under_lips(self, window: np.ndarray, x: np.ndarray, y: np.ndarray, shade: np.ndarray, look: Look) -> None:
        """Draw the beard onto `window` [h, w, 3]; (x, y) canonical, y moves with the jaw."""
        if self.beard is None:
            return
        dx = x - CENTRE
        chin = ellipse(dx, y - look.mouth_y - 4, look.face_width * 0.86, look.chin - look.mouth_y - 2)
        cheeks = np.maximum(chin, look.mouth_y - 22 - y + 0.012 * dx**2)
        moustache = ellipse(dx, y - look.mouth_y + 10, 26, 5.5)
        lips = ellipse(dx, y - look.mouth_y - 1, look.mouth_width + 5, 9)
        area = np.maximum(cover(cheeks, 5), cover(moustache, 3)) * cover(-lips, 3)
        hairs = 0.8 + 0.2 * np.sin(2.7 * x + 1.3 * np.sin(0.9 * y)) * np.sin(1.9 * y + 0.4 * x)
        paint(window, look.hair * (hairs * shade)[..., None], self.beard * area)

    def draw_on_face(self, window: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
        """Draw the glasses onto `window` [h, w, 3]; (x, y) canonical."""
        if self.rim is None:
            return
        rim = np.full(x.shape, np.inf)
        for side in (-1, 1):
            lens = ellipse(x - CENTRE - side * EYE_X, y - EYE_Y - 2, 20, 14.5)
            rim = np.minimum(rim, np.abs(lens) - 1.1)
            stripe = cover(np.abs(x - CENTRE - side * EYE_X + 0.6 * (y - EYE_Y) + 6) - 1.6, 2)
            paint(window, GLINT, 0.28 * (cover(lens + 3, 2) * stripe))
        across = np.abs(x - CENTRE)
        bridge = np.maximum(np.abs(y - EYE_Y + 1 - 0.02 * across**2) - 1.1, across - 8)
        arms = np.maximum(np.abs(y - EYE_Y + 3) - 1.3, np.maximum(46 - across, across - 57))
        paint(window, self.rim, cover(np.minimum(np.minimum(rim, bridge), arms), 1.2))

    def draw_before_head(self, image: np.ndarray, frame: int) -> None:
        """Draw what is between the head and the camera onto the whole image [SIZE, SIZE, 3]."""
        axis = np.arange(SIZE, dtype=np.float32)
        y, x = np.meshgrid(axis, axis, indexing="ij")
        if self.lamp is not None:
            self.lamp.draw(image, x, y, frame)
        if self.hand is not None:
            self.hand.draw(image, x, y, frame)


def draw_extras(kinds: tuple[str, ...], seed: int, speaker: int, index: int, frames: int, look: Look) -> Extras:
    """Choose the extras of clip `index`, a function of (seed, speaker) and (seed, index)."""
    speaker_rng, clip_rng = np.random.default_rng([seed, speaker, 5]), np.random.default_rng([seed, index, 6])
    has_glasses, has_beard = speaker_rng.random(2) < SPEAKERS_SHARE
    rim, density = speaker_rng.uniform(15, 90) * np.array((1.0, 0.85, 0.75)), speaker_rng.uniform(0.55, 0.9)
    time = np.arange(frames) / FRAME_RATE
    phase, speed = clip_rng.uniform(0, 2 * np.pi, 2), clip_rng.uniform(0.2, 0.5, 2)
    lamp = Lamp(CENTRE + 90 * np.sin(2 * np.pi * speed * time[:, None] + phase), float(clip_rng.uniform(0.3, 0.6)))
    hand_path = _hand_path(clip_rng, time)
    hand = Hand(hand_path, look.skin * clip_rng.uniform(0.85, 1.05)) if "hands" in kinds else None
    return Extras(
        rim=rim if "glasses" in kinds and has_glasses else None,
        beard=float(density) if "beard" in kinds and has_beard and speaker % 2 == 0 else None,
        lamp=lamp if "light" in kinds else None,
        hand=hand,
        skin=draw_skin(np.random.default_rng([seed, speaker, 8])) if "skin" in kinds else None,
        lens=draw_lens(np.random.default_rng([seed, index, 9])) if "lens" in kinds else None,
    )


def _hand_path(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    """A hand that rises once into view and sinks: [frames, 2] in pixels, NaN while it is out of view."""
    path = np.full((len(time), 2), np.nan)
    start, duration = rng.uniform(0, max(0.1, len(time) / FRAME_RATE - 0.6)), rng.uniform(0.3, 0.6)
    progress = (time - start) / duration
    visible = (progress >= 0) & (progress < 1)
    rise = np.sin(np.pi * progress[visible])
    path[visible] = np.stack([np.full(len(rise), rng.uniform(70, 120)), 230 - rng.uniform(60, 95) * rise], 1)
    return path
