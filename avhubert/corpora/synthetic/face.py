"""Talking faces drawn with numpy: a look per speaker, a mouth driven by visemes with coarticulation.

A face lives in a canonical 224×224 plane in which the eyes, nose and mouth lie where the mean face of the published
preparation has them, moved to the middle. Still parts are painted once per clip; every frame warps them (head motion,
dropping jaw) and draws the lips, teeth, tongue and eyelids anew, at their final place, so that they stay sharp.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.corpora.synthetic.voice import Segment

if TYPE_CHECKING:
    from avhubert.corpora.synthetic.extras import Extras

SIZE = 224
CENTRE = 112.0
EYE_Y, NOSE_Y, MOUTH_Y = 96.0, 139.0, 160.0
EYE_X = 27.0  # half the distance between the eyes' centres
PIVOT_Y = 130.0  # the head turns about the point (CENTRE, PIVOT_Y)
MARGIN = 10  # how far the head may move, in pixels

# ------------------------------------------------------------------ from phones to mouth shapes
# opening 0…1, width -1 rounded … 1 spread, rounding 0…1, tongue tip at the teeth 0…1, teeth set edge to edge 0…1,
# and how strongly the phone insists on this against its neighbours
_VISEMES: dict[str, tuple[float, float, float, float, float, float]] = {
    "i": (0.21, 0.95, 0.0, 0.0, 0.6, 1.0),
    "ɪ": (0.30, 0.55, 0.0, 0.0, 0.3, 0.8),
    "e": (0.48, 0.65, 0.0, 0.0, 0.1, 1.0),
    "ɛ": (0.58, 0.45, 0.0, 0.0, 0.0, 1.0),
    "æ": (0.82, 0.55, 0.0, 0.0, 0.0, 1.0),
    "a": (0.92, 0.25, 0.0, 0.0, 0.0, 1.0),
    "ɑ": (1.00, 0.00, 0.0, 0.0, 0.0, 1.0),
    "ɐ": (0.45, 0.15, 0.0, 0.0, 0.0, 0.6),
    "ʌ": (0.62, 0.10, 0.0, 0.0, 0.0, 1.0),
    "ə": (0.38, 0.05, 0.0, 0.0, 0.0, 0.5),
    "ɜ": (0.42, -0.25, 0.3, 0.0, 0.0, 0.9),
    "ɚ": (0.36, -0.25, 0.3, 0.0, 0.0, 0.8),
    "ɒ": (0.80, -0.35, 0.4, 0.0, 0.0, 1.0),
    "ɔ": (0.58, -0.60, 0.7, 0.0, 0.0, 1.0),
    "o": (0.44, -0.70, 0.8, 0.0, 0.0, 1.0),
    "ʊ": (0.24, -0.85, 0.9, 0.0, 0.0, 1.0),
    "u": (0.20, -1.00, 1.0, 0.0, 0.0, 1.2),
    "ʉ": (0.20, -0.85, 0.9, 0.0, 0.0, 1.2),
    "p": (0.00, 0.05, 0.0, 0.0, 0.0, 1.0),
    "b": (0.00, 0.05, 0.0, 0.0, 0.0, 1.0),
    "m": (0.00, 0.05, 0.0, 0.0, 0.0, 1.0),
    "f": (0.20, 0.15, 0.0, 0.0, 0.0, 1.2),
    "v": (0.20, 0.15, 0.0, 0.0, 0.0, 1.2),
    "θ": (0.24, 0.15, 0.0, 1.0, 0.0, 1.6),
    "ð": (0.24, 0.15, 0.0, 1.0, 0.0, 1.6),
    "t": (0.16, 0.30, 0.0, 0.5, 0.5, 0.8),
    "d": (0.16, 0.30, 0.0, 0.5, 0.5, 0.8),
    "n": (0.18, 0.25, 0.0, 0.6, 0.2, 0.8),
    "ɾ": (0.26, 0.20, 0.0, 0.5, 0.2, 0.6),
    "s": (0.13, 0.60, 0.0, 0.0, 1.0, 1.4),
    "z": (0.13, 0.60, 0.0, 0.0, 1.0, 1.4),
    "l": (0.34, 0.25, 0.0, 0.9, 0.0, 1.0),
    "ʃ": (0.19, -0.55, 0.8, 0.0, 1.0, 1.4),
    "ʒ": (0.19, -0.55, 0.8, 0.0, 1.0, 1.4),
    "k": (0.34, 0.20, 0.0, 0.0, 0.0, 0.5),
    "ɡ": (0.34, 0.20, 0.0, 0.0, 0.0, 0.5),
    "ŋ": (0.34, 0.20, 0.0, 0.0, 0.0, 0.5),
    "ʔ": (0.30, 0.10, 0.0, 0.0, 0.0, 0.2),
    "h": (0.40, 0.10, 0.0, 0.0, 0.0, 0.3),
    "j": (0.26, 0.70, 0.0, 0.0, 0.5, 0.9),
    "ɹ": (0.21, -0.50, 0.7, 0.0, 0.2, 1.0),
    "r": (0.22, -0.35, 0.5, 0.3, 0.2, 1.0),
    "w": (0.13, -1.00, 1.0, 0.0, 0.0, 1.6),
    "ʍ": (0.13, -1.00, 1.0, 0.0, 0.0, 1.6),
    "ᵻ": (0.30, 0.45, 0.0, 0.0, 0.2, 0.6),
    # Russian, in espeak-ng's letters
    "y": (0.32, 0.40, 0.0, 0.0, 0.2, 1.0),
    "ɵ": (0.40, -0.60, 0.7, 0.0, 0.0, 0.9),
    "ɭ": (0.34, 0.15, 0.0, 0.8, 0.0, 1.0),
    "ʑ": (0.20, 0.10, 0.3, 0.0, 1.0, 1.4),
    "x": (0.38, 0.10, 0.0, 0.0, 0.0, 0.4),
}
_REST = (0.0, 0.0, 0.0, 0.0, 0.0, 1.2)
_LIPS_TOGETHER, _LIP_TO_TEETH = "pbm", "fv"
_STEP = 0.005  # seconds between the points at which targets are blended
_SPREAD = 0.045  # seconds: how far a phone reaches into its neighbours
_SHUT = 0.07  # seconds: the shortest closure, so that a frame of 40 ms always shows it


@dataclass(frozen=True)
class MouthShapes:
    """The mouth in each video frame, arrays [T].

    `gap` (0…1 of the speaker's widest) between the lips, exactly 0 while they are shut; `width` -1 rounded … 1 spread;
    `rounding`, `tongue` (tip at the upper teeth), `bite` (teeth edge to edge) and `tuck` (lower lip at the upper teeth,
    as in F) 0…1; `press` (lips pressed together, as in P) 0…1.
    """

    gap: np.ndarray
    width: np.ndarray
    rounding: np.ndarray
    tongue: np.ndarray
    bite: np.ndarray
    tuck: np.ndarray
    press: np.ndarray


def mouth_shapes(phones: Sequence[Segment], frames: int) -> MouthShapes:
    """Mouth shapes of `frames` video frames (frame t shows time (t + ½) / 25 s) for phones with times in seconds.

    Each phone pulls towards its viseme with a strength that falls off around it (dominance blending, Cohen and Massaro
    1993); closures of P, B, M and the bite of F, V are then imposed, since coarticulation never opens them.
    """
    seconds = (frames + 1) / FRAME_RATE
    times = np.arange(0, seconds, _STEP)
    targets, spans = _targets(phones, seconds)
    start, end = spans[:, :1], spans[:, 1:]
    outside = np.maximum(np.maximum(start - times, times - end), 0.0)
    weight = targets[:, 5:] * np.exp(-((outside / _SPREAD) ** 2)) + 1e-9
    opening, width, rounding, tongue, bite = (targets[:, :5].T @ weight) / weight.sum(0)
    # the tongue and the teeth follow at once, the lips and the jaw with inertia
    opening, width, rounding = (_smooth(values, 0.018) for values in (opening, width, rounding))
    shut = _imposed(phones, times, _LIPS_TOGETHER)
    tuck = _imposed(phones, times, _LIP_TO_TEETH)
    gap = opening * (1 - shut)
    gap[gap < 0.02] = 0.0
    at = (np.arange(frames) + 0.5) / FRAME_RATE
    pick = np.minimum(np.rint(at / _STEP).astype(int), len(times) - 1)
    return MouthShapes(*(values[pick] for values in (gap, width, rounding, tongue, bite, tuck, shut)))


def _targets(phones: Sequence[Segment], seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Targets [K, 6] and their times [K, 2]; a diphthong or affricate gives two, a pause lips at rest."""
    rows, spans = [], []
    cursor = 0.0
    for phone in phones:
        if phone.start - cursor > 0.03:
            rows.append(_REST)
            spans.append((cursor, phone.start))
        parts = [_VISEMES[letter] for letter in phone.label if letter in _VISEMES]
        cuts = np.linspace(phone.start, phone.end, len(parts) + 1)
        rows.extend(parts)
        spans.extend(itertools.pairwise(cuts))
        cursor = phone.end
    rows.append(_REST)
    spans.append((cursor + 0.03, max(seconds, cursor + 0.03)))
    return np.array(rows), np.array(spans)


def _imposed(phones: Sequence[Segment], times: np.ndarray, labels: str) -> np.ndarray:
    """1 where a phone of `labels` holds its place, falling smoothly to 0 within 50 ms around it."""
    value = np.zeros_like(times)
    for phone in phones:
        if phone.label[0] in labels:
            # a stop's end is its burst: the lips are off each other by then
            end = phone.end - 0.35 * (phone.end - phone.start)
            start = min(phone.start, end - _SHUT)
            distance = np.maximum(np.maximum(start - times, times - end), 0.0)
            value = np.maximum(value, 0.5 + 0.5 * np.cos(np.pi * np.clip(distance / 0.05, 0, 1)))
    return value


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    reach = int(3 * sigma / _STEP)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * _STEP / sigma) ** 2)
    return np.convolve(np.pad(values, reach, mode="edge"), kernel / kernel.sum(), mode="valid")


