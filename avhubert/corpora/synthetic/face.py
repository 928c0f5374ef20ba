"""Talking faces drawn with numpy: a look per speaker, a mouth driven by visemes with coarticulation.

A face lives in a canonical 224×224 plane in which the eyes, nose and mouth lie where the mean face of the published
preparation has them, moved to the middle. Still parts are painted once per clip; every frame warps them (head motion,
dropping jaw) and draws the lips, teeth, tongue and eyelids anew, at their final place, so that they stay sharp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.corpora.synthetic.look import CENTRE, EYE_X, EYE_Y, NOSE_Y, WALLS, Look
from avhubert.corpora.synthetic.painting import SIZE, blob, cloud, cover, ellipse, pack, paint, sample
from avhubert.corpora.synthetic.pose import MARGIN, PIVOT_Y, Pose
from avhubert.corpora.synthetic.visemes import MouthShapes

if TYPE_CHECKING:
    from avhubert.corpora.synthetic.extras import Extras


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
        self._head = pack(self._paint_head(x, y))
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
        inside = cover(head, 1.4)
        # cheeks, sockets, the hollow under the lip, folds
        for side in (-1, 1):
            paint(picture, skin * (1.0, 0.82, 0.80), 0.28 * blob(dx - side * 34, y - 138, 13, 10))
            paint(picture, skin * 0.72, 0.42 * blob(dx - side * EYE_X, y - EYE_Y + 3, 14, 8))
            paint(picture, skin * 0.78, 0.30 * blob(dx - side * EYE_X, y - EYE_Y - 11, 12, 3))
            fold = np.abs(dx - side * (13 + (y - 136) * 0.55)) / 1.6
            paint(picture, skin * 0.74, 0.20 * np.exp(-(fold**2)) * cover(np.abs(y - 148) - 10, 8))
        # nose: lit ridge, shaded sides, wings, nostrils, shadow below
        ridge = cover(np.abs(y - 114) - 22, 14)
        paint(picture, np.minimum(skin * 1.16, 255), 0.45 * np.exp(-((dx / 3.2) ** 2)) * ridge)
        for side in (-1, 1):
            paint(picture, skin * 0.72, 0.34 * np.exp(-(((dx - side * 7) / 3.4) ** 2)) * ridge)
            wing = ellipse(dx - side * look.nose_width * 0.78, y - NOSE_Y + 3, look.nose_width * 0.42, 5.2)
            paint(picture, skin * 0.86, 0.7 * cover(wing, 3))
            nostril = ellipse(dx - side * look.nose_width * 0.48, y - NOSE_Y - 0.5, look.nose_width * 0.25, 1.7)
            paint(picture, skin * 0.30, 0.85 * cover(nostril, 1.6))
        paint(picture, np.minimum(skin * 1.12, 255), 0.55 * blob(dx, y - NOSE_Y + 6, 5, 4))
        paint(picture, skin * 0.66, 0.35 * blob(dx, y - NOSE_Y - 4.5, look.nose_width, 2.6))
        paint(picture, skin * 0.84, 0.35 * np.exp(-((dx / 2.2) ** 2)) * cover(np.abs(y - 148) - 4, 4))
        if look.stubble:
            beard = cover(np.abs(y - 178) - 30, 22) * (1 - 0.5 * blob(dx, y - 150, 30, 8))
            grain = 1 + 0.35 * rng.standard_normal((SIZE, SIZE))
            paint(picture, look.hair * 0.8 + 20, np.clip(look.stubble * beard * grain * 1.8, 0, 0.8))
        # eyebrows
        for side in (-1, 1):
            u = (dx - side * (EYE_X + 1)) * side
            arch = EYE_Y - 14.5 - 2.6 * np.cos(u / 11) + 0.05 * u
            thick = look.brow * np.clip(1.15 - 0.045 * np.abs(u + 3), 0.25, 1)
            brow = np.maximum(np.abs(y - arch) - thick, np.abs(u) - 14)
            paint(picture, look.hair * 0.75, 0.88 * cover(brow, 1.8))
        # ears
        ears = np.full_like(head, 1e3)
        for side in (-1, 1):
            ear = ellipse(dx - side * (look.face_width + 1.5), y - 116, 7, 15)
            outside = 1 - inside
            paint(picture, skin * (0.94, 0.84, 0.82), cover(ear, 1.4) * outside)
            paint(picture, skin * 0.6, 0.6 * blob(dx - side * (look.face_width + 2.5), y - 115, 2.2, 8) * outside)
            ears = np.minimum(ears, ear)
        picture *= self._shade(x, y)[..., None]
        picture *= 1 - 0.16 * np.exp(-((np.minimum(head, 0) / 7) ** 2))[..., None]
        picture += 1.3 * cloud(rng, (SIZE, SIZE), 40)[..., None]
        alpha = np.maximum(inside, cover(ears, 1.4))
        hair_alpha, hair = self._paint_hair(dx, y)
        picture += (hair - picture) * hair_alpha[..., None]
        alpha = np.maximum(alpha, hair_alpha)
        return np.concatenate([np.clip(picture, 0, 255) * alpha[..., None], 255 * alpha[..., None]], axis=-1)

    def _paint_hair(self, dx: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        look, rng = self.look, self._rng
        strands = cloud(rng, (SIZE, SIZE), 9) * 0.4 + rng.standard_normal(SIZE)[None, :] * 0.35
        angle = np.arctan2(dx, np.maximum(EYE_Y + 30 - y, 1))
        strands = strands + 0.5 * np.sin(angle * 60 + 3 * cloud(rng, (SIZE, SIZE), 5))
        sheen = np.exp(-(((np.hypot(dx, y - 110) - 66) / 9) ** 2))
        colour = look.hair * (1 + 0.10 * strands + 0.35 * sheen)[..., None] * self._shade(dx + CENTRE, y)[..., None]
        # a cap around the skull; long hair goes straight down from its sides
        puff = (5.0, 11.0, 7.0, 2.5)[look.hair_style]
        wide = look.face_width + puff * (1.0 if look.hair_style == 1 else 0.5)
        crown = ellipse(dx, np.minimum(y - 108, 0), wide, 108 - (look.forehead - 26) + puff)
        u = np.abs(dx) / look.face_width
        temple = np.clip((u - 0.58) / 0.36, 0, 1) ** 2
        if look.hair_style == 2:
            line = look.forehead + 11 + 2.5 * np.sin(dx / 4 + rng.uniform(0, 6)) + 34 * temple
        elif look.hair_style == 3:
            line = look.forehead - 12 - 6 * np.clip(0.5 - u, 0, 1) + 58 * temple
        else:
            line = look.forehead - 2 + 4 * np.cos(u * 3) + 52 * temple
        alpha = cover(crown, 2.5) * cover((y - line) * 0.8, 3.0) * cover(y - 122, 8)
        if look.hair_style == 1:
            inner = look.face_width * (0.96 + 0.03 * np.sin(y / 13)) - np.abs(dx)
            fall = np.maximum(np.maximum(inner, np.abs(dx) - wide - 3 * np.sin(y / 19) * (y > 108)), 96 - y)
            alpha = np.maximum(alpha, cover(fall, 3.0) * cover(y - 206, 20))
        return np.clip(alpha, 0, 1), colour

    def _paint_scene(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Wall, neck and shoulders [224, 224, 3]."""
        look, rng = self.look, self._rng
        dx = x - CENTRE
        wall = np.array(WALLS[rng.integers(len(WALLS))], float)
        picture = wall * (1 + 0.10 * cloud(rng, (SIZE, SIZE), int(rng.integers(2, 6))))[..., None]
        picture = picture * (1.06 - 0.16 * y / SIZE)[..., None]
        picture += rng.uniform(-10, 10, 3) * cloud(rng, (SIZE, SIZE), 3)[..., None]
        if look.hair_style == 1:
            behind = ellipse(dx, y - 150, look.face_width + 14, 80)
            paint(picture, look.hair * 0.55, cover(behind, 3))
        neck = np.abs(dx) - 34 - np.clip((y - 200) * 0.6, 0, 40)
        shadow = 0.62 + 0.26 * np.clip((y - look.chin) / 26, 0, 1)
        paint(picture, np.ones((SIZE, SIZE, 3)) * look.skin * shadow[..., None], cover(neck, 1.5) * cover(160 - y, 4))
        shoulder = 208 + 0.0021 * dx**2 - 5 * np.exp(-(((np.abs(dx) - 44) / 14) ** 2)) + 13 * np.exp(-((dx / 30) ** 2))
        cloth = look.clothes * (0.92 + 0.06 * cloud(rng, (SIZE, SIZE), 7))[..., None]
        paint(picture, cloth, cover(shoulder - y, 1.5))
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
            pose = Pose(CENTRE + shift_x, PIVOT_Y + shift_y, angle, scale, left)
            x, y = pose.canonical(gx, gy)
            np.copyto(picture, self._scene)
            window = picture[:, left:right]
            drop = self._jaw_drop(float(shapes.gap[t]))
            head = sample(self._head, x, y - _jaw_stretch(y, drop, self.look))
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
        open_ = cover(upper - v, 1.2) * cover(v - lower, 1.2) * cover(np.abs(u) - 11.2, 1.2)
        white = np.array((232, 228, 222)) * shade * (0.80 + 0.2 * np.clip((v - upper) / 4, 0, 1))[..., None]
        eye = np.broadcast_to(white, part.shape).copy()
        r = np.hypot(u, v + 0.6)
        paint(eye, look.iris * 0.55, cover(r - 5.4))
        paint(eye, look.iris * (1.15 - 0.3 * cover(v + 1.5, 4))[..., None], cover(r - 4.5))
        paint(eye, np.array((14.0, 12, 12)), cover(r - 2.3))
        paint(eye, np.array((250.0, 250, 250)), cover(np.hypot(u - 1.7, v + 2.4) - 0.9))
        part += (eye - part) * open_[..., None]
        near = cover(np.abs(u) - 12, 1.5)
        paint(part, look.hair * 0.25, 0.9 * cover(np.abs(v - upper) - 0.75, 1.2) * near)
        paint(part, look.skin * 0.55 * shade, 0.4 * cover(np.abs(v - lower) - 0.4, 1.2) * near)
        crease = upper - 3.2
        paint(part, look.skin * 0.55 * shade, 0.5 * cover(np.abs(v - crease) - 0.4, 1.4) * cover(np.abs(u) - 10, 2))

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
        across = cover(np.abs(u) - lips.half, 1.5)
        slope = 1 + 0.5 * s  # edges run slantwise near the corners

        # shadow under the lower lip, then lips, then what is between them
        paint(
            part, look.skin * 0.62 * shade[..., None], 0.38 * np.exp(-(((v - low_outer - 3) / 2.6) ** 2)) * (1 - s * s)
        )
        whole = cover((top_outer - v) / slope, 1.4) * cover((v - low_outer) / slope, 1.4) * across
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
                cover((top_inner - v) / slope, 1.1)
                * cover((v - low_inner) / slope, 1.1)
                * cover(np.abs(u) - lips.inner, 1.1)
            )
            part += (self._inside(u, v, lips, shapes, t, top_inner, low_inner) - part) * hole[..., None]
        line = cover(np.abs(v - seam) - 0.55, 1.4) * across * max(0.0, 1 - lips.gap / 2.5)
        paint(part, look.lips * 0.32, 0.85 * line)
        for side in (-1, 1):
            paint(part, look.skin * 0.42, 0.5 * blob(u - side * lips.half, v - 1.2, 1.6, 1.3))

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
        lying = ellipse(u, v - lips.down - 1.0, lips.inner * 0.60, 0.8 + 0.22 * lips.down)
        paint(picture, np.array((112.0, 44, 48)), 0.80 * cover(lying, 3.0))
        arch = np.clip(np.abs(u) / (lips.inner * 1.02), 0, 1) ** 2
        dim = (1 - 0.45 * arch) * (1 - 0.35 * rounding)
        gaps = 1 - 0.16 * np.exp(-((np.abs(np.mod(u + 100 * 5.2, 5.2) - 2.6) / 0.45) ** 2))
        enamel = look.teeth * (dim * gaps)[..., None]
        # the upper teeth are fixed to the skull, the lower ones move with the jaw
        edge = -1.4 + 3.4 * (1 - 0.35 * arch)
        lower_edge = lips.down - 0.8 + (edge + 0.6 - lips.down + 0.8) * bite
        lower = cover(lower_edge - v, 1.0) * (0.25 + 0.75 * bite)
        paint(picture, enamel * 0.90, lower)
        upper = cover(v - edge, 1.0) * (1 - 0.55 * rounding * (1 - bite)) * max(tuck, 1 - 0.15 * tongue)
        paint(picture, enamel, upper)
        paint(picture, np.array((70.0, 40, 38)), 0.55 * bite * cover(np.abs(v - edge - 0.3) - 0.3, 1.0))
        if tongue > 0.02:
            tip = ellipse(u, v - edge - 3.5 + 2.2 * tongue, lips.inner * 0.46, 3.6)
            paint(picture, np.array((196.0, 98, 98)), tongue * cover(tip, 1.4))
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
