"""Paints the still parts of a face: the head without the mouth, and the scene behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avhubert.corpora.synthetic.look import CENTRE, EYE_X, EYE_Y, NOSE_Y, WALLS, Look
from avhubert.corpora.synthetic.painting import SIZE, blob, cloud, cover, ellipse, paint

CROWN = 26  # pixels between the hairline and the top of the head
WIDEST_Y = 108.0  # height at which the head is widest
SIDES = (-1, 1)


@dataclass(frozen=True)
class Light:
    """Direction of the light, as the x and y of a vector of length 1 or less."""

    x: float
    y: float

    def shade(self, look: Look, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Brightness of the head, about 1: a Lambertian egg."""
        nx = np.clip((x - CENTRE) / (look.face_width * 1.12), -0.98, 0.98)
        ny = np.clip((y - 122) / 100, -0.98, 0.98)
        nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0.04))
        lx, ly = self.x, self.y
        lz = np.sqrt(max(1 - lx * lx * 0.5 - ly * ly, 0.2))
        brightness: np.ndarray = 0.62 + 0.42 * (nx * lx * 0.7 + ny * ly + nz * lz)
        return brightness


def paint_head(look: Look, light: Light, rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The head without mouth and with empty eye sockets: premultiplied RGBA [224, 224, 4], 0…255."""
    dx = x - CENTRE
    image = np.ones((SIZE, SIZE, 3)) * look.skin
    outline = _outline(look, dx, y)
    inside = cover(outline, 1.4)
    for side in SIDES:
        _paint_cheek_and_socket(image, look, side, dx, y)
    _paint_nose(image, look, dx, y)
    if look.stubble:
        _paint_stubble(image, look, rng, dx, y)
    for side in SIDES:
        _paint_eyebrow(image, look, side, dx, y)
    ears = _paint_ears(image, look, inside, dx, y)
    image *= light.shade(look, x, y)[..., None]
    image *= 1 - 0.16 * np.exp(-((np.minimum(outline, 0) / 7) ** 2))[..., None]
    image += 1.3 * cloud(rng, (SIZE, SIZE), 40)[..., None]
    alpha = np.maximum(inside, cover(ears, 1.4))
    hair_alpha, hair = _paint_hair(look, light, rng, dx, y)
    image += (hair - image) * hair_alpha[..., None]
    alpha = np.maximum(alpha, hair_alpha)
    return np.concatenate([np.clip(image, 0, 255) * alpha[..., None], 255 * alpha[..., None]], axis=-1)


def _half_width(look: Look, y: np.ndarray) -> np.ndarray:
    """Half the head's width at height y (0 outside)."""
    top = look.forehead - CROWN
    upper = np.sqrt(np.clip(1 - ((WIDEST_Y - y) / (WIDEST_Y - top)) ** 2, 0, 1))
    fall = np.clip((y - WIDEST_Y) / (look.chin - WIDEST_Y), 0, 1)
    lower = (1 - fall ** (2.3 + 1.3 * look.jaw)) ** (0.62 - 0.08 * look.jaw)
    return look.face_width * np.where(y < WIDEST_Y, upper, lower)


def _outline(look: Look, dx: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to the outline of the head."""
    half = _half_width(look, y)
    slope = np.gradient(half[:, 0])[:, None]
    head = (np.abs(dx) - half) / np.sqrt(1 + np.clip(slope, -4, 4) ** 2)
    outline: np.ndarray = np.maximum(head, np.maximum(look.forehead - CROWN - y, y - look.chin))
    return outline


def _paint_cheek_and_socket(image: np.ndarray, look: Look, side: int, dx: np.ndarray, y: np.ndarray) -> None:
    """Cheek, eye socket, shadow under the eyebrow, fold beside the mouth."""
    skin = look.skin
    paint(image, skin * (1.0, 0.82, 0.80), 0.28 * blob(dx - side * 34, y - 138, 13, 10))
    paint(image, skin * 0.72, 0.42 * blob(dx - side * EYE_X, y - EYE_Y + 3, 14, 8))
    paint(image, skin * 0.78, 0.30 * blob(dx - side * EYE_X, y - EYE_Y - 11, 12, 3))
    fold = np.abs(dx - side * (13 + (y - 136) * 0.55)) / 1.6
    paint(image, skin * 0.74, 0.20 * np.exp(-(fold**2)) * cover(np.abs(y - 148) - 10, 8))


def _paint_nose(image: np.ndarray, look: Look, dx: np.ndarray, y: np.ndarray) -> None:
    """Lit ridge, shaded sides, wings, nostrils, tip, shadow below, philtrum."""
    skin = look.skin
    ridge = cover(np.abs(y - 114) - 22, 14)
    paint(image, np.minimum(skin * 1.16, 255), 0.45 * np.exp(-((dx / 3.2) ** 2)) * ridge)
    for side in SIDES:
        paint(image, skin * 0.72, 0.34 * np.exp(-(((dx - side * 7) / 3.4) ** 2)) * ridge)
        wing = ellipse(dx - side * look.nose_width * 0.78, y - NOSE_Y + 3, look.nose_width * 0.42, 5.2)
        paint(image, skin * 0.86, 0.7 * cover(wing, 3))
        nostril = ellipse(dx - side * look.nose_width * 0.48, y - NOSE_Y - 0.5, look.nose_width * 0.25, 1.7)
        paint(image, skin * 0.30, 0.85 * cover(nostril, 1.6))
    paint(image, np.minimum(skin * 1.12, 255), 0.55 * blob(dx, y - NOSE_Y + 6, 5, 4))
    paint(image, skin * 0.66, 0.35 * blob(dx, y - NOSE_Y - 4.5, look.nose_width, 2.6))
    paint(image, skin * 0.84, 0.35 * np.exp(-((dx / 2.2) ** 2)) * cover(np.abs(y - 148) - 4, 4))


def _paint_stubble(image: np.ndarray, look: Look, rng: np.random.Generator, dx: np.ndarray, y: np.ndarray) -> None:
    beard = cover(np.abs(y - 178) - 30, 22) * (1 - 0.5 * blob(dx, y - 150, 30, 8))
    grain = 1 + 0.35 * rng.standard_normal((SIZE, SIZE))
    paint(image, look.hair * 0.8 + 20, np.clip(look.stubble * beard * grain * 1.8, 0, 0.8))


def _paint_eyebrow(image: np.ndarray, look: Look, side: int, dx: np.ndarray, y: np.ndarray) -> None:
    u = (dx - side * (EYE_X + 1)) * side
    arch = EYE_Y - 14.5 - 2.6 * np.cos(u / 11) + 0.05 * u
    thickness = look.brow * np.clip(1.15 - 0.045 * np.abs(u + 3), 0.25, 1)
    brow = np.maximum(np.abs(y - arch) - thickness, np.abs(u) - 14)
    paint(image, look.hair * 0.75, 0.88 * cover(brow, 1.8))


def _paint_ears(image: np.ndarray, look: Look, inside: np.ndarray, dx: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Paint both ears outside the head; the signed distance to them."""
    ears = np.full_like(dx, 1e3)
    for side in SIDES:
        ear = ellipse(dx - side * (look.face_width + 1.5), y - 116, 7, 15)
        outside = 1 - inside
        paint(image, look.skin * (0.94, 0.84, 0.82), cover(ear, 1.4) * outside)
        paint(image, look.skin * 0.6, 0.6 * blob(dx - side * (look.face_width + 2.5), y - 115, 2.2, 8) * outside)
        ears = np.minimum(ears, ear)
    return ears


def _paint_hair(
    look: Look, light: Light, rng: np.random.Generator, dx: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cover of the hair [224, 224], and its colour."""
    strands = cloud(rng, (SIZE, SIZE), 9) * 0.4 + rng.standard_normal(SIZE)[None, :] * 0.35
    angle = np.arctan2(dx, np.maximum(EYE_Y + 30 - y, 1))
    strands = strands + 0.5 * np.sin(angle * 60 + 3 * cloud(rng, (SIZE, SIZE), 5))
    sheen = np.exp(-(((np.hypot(dx, y - 110) - 66) / 9) ** 2))
    shade = light.shade(look, dx + CENTRE, y)
    colour = look.hair * (1 + 0.10 * strands + 0.35 * sheen)[..., None] * shade[..., None]
    # a cap around the skull; long hair falls straight down from its sides
    puff = (5.0, 11.0, 7.0, 2.5)[look.hair_style]
    width = look.face_width + puff * (1.0 if look.hair_style == 1 else 0.5)
    crown = ellipse(dx, np.minimum(y - WIDEST_Y, 0), width, WIDEST_Y - (look.forehead - CROWN) + puff)
    alpha = cover(crown, 2.5) * cover((y - _hairline(look, rng, dx)) * 0.8, 3.0) * cover(y - 122, 8)
    if look.hair_style == 1:
        inner = look.face_width * (0.96 + 0.03 * np.sin(y / 13)) - np.abs(dx)
        fall = np.maximum(np.maximum(inner, np.abs(dx) - width - 3 * np.sin(y / 19) * (y > WIDEST_Y)), 96 - y)
        alpha = np.maximum(alpha, cover(fall, 3.0) * cover(y - 206, 20))
    return np.clip(alpha, 0, 1), colour


def _hairline(look: Look, rng: np.random.Generator, dx: np.ndarray) -> np.ndarray:
    """Height of the hairline at each column."""
    u = np.abs(dx) / look.face_width
    temple = np.clip((u - 0.58) / 0.36, 0, 1) ** 2
    line: np.ndarray
    if look.hair_style == 2:
        line = look.forehead + 11 + 2.5 * np.sin(dx / 4 + rng.uniform(0, 6)) + 34 * temple
    elif look.hair_style == 3:
        line = look.forehead - 12 - 6 * np.clip(0.5 - u, 0, 1) + 58 * temple
    else:
        line = look.forehead - 2 + 4 * np.cos(u * 3) + 52 * temple
    return line


def paint_scene(look: Look, rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Wall, neck and shoulders [224, 224, 3]."""
    dx = x - CENTRE
    wall = np.array(WALLS[rng.integers(len(WALLS))], float)
    image = wall * (1 + 0.10 * cloud(rng, (SIZE, SIZE), int(rng.integers(2, 6))))[..., None]
    image = image * (1.06 - 0.16 * y / SIZE)[..., None]
    image += rng.uniform(-10, 10, 3) * cloud(rng, (SIZE, SIZE), 3)[..., None]
    if look.hair_style == 1:
        hair_behind = ellipse(dx, y - 150, look.face_width + 14, 80)
        paint(image, look.hair * 0.55, cover(hair_behind, 3))
    neck = np.abs(dx) - 34 - np.clip((y - 200) * 0.6, 0, 40)
    shadow = 0.62 + 0.26 * np.clip((y - look.chin) / 26, 0, 1)
    paint(image, np.ones((SIZE, SIZE, 3)) * look.skin * shadow[..., None], cover(neck, 1.5) * cover(160 - y, 4))
    shoulder = 208 + 0.0021 * dx**2 - 5 * np.exp(-(((np.abs(dx) - 44) / 14) ** 2)) + 13 * np.exp(-((dx / 30) ** 2))
    cloth = look.clothes * (0.92 + 0.06 * cloud(rng, (SIZE, SIZE), 7))[..., None]
    paint(image, cloth, cover(shoulder - y, 1.5))
    return image