# ------------------------------------------------------------------ looks
_SKINS = ((244, 208, 180), (232, 188, 156), (214, 164, 128), (186, 134, 98), (146, 98, 68), (108, 72, 52))
_HAIRS = ((38, 28, 24), (70, 46, 30), (112, 74, 44), (168, 124, 72), (206, 170, 110), (128, 60, 34), (150, 148, 146))
_IRISES = ((74, 50, 32), (96, 72, 40), (70, 104, 138), (84, 112, 80), (104, 112, 118))
_CLOTHES = ((52, 66, 96), (120, 44, 48), (60, 92, 74), (66, 62, 70), (172, 160, 140), (40, 40, 46), (96, 76, 110))
_WALLS = ((176, 184, 190), (150, 162, 150), (190, 176, 158), (104, 116, 132), (84, 80, 88), (160, 140, 132))


@dataclass(frozen=True)
class Look:
    """What a speaker looks like; lengths in canonical pixels, colours RGB 0…255."""

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    clothes: np.ndarray
    lips: np.ndarray
    teeth: np.ndarray
    face_width: float
    chin: float
    jaw: float  # 0 pointed … 1 square
    forehead: float
    hair_style: int  # 0 short, 1 long, 2 fringe, 3 receding
    brow: float
    eye_height: float
    nose_width: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    widest_gap: float
    articulation: float
    stubble: float
    mouth_y: float


