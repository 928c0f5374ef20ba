"""Draws the mouth of a frame: lips, teeth, tongue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avhubert.corpora.synthetic.look import Look
from avhubert.corpora.synthetic.painting import blob, cover, ellipse, paint
from avhubert.corpora.synthetic.visemes import MouthShapes

WINDOW = (33, 33)  # pixels around the mouth that are drawn anew
DARK = np.array((38.0, 13, 15))  # colours, RGB
TONGUE_SHADOW, TONGUE_TIP = np.array((112.0, 44, 48)), np.array((196.0, 98, 98))
TEETH_EDGE = np.array((70.0, 40, 38))


@dataclass(frozen=True)
class MouthShape:
    """The mouth in one frame: the fields of `MouthShapes` as numbers."""

    gap: float
    width: float
    rounding: float
    tongue: float
    bite: float
    tuck: float
    press: float

    @classmethod
    def at(cls, shapes: MouthShapes, frame: int) -> MouthShape:
        """The shape in one frame."""
        return cls(
            gap=float(shapes.gap[frame]),
            width=float(shapes.width[frame]),
            rounding=float(shapes.rounding[frame]),
            tongue=float(shapes.tongue[frame]),
            bite=float(shapes.bite[frame]),
            tuck=float(shapes.tuck[frame]),
            press=float(shapes.press[frame]),
        )


@dataclass(frozen=True)
class Lips:
    """The outline of the lips in canonical pixels.

    Attributes:
        half: Half the width of the mouth.
        inner: Half the width of the opening.
        up: From the closed lips' seam to the inner edge of the upper lip.
        down: From the closed lips' seam to the inner edge of the lower lip.
        upper: Thickness of the upper lip.
        lower: Thickness of the lower lip.
        power: Exponent of the opening's curve.
    """

    half: float
    inner: float
    up: float
    down: float
    upper: float
    lower: float
    power: float

    @property
    def gap(self) -> float:
        """Between the inner edges of the lips in the middle of the mouth."""
        return self.up + self.down

    @classmethod
    def of(cls, look: Look, shape: MouthShape) -> Lips:
        """The lips of a speaker in a mouth shape."""
        width, rounding, tuck = shape.width, shape.rounding, shape.tuck
        gap = shape.gap * look.widest_gap * look.articulation
        up, down = 0.20 * gap, 0.80 * gap
        # F and V: the upper lip uncovers the teeth, the lower lip touches their edge
        up += (3.4 - up) * tuck
        down += (0.4 - down) * tuck
        half = look.mouth_width * (1 + 0.20 * width * (1 if width > 0 else 1.7)) * (1 - 0.05 * shape.gap)
        fullness = 1 + 0.15 * rounding - 0.12 * max(width, 0) - 0.42 * shape.press
        return cls(
            half=half,
            inner=half * (0.90 - 0.14 * rounding),
            up=up,
            down=down,
            upper=look.upper_lip * fullness * (1 - 0.25 * tuck),
            lower=look.lower_lip * fullness * (1 - 0.45 * tuck),
            power=0.6 + 0.1 * rounding,
        )


@dataclass(frozen=True)
class _Edges:
    """The edges of the lips at each column of a window, arrays [h, w]; `s` is 0 in the middle and 1 at the corners."""

    s: np.ndarray
    seam: np.ndarray
    top_outer: np.ndarray
    top_inner: np.ndarray
    low_inner: np.ndarray
    low_outer: np.ndarray

    @classmethod
    def of(cls, lips: Lips, u: np.ndarray) -> _Edges:
        s = np.clip(np.abs(u) / lips.half, 0, 1)
        i = np.clip(np.abs(u) / lips.inner, 0, 1)
        inner = np.clip(1 - i * i, 0, 1) ** lips.power
        corner = 1.2 * s * s  # the corners are a little lower
        seam = corner - 0.5 * np.exp(-((u / 4) ** 2))
        top_inner = seam - lips.up * inner
        low_inner = seam + lips.down * inner
        bow = (1 - s * s) * (1 - 0.22 * np.exp(-((u / 3.6) ** 2)))
        bow = bow * (1 + 0.16 * np.exp(-(((np.abs(u) - 6) / 4) ** 2)))
        return cls(
            s=s,
            seam=seam,
            top_outer=top_inner - lips.upper * bow,
            top_inner=top_inner,
            low_inner=low_inner,
            low_outer=low_inner + lips.lower * np.sqrt(1 - s * s * s),
        )


def draw_mouth(
    window: np.ndarray, look: Look, u: np.ndarray, v: np.ndarray, shade: np.ndarray, shape: MouthShape
) -> None:
    """Draw the mouth onto `window` [h, w, 3]; (u, v) [h, w] from the middle of the closed lips."""
    lips = Lips.of(look, shape)
    edges = _Edges.of(lips, u)
    across = cover(np.abs(u) - lips.half, 1.5)
    slope = 1 + 0.5 * edges.s  # edges are slanted near the corners
    # shadow under the lower lip, then the lips, then what is between them
    shadow = 0.38 * np.exp(-(((v - edges.low_outer - 3) / 2.6) ** 2)) * (1 - edges.s * edges.s)
    paint(window, look.skin * 0.62 * shade[..., None], shadow)
    whole = cover((edges.top_outer - v) / slope, 1.4) * cover((v - edges.low_outer) / slope, 1.4) * across
    window += (_lip_colour(look, edges, u, v, shade) - window) * whole[..., None]
    if lips.gap > 0:
        hole = (
            cover((edges.top_inner - v) / slope, 1.1)
            * cover((v - edges.low_inner) / slope, 1.1)
            * cover(np.abs(u) - lips.inner, 1.1)
        )
        window += (_inside(look, lips, edges, u, v, shape) - window) * hole[..., None]
    line = cover(np.abs(v - edges.seam) - 0.55, 1.4) * across * max(0.0, 1 - lips.gap / 2.5)
    paint(window, look.lips * 0.32, 0.85 * line)
    for side in (-1, 1):
        paint(window, look.skin * 0.42, 0.5 * blob(u - side * lips.half, v - 1.2, 1.6, 1.3))


def _lip_colour(look: Look, edges: _Edges, u: np.ndarray, v: np.ndarray, shade: np.ndarray) -> np.ndarray:
    depth_up = np.clip((v - edges.top_outer) / np.maximum(edges.top_inner - edges.top_outer, 0.5), 0, 1)
    depth_low = np.clip((v - edges.low_inner) / np.maximum(edges.low_outer - edges.low_inner, 0.5), 0, 1)
    is_low = v > 0.5 * (edges.top_inner + edges.low_inner)
    tone = np.where(
        is_low, 1.02 + 0.14 * np.sin(np.pi * np.clip(depth_low, 0, 1)) - 0.12 * depth_low, 0.90 - 0.16 * depth_up
    )
    tone = tone * (1 - 0.04 * np.cos(u * 1.9)) * shade
    gleam = 0.20 * np.exp(-(((depth_low - 0.38) / 0.16) ** 2) - (u / 9) ** 2) * is_low
    colour: np.ndarray = look.lips * tone[..., None] + 255 * gleam[..., None] * np.minimum(shade, 1)[..., None]
    return colour


def _inside(look: Look, lips: Lips, edges: _Edges, u: np.ndarray, v: np.ndarray, shape: MouthShape) -> np.ndarray:
    """Colours between the lips: dark hollow, tongue, lower and upper teeth."""
    bite, tongue, rounding = shape.bite, shape.tongue, shape.rounding
    image: np.ndarray = np.ones((*u.shape, 3)) * DARK
    # the tongue at rest is behind the lower teeth
    resting = ellipse(u, v - lips.down - 1.0, lips.inner * 0.60, 0.8 + 0.22 * lips.down)
    paint(image, TONGUE_SHADOW, 0.80 * cover(resting, 3.0))
    arch = np.clip(np.abs(u) / (lips.inner * 1.02), 0, 1) ** 2
    dim = (1 - 0.45 * arch) * (1 - 0.35 * rounding)
    gaps = 1 - 0.16 * np.exp(-((np.abs(np.mod(u + 100 * 5.2, 5.2) - 2.6) / 0.45) ** 2))
    enamel = look.teeth * (dim * gaps)[..., None]
    # the upper teeth do not move, the lower ones move with the jaw
    edge = -1.4 + 3.4 * (1 - 0.35 * arch)
    lower_edge = lips.down - 0.8 + (edge + 0.6 - lips.down + 0.8) * bite
    lower = cover(lower_edge - v, 1.0) * (0.25 + 0.75 * bite)
    paint(image, enamel * 0.90, lower)
    upper = cover(v - edge, 1.0) * (1 - 0.55 * rounding * (1 - bite)) * max(shape.tuck, 1 - 0.15 * tongue)
    paint(image, enamel, upper)
    paint(image, TEETH_EDGE, 0.55 * bite * cover(np.abs(v - edge - 0.3) - 0.3, 1.0))
    if tongue > 0.02:
        tip = ellipse(u, v - edge - 3.5 + 2.2 * tongue, lips.inner * 0.46, 3.6)
        paint(image, TONGUE_TIP, tongue * cover(tip, 1.4))
    image *= (0.62 + 0.38 * np.clip((v - edges.top_inner) / 2.5, 0, 1))[..., None]
    image *= (0.75 + 0.25 * np.clip((edges.low_inner - v) / 1.5, 0, 1))[..., None]
    return image