def speaker_look(seed: int, speaker: int) -> Look:
    """The look of a speaker, a function of (seed, speaker); even speakers may have stubble, odd ones longer hair."""
    rng = np.random.default_rng([seed, speaker, 3])
    high = speaker % 2 == 1
    tone = int(rng.integers(len(_SKINS)))
    skin = np.array(_SKINS[tone], float) + rng.uniform(-8, 8, 3)
    hairs = _HAIRS[: 3 if tone > 2 else len(_HAIRS)]
    made_up = high and rng.random() < 0.5
    lips = skin * (0.80, 0.58, 0.58) + rng.uniform(-6, 6, 3)
    if made_up:
        lips = 0.5 * lips + 0.5 * np.array((176, 44, 60))
    return Look(
        skin=skin,
        hair=np.array(hairs[rng.integers(len(hairs))], float) + rng.uniform(-6, 6, 3),
        iris=np.array(_IRISES[rng.integers(len(_IRISES) if tone < 3 else 2)], float),
        clothes=np.array(_CLOTHES[rng.integers(len(_CLOTHES))], float),
        lips=lips,
        teeth=np.array((238, 232, 216), float) - rng.uniform(0, 22),
        face_width=rng.uniform(55, 61) - 2 * high,
        chin=rng.uniform(197, 204) - 2 * high,
        jaw=rng.uniform(0.0, 0.6) if high else rng.uniform(0.35, 1.0),
        forehead=rng.uniform(54, 62),
        hair_style=int(rng.choice((1, 1, 2)) if high else rng.choice((0, 0, 2, 3))),
        brow=rng.uniform(1.3, 2.0) if high else rng.uniform(1.9, 3.0),
        eye_height=rng.uniform(4.6, 6.2),
        nose_width=rng.uniform(8.5, 12.0),
        mouth_width=rng.uniform(21.5, 24.0),
        upper_lip=rng.uniform(4.2, 5.8),
        lower_lip=rng.uniform(5.8, 7.8),
        widest_gap=rng.uniform(26, 29),
        articulation=rng.uniform(0.95, 1.1),
        stubble=0.0 if high else float(rng.choice((0.0, 0.0, 0.12, 0.22))),
        mouth_y=MOUTH_Y + rng.uniform(-2, 2),
    )


# ------------------------------------------------------------------ painting
def _cover(distance: np.ndarray, softness: float = 1.0) -> np.ndarray:
    """How much of a pixel lies inside, 0…1, from a signed distance in pixels (negative inside)."""
    return np.clip(0.5 - distance / softness, 0.0, 1.0)


def _ellipse(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    """Signed distance (first order) to an ellipse of half axes a, b around the origin."""
    r = np.sqrt((x / a) ** 2 + (y / b) ** 2) + 1e-6
    gradient = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2) / r + 1e-6
    return (r - 1) / gradient


def _blob(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    return np.exp(-0.5 * ((x / a) ** 2 + (y / b) ** 2))


def _paint(picture: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> None:
    alpha = alpha.astype(picture.dtype, copy=False)
    for channel in range(3):
        plane = picture[..., channel]
        plane += (colour[..., channel] - plane) * alpha


def _cloud(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
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


class Face:
    """One clip's talking face: paint once, then `frames` yields uint8 [224, 224, 3] RGB pictures."""

    def __init__(self, look: Look, rng: np.random.Generator, extras: Extras | None = None) -> None:
        """Paint the still parts; `rng` decides the scene (wall, light), the head's motion, blinks and camera noise."""
        self.look = look
        self._rng = rng
        self._extras = extras
        axis = np.arange(SIZE, dtype=np.float32)
        y, x = np.meshgrid(axis, axis, indexing="ij")
        angle = rng.uniform(-0.9, 0.9)
        self._light = (np.sin(angle), -rng.uniform(0.25, 0.6))
        self._warmth = np.array((1 + rng.uniform(-0.05, 0.05), 1.0, 1 + rng.uniform(-0.06, 0.06)))
        self._gain = rng.uniform(0.9, 1.08)
        self._noise_level = rng.uniform(1.0, 3.2)
        self._head = _pack(self._paint_head(x, y))
        self._scene = self._paint_scene(x, y).astype(np.float32)
        noise = rng.standard_normal((SIZE + 64, SIZE + 64, 3)).astype(np.float32)
        noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / np.float32(3**0.5)
        self._noise = (noise * self._noise_level).astype(np.float32)

    # -------------------------------------------------------------- still parts
    def _shade(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Light on the head, about 1: a Lambertian egg."""
        nx = np.clip((x - CENTRE) / (self.look.face_width * 1.12), -0.98, 0.98)
        ny = np.clip((y - 122) / 100, -0.98, 0.98)
        nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0.04))
        lx, ly = self._light
        lz = np.sqrt(max(1 - lx * lx * 0.5 - ly * ly, 0.2))
        return 0.62 + 0.42 * (nx * lx * 0.7 + ny * ly + nz * lz)

    def _half_width(self, y: np.ndarray) -> np.ndarray:
        """Half the head's width at height y (0 outside)."""
        look = self.look
        top, middle = look.forehead - 26, 108.0
        upper = np.sqrt(np.clip(1 - ((middle - y) / (middle - top)) ** 2, 0, 1))
        fall = np.clip((y - middle) / (look.chin - middle), 0, 1)
        lower = (1 - fall ** (2.3 + 1.3 * look.jaw)) ** (0.62 - 0.08 * look.jaw)
        return look.face_width * np.where(y < middle, upper, lower)

    def _paint_head(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The head without mouth and with open eyes' sockets: premultiplied RGBA [224, 224, 4], 0…255."""
        look, rng = self.look, self._rng
        skin = look.skin
        dx = x - CENTRE
        picture = np.ones((SIZE, SIZE, 3)) * skin
        half = self._half_width(y)
        rows = np.gradient(half[:, 0])[:, None]
        head = (np.abs(dx) - half) / np.sqrt(1 + np.clip(rows, -4, 4) ** 2)
        head = np.maximum(head, np.maximum(look.forehead - 26 - y, y - look.chin))
        inside = _cover(head, 1.4)
        # cheeks, sockets, the hollow under the lip, folds
        for side in (-1, 1):
            _paint(picture, skin * (1.0, 0.82, 0.80), 0.28 * _blob(dx - side * 34, y - 138, 13, 10))
            _paint(picture, skin * 0.72, 0.42 * _blob(dx - side * EYE_X, y - EYE_Y + 3, 14, 8))
            _paint(picture, skin * 0.78, 0.30 * _blob(dx - side * EYE_X, y - EYE_Y - 11, 12, 3))
            fold = np.abs(dx - side * (13 + (y - 136) * 0.55)) / 1.6
            _paint(picture, skin * 0.74, 0.20 * np.exp(-(fold**2)) * _cover(np.abs(y - 148) - 10, 8))
        # nose: lit ridge, shaded sides, wings, nostrils, shadow below
        ridge = _cover(np.abs(y - 114) - 22, 14)
        _paint(picture, np.minimum(skin * 1.16, 255), 0.45 * np.exp(-((dx / 3.2) ** 2)) * ridge)
        for side in (-1, 1):
            _paint(picture, skin * 0.72, 0.34 * np.exp(-(((dx - side * 7) / 3.4) ** 2)) * ridge)
            wing = _ellipse(dx - side * look.nose_width * 0.78, y - NOSE_Y + 3, look.nose_width * 0.42, 5.2)
            _paint(picture, skin * 0.86, 0.7 * _cover(wing, 3))
            nostril = _ellipse(dx - side * look.nose_width * 0.48, y - NOSE_Y - 0.5, look.nose_width * 0.25, 1.7)
            _paint(picture, skin * 0.30, 0.85 * _cover(nostril, 1.6))
        _paint(picture, np.minimum(skin * 1.12, 255), 0.55 * _blob(dx, y - NOSE_Y + 6, 5, 4))
        _paint(picture, skin * 0.66, 0.35 * _blob(dx, y - NOSE_Y - 4.5, look.nose_width, 2.6))
        _paint(picture, skin * 0.84, 0.35 * np.exp(-((dx / 2.2) ** 2)) * _cover(np.abs(y - 148) - 4, 4))
        if look.stubble:
            beard = _cover(np.abs(y - 178) - 30, 22) * (1 - 0.5 * _blob(dx, y - 150, 30, 8))
            grain = 1 + 0.35 * rng.standard_normal((SIZE, SIZE))
            _paint(picture, look.hair * 0.8 + 20, np.clip(look.stubble * beard * grain * 1.8, 0, 0.8))
        # eyebrows
        for side in (-1, 1):
            u = (dx - side * (EYE_X + 1)) * side
            arch = EYE_Y - 14.5 - 2.6 * np.cos(u / 11) + 0.05 * u
            thick = look.brow * np.clip(1.15 - 0.045 * np.abs(u + 3), 0.25, 1)
            brow = np.maximum(np.abs(y - arch) - thick, np.abs(u) - 14)
            _paint(picture, look.hair * 0.75, 0.88 * _cover(brow, 1.8))
        # ears
        ears = np.full_like(head, 1e3)
        for side in (-1, 1):
            ear = _ellipse(dx - side * (look.face_width + 1.5), y - 116, 7, 15)
            outside = 1 - inside
            _paint(picture, skin * (0.94, 0.84, 0.82), _cover(ear, 1.4) * outside)
            _paint(picture, skin * 0.6, 0.6 * _blob(dx - side * (look.face_width + 2.5), y - 115, 2.2, 8) * outside)
            ears = np.minimum(ears, ear)
        picture *= self._shade(x, y)[..., None]
        picture *= 1 - 0.16 * np.exp(-((np.minimum(head, 0) / 7) ** 2))[..., None]
        picture += 1.3 * _cloud(rng, (SIZE, SIZE), 40)[..., None]
        alpha = np.maximum(inside, _cover(ears, 1.4))
        hair_alpha, hair = self._paint_hair(dx, y)
        picture += (hair - picture) * hair_alpha[..., None]
        alpha = np.maximum(alpha, hair_alpha)
        return np.concatenate([np.clip(picture, 0, 255) * alpha[..., None], 255 * alpha[..., None]], axis=-1)

    def _paint_hair(self, dx: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        look, rng = self.look, self._rng
        strands = _cloud(rng, (SIZE, SIZE), 9) * 0.4 + rng.standard_normal(SIZE)[None, :] * 0.35
        angle = np.arctan2(dx, np.maximum(EYE_Y + 30 - y, 1))
        strands = strands + 0.5 * np.sin(angle * 60 + 3 * _cloud(rng, (SIZE, SIZE), 5))
        sheen = np.exp(-(((np.hypot(dx, y - 110) - 66) / 9) ** 2))
        colour = look.hair * (1 + 0.10 * strands + 0.35 * sheen)[..., None] * self._shade(dx + CENTRE, y)[..., None]
        # a cap around the skull; long hair goes straight down from its sides
        puff = (5.0, 11.0, 7.0, 2.5)[look.hair_style]
        wide = look.face_width + puff * (1.0 if look.hair_style == 1 else 0.5)
        crown = _ellipse(dx, np.minimum(y - 108, 0), wide, 108 - (look.forehead - 26) + puff)
        u = np.abs(dx) / look.face_width
        temple = np.clip((u - 0.58) / 0.36, 0, 1) ** 2
        if look.hair_style == 2:
            line = look.forehead + 11 + 2.5 * np.sin(dx / 4 + rng.uniform(0, 6)) + 34 * temple
        elif look.hair_style == 3:
            line = look.forehead - 12 - 6 * np.clip(0.5 - u, 0, 1) + 58 * temple
        else:
            line = look.forehead - 2 + 4 * np.cos(u * 3) + 52 * temple
        alpha = _cover(crown, 2.5) * _cover((y - line) * 0.8, 3.0) * _cover(y - 122, 8)
        if look.hair_style == 1:
            inner = look.face_width * (0.96 + 0.03 * np.sin(y / 13)) - np.abs(dx)
            fall = np.maximum(np.maximum(inner, np.abs(dx) - wide - 3 * np.sin(y / 19) * (y > 108)), 96 - y)
            alpha = np.maximum(alpha, _cover(fall, 3.0) * _cover(y - 206, 20))
        return np.clip(alpha, 0, 1), colour

    def _paint_scene(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Wall, neck and shoulders [224, 224, 3]."""
        look, rng = self.look, self._rng
        dx = x - CENTRE
        wall = np.array(_WALLS[rng.integers(len(_WALLS))], float)
        picture = wall * (1 + 0.10 * _cloud(rng, (SIZE, SIZE), int(rng.integers(2, 6))))[..., None]
        picture = picture * (1.06 - 0.16 * y / SIZE)[..., None]
        picture += rng.uniform(-10, 10, 3) * _cloud(rng, (SIZE, SIZE), 3)[..., None]
        if look.hair_style == 1:
            behind = _ellipse(dx, y - 150, look.face_width + 14, 80)
            _paint(picture, look.hair * 0.55, _cover(behind, 3))
        neck = np.abs(dx) - 34 - np.clip((y - 200) * 0.6, 0, 40)
        shadow = 0.62 + 0.26 * np.clip((y - look.chin) / 26, 0, 1)
        _paint(
            picture, np.ones((SIZE, SIZE, 3)) * look.skin * shadow[..., None], _cover(neck, 1.5) * _cover(160 - y, 4)
        )
        shoulder = 208 + 0.0021 * dx**2 - 5 * np.exp(-(((np.abs(dx) - 44) / 14) ** 2)) + 13 * np.exp(-((dx / 30) ** 2))
        cloth = look.clothes * (0.92 + 0.06 * _cloud(rng, (SIZE, SIZE), 7))[..., None]
        _paint(picture, cloth, _cover(shoulder - y, 1.5))
        return picture

    # -------------------------------------------------------------- frames
    def frames(self, shapes: MouthShapes) -> Iterator[np.ndarray]:
        """Yield one picture per mouth shape."""
        total = len(shapes.gap)
        motion = self._motion(total)
        lids = self._lids(total)
        # the head and its margin is all that moves
        reach = int(np.ceil(self.look.face_width + 16 + MARGIN))
        left, right = max(0, 112 - reach), min(SIZE, 112 + reach)
        gy, gx = np.meshgrid(np.arange(SIZE, dtype=np.float32), np.arange(left, right, dtype=np.float32), indexing="ij")
        shade = self._shade(gx, gy)
        picture = np.empty_like(self._scene)
        for t in range(total):
            shift_x, shift_y, angle, scale, light = (float(values[t]) for values in motion)
            pose = _Pose(CENTRE + shift_x, PIVOT_Y + shift_y, angle, scale, left)
            x, y = pose.canonical(gx, gy)
            np.copyto(picture, self._scene)
            window = picture[:, left:right]
            drop = self._jaw_drop(float(shapes.gap[t]))
            head = _sample(self._head, x, y - _jaw_stretch(y, drop, self.look))
            behind = np.float32(1) - head[..., 3] * np.float32(1 / 255)
            for channel in range(3):  # one by one is three times as fast as broadcasting over pixels of three
                window[..., channel] *= behind
                window[..., channel] += head[..., channel]
            if self._extras is not None:
                self._extras.under(window, x, y - _jaw_stretch(y, drop, self.look), shade, self.look)
            for side in (-1, 1):
                part = pose.window(CENTRE + side * EYE_X, EYE_Y, 15, 12)
                u, v = x[part] - np.float32(CENTRE + side * EYE_X), y[part] - np.float32(EYE_Y)
                self._draw_eye(window[part], u, v, shade[part], float(lids[t]))
            part = pose.window(CENTRE, self.look.mouth_y + 10, 33, 33)
            u, v = x[part] - np.float32(CENTRE), y[part] - np.float32(self.look.mouth_y)
            self._draw_mouth(window[part], u, v, shade[part], shapes, t)
            if self._extras is not None:
                self._extras.over(window, x, y)
                self._extras.before(picture, t)
            oy, ox = self._rng.integers(64, size=2)
            picture *= (self._warmth * (self._gain * light)).astype(np.float32)
            picture += self._noise[oy : oy + SIZE, ox : ox + SIZE]
            yield np.clip(picture, 0, 255, out=picture).astype(np.uint8)

    def lip_gaps(self, shapes: MouthShapes) -> np.ndarray:
        """The drawn gap between the inner edges of the lips at the middle, [T] in canonical pixels."""
        return np.array([self._lips(shapes, t).gap for t in range(len(shapes.gap))])

    def _motion(self, total: int) -> tuple[np.ndarray, ...]:
        """Slow head motion [T]: shifts in pixels, angle in radians, scale, and the light's flicker."""
        rng = self._rng
        time = np.arange(total) / FRAME_RATE

        def sway(size: float, offset: float) -> np.ndarray:
            waves = np.zeros(total)
            for weight in (0.65, 0.35):
                waves += weight * np.sin(2 * np.pi * (time * rng.uniform(0.15, 0.7) + rng.random()))
            return offset + size * waves

        return (
            sway(2.0, rng.uniform(-5, 5)),
            sway(1.6, rng.uniform(-4, 4)),
            sway(0.018, rng.normal(0, 0.025)),
            sway(0.008, rng.uniform(0.94, 1.03)),
            1 + 0.006 * rng.standard_normal(total),
        )

    def _lids(self, total: int) -> np.ndarray:
        """How far the lids are shut, 0…1 [T]: a blink of 0.2 s every few seconds."""
        lids = np.full(total, 0.12)
        at = self._rng.uniform(0, 3.0) * FRAME_RATE
        while at < total:
            lids = np.maximum(lids, np.clip(1.35 - np.abs(np.arange(total) - at) / 2.2, 0, 1))
            at += self._rng.uniform(1.6, 4.5) * FRAME_RATE
        return lids

    def _jaw_drop(self, gap: float) -> float:
        return 11.0 * gap * self.look.articulation

    def _draw_eye(self, part: np.ndarray, u: np.ndarray, v: np.ndarray, shade: np.ndarray, lid: float) -> None:
        """One eye onto the window `part` [h, w, 3]; (u, v) [h, w] from its centre, `lid` 0 open … 1 shut."""
        look = self.look
        shade = shade[..., None]
        bow = np.sqrt(np.clip(1 - (u / 11.5) ** 2, 0, 1))
        upper = -look.eye_height * bow * (1 - lid) + 2.2 * lid * bow
        lower = look.eye_height * 0.62 * bow
        open_ = _cover(upper - v, 1.2) * _cover(v - lower, 1.2) * _cover(np.abs(u) - 11.2, 1.2)
        white = np.array((232, 228, 222)) * shade * (0.80 + 0.2 * np.clip((v - upper) / 4, 0, 1))[..., None]
        eye = np.broadcast_to(white, part.shape).copy()
        r = np.hypot(u, v + 0.6)
        _paint(eye, look.iris * 0.55, _cover(r - 5.4))
        _paint(eye, look.iris * (1.15 - 0.3 * _cover(v + 1.5, 4))[..., None], _cover(r - 4.5))
        _paint(eye, np.array((14.0, 12, 12)), _cover(r - 2.3))
        _paint(eye, np.array((250.0, 250, 250)), _cover(np.hypot(u - 1.7, v + 2.4) - 0.9))
        part += (eye - part) * open_[..., None]
        near = _cover(np.abs(u) - 12, 1.5)
        _paint(part, look.hair * 0.25, 0.9 * _cover(np.abs(v - upper) - 0.75, 1.2) * near)
        _paint(part, look.skin * 0.55 * shade, 0.4 * _cover(np.abs(v - lower) - 0.4, 1.2) * near)
        crease = upper - 3.2
        _paint(part, look.skin * 0.55 * shade, 0.5 * _cover(np.abs(v - crease) - 0.4, 1.4) * _cover(np.abs(u) - 10, 2))

    def _lips(self, shapes: MouthShapes, t: int) -> _Lips:
        look = self.look
        width, rounding, tuck, press = (
            float(values[t]) for values in (shapes.width, shapes.rounding, shapes.tuck, shapes.press)
        )
        gap = float(shapes.gap[t]) * look.widest_gap * look.articulation
        up, down = 0.20 * gap, 0.80 * gap
        # F and V: the upper lip shows the teeth, the lower lip lies against their edge
        up += (3.4 - up) * tuck
        down += (0.4 - down) * tuck
        half = look.mouth_width * (1 + 0.20 * width * (1 if width > 0 else 1.7)) * (1 - 0.05 * float(shapes.gap[t]))
        full = 1 + 0.15 * rounding - 0.12 * max(width, 0) - 0.42 * press
        return _Lips(
            half=half,
            inner=half * (0.90 - 0.14 * rounding),
            up=up,
            down=down,
            upper=look.upper_lip * full * (1 - 0.25 * tuck),
            lower=look.lower_lip * full * (1 - 0.45 * tuck),
            power=0.6 + 0.1 * rounding,
        )

    def _draw_mouth(
        self, part: np.ndarray, u: np.ndarray, v: np.ndarray, shade: np.ndarray, shapes: MouthShapes, t: int
    ) -> None:
        """The mouth onto the window `part` [h, w, 3]; (u, v) [h, w] from the middle of the closed lips."""
        look = self.look
        lips = self._lips(shapes, t)
        s = np.clip(np.abs(u) / lips.half, 0, 1)
        i = np.clip(np.abs(u) / lips.inner, 0, 1)
        inner = np.clip(1 - i * i, 0, 1) ** lips.power
        corner = 1.2 * s * s  # the corners hang a little
        seam = corner - 0.5 * np.exp(-((u / 4) ** 2))
        top_inner = seam - lips.up * inner
        low_inner = seam + lips.down * inner
        bow = (1 - s * s) * (1 - 0.22 * np.exp(-((u / 3.6) ** 2))) * (1 + 0.16 * np.exp(-(((np.abs(u) - 6) / 4) ** 2)))
        top_outer = top_inner - lips.upper * bow
        low_outer = low_inner + lips.lower * np.sqrt(1 - s * s * s)
        across = _cover(np.abs(u) - lips.half, 1.5)
        slope = 1 + 0.5 * s  # edges run slantwise near the corners

        # shadow under the lower lip, then lips, then what is between them
        _paint(
            part, look.skin * 0.62 * shade[..., None], 0.38 * np.exp(-(((v - low_outer - 3) / 2.6) ** 2)) * (1 - s * s)
        )
        whole = _cover((top_outer - v) / slope, 1.4) * _cover((v - low_outer) / slope, 1.4) * across
        depth_up = np.clip((v - top_outer) / np.maximum(top_inner - top_outer, 0.5), 0, 1)
        depth_low = np.clip((v - low_inner) / np.maximum(low_outer - low_inner, 0.5), 0, 1)
        is_low = v > 0.5 * (top_inner + low_inner)
        tone = np.where(
            is_low, 1.02 + 0.14 * np.sin(np.pi * np.clip(depth_low, 0, 1)) - 0.12 * depth_low, 0.90 - 0.16 * depth_up
        )
        tone = tone * (1 - 0.04 * np.cos(u * 1.9)) * shade
        gleam = 0.20 * np.exp(-(((depth_low - 0.38) / 0.16) ** 2) - (u / 9) ** 2) * is_low
        colour = look.lips * tone[..., None] + 255 * gleam[..., None] * np.minimum(shade, 1)[..., None]
        part += (colour - part) * whole[..., None]
        if lips.gap > 0:
            hole = (
                _cover((top_inner - v) / slope, 1.1)
                * _cover((v - low_inner) / slope, 1.1)
                * _cover(np.abs(u) - lips.inner, 1.1)
            )
            part += (self._inside(u, v, lips, shapes, t, top_inner, low_inner) - part) * hole[..., None]
        line = _cover(np.abs(v - seam) - 0.55, 1.4) * across * max(0.0, 1 - lips.gap / 2.5)
        _paint(part, look.lips * 0.32, 0.85 * line)
        for side in (-1, 1):
            _paint(part, look.skin * 0.42, 0.5 * _blob(u - side * lips.half, v - 1.2, 1.6, 1.3))

    def _inside(
        self,
        u: np.ndarray,
        v: np.ndarray,
        lips: _Lips,
        shapes: MouthShapes,
        t: int,
        top: np.ndarray,
        low: np.ndarray,
    ) -> np.ndarray:
        """Colours between the lips: dark hollow, tongue, lower and upper teeth."""
        look = self.look
        bite, tongue, rounding, tuck = (
            float(values[t]) for values in (shapes.bite, shapes.tongue, shapes.rounding, shapes.tuck)
        )
        picture = np.ones((*u.shape, 3)) * np.array((38.0, 13, 15))
        # the tongue lies behind the lower teeth
        lying = _ellipse(u, v - lips.down - 1.0, lips.inner * 0.60, 0.8 + 0.22 * lips.down)
        _paint(picture, np.array((112.0, 44, 48)), 0.80 * _cover(lying, 3.0))
        arch = np.clip(np.abs(u) / (lips.inner * 1.02), 0, 1) ** 2
        dim = (1 - 0.45 * arch) * (1 - 0.35 * rounding)
        gaps = 1 - 0.16 * np.exp(-((np.abs(np.mod(u + 100 * 5.2, 5.2) - 2.6) / 0.45) ** 2))
        enamel = look.teeth * (dim * gaps)[..., None]
        # the upper teeth are fixed to the skull, the lower ones move with the jaw
        edge = -1.4 + 3.4 * (1 - 0.35 * arch)
        lower_edge = lips.down - 0.8 + (edge + 0.6 - lips.down + 0.8) * bite
        lower = _cover(lower_edge - v, 1.0) * (0.25 + 0.75 * bite)
        _paint(picture, enamel * 0.90, lower)
        upper = _cover(v - edge, 1.0) * (1 - 0.55 * rounding * (1 - bite)) * max(tuck, 1 - 0.15 * tongue)
        _paint(picture, enamel, upper)
        _paint(picture, np.array((70.0, 40, 38)), 0.55 * bite * _cover(np.abs(v - edge - 0.3) - 0.3, 1.0))
        if tongue > 0.02:
            tip = _ellipse(u, v - edge - 3.5 + 2.2 * tongue, lips.inner * 0.46, 3.6)
            _paint(picture, np.array((196.0, 98, 98)), tongue * _cover(tip, 1.4))
        picture *= (0.62 + 0.38 * np.clip((v - top) / 2.5, 0, 1))[..., None]
        picture *= (0.75 + 0.25 * np.clip((low - v) / 1.5, 0, 1))[..., None]
        return picture


@dataclass(frozen=True)
class _Lips:
    """The lips' outline in canonical pixels: half widths, inner edges above and below the seam, thicknesses."""

    half: float
    inner: float
    up: float
    down: float
    upper: float
    lower: float
    power: float

    @property
    def gap(self) -> float:
        return self.up + self.down


def _jaw_stretch(y: np.ndarray, drop: float, look: Look) -> np.ndarray:
    """How far skin at height y has moved down when the chin has dropped by `drop`; 0 above the mouth."""
    part = np.clip((y - (look.mouth_y - 4)) / (look.chin - look.mouth_y), 0, 1)
    return np.float32(drop) * part * part * (3 - 2 * part)


@dataclass(frozen=True)
class _Pose:
    """Where the head is in one frame: the pivot's pixel, angle, scale; windows start at column `left`."""

    x: float
    y: float
    angle: float
    scale: float
    left: int

    def canonical(self, px: np.ndarray, py: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Canonical coordinates of pixels."""
        cos, sin = np.float32(np.cos(self.angle) / self.scale), np.float32(np.sin(self.angle) / self.scale)
        dx, dy = px - np.float32(self.x), py - np.float32(self.y)
        return cos * dx + sin * dy + np.float32(CENTRE), cos * dy - sin * dx + np.float32(PIVOT_Y)

    def window(self, x: float, y: float, rx: int, ry: int) -> tuple[slice, slice]:
        """Rows and columns within about (rx, ry) pixels of a canonical point."""
        cos, sin = self.scale * np.cos(self.angle), self.scale * np.sin(self.angle)
        dx, dy = x - CENTRE, y - PIVOT_Y
        column = round(cos * dx - sin * dy + self.x) - self.left
        row = round(sin * dx + cos * dy + self.y)
        return slice(row - ry, min(row + ry, SIZE)), slice(column - rx, column + rx)


def _pack(picture: np.ndarray) -> np.ndarray:
    """Four channels 0…255 [224, 224, 4] → uint64 [224 * 224], 16 bits a channel: one product weighs all four."""
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint16).reshape(-1, 4).view(np.uint64).ravel()


def _sample(packed: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
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
