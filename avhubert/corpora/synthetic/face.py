"""Talking faces drawn with numpy: one `Face` per clip.

Still parts are painted once per clip. Every frame warps them (head motion, jaw) and draws the lips, teeth, tongue and
eyelids anew at their final place, so that they stay sharp.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avhubert.corpora.synthetic import eyes, lips
from avhubert.corpora.synthetic.extras import Extras
from avhubert.corpora.synthetic.head import SIDES, Light, paint_head, paint_scene
from avhubert.corpora.synthetic.lips import Lips, MouthShape
from avhubert.corpora.synthetic.look import CENTRE, EYE_X, EYE_Y, Look
from avhubert.corpora.synthetic.painting import SIZE, pack, sample
from avhubert.corpora.synthetic.pose import MARGIN, HeadMotion, Pose, head_motion
from avhubert.corpora.synthetic.visemes import MouthShapes

NOISE_MARGIN = 64  # pixels by which the camera noise is larger than a frame


class Face:
    """The talking face of one clip.

    Args:
        look: The speaker.
        rng: Decides the scene (wall, light), the head motion, blinks and camera noise.
        extras: What is drawn as well, see `extras.KINDS`.
    """

    def __init__(self, look: Look, rng: np.random.Generator, extras: Extras | None = None) -> None:
        skin = extras.skin if extras is not None else None
        self.look = look if skin is None else skin.look(look)
        self._rng = rng
        self._extras = extras
        axis = np.arange(SIZE, dtype=np.float32)
        y, x = np.meshgrid(axis, axis, indexing="ij")
        angle = rng.uniform(-0.9, 0.9)
        self._light = Light(np.sin(angle), -rng.uniform(0.25, 0.6))
        self._warmth = np.array((1 + rng.uniform(-0.05, 0.05), 1.0, 1 + rng.uniform(-0.06, 0.06)))
        self._gain = rng.uniform(0.9, 1.08)
        noise_level = rng.uniform(1.0, 3.2)
        head = paint_head(look, self._light, rng, x, y)
        if skin is not None:
            skin.paint(head, look, x, y)
        self._head = pack(head)
        self._scene = paint_scene(look, rng, x, y).astype(np.float32)
        noise = rng.standard_normal((SIZE + NOISE_MARGIN, SIZE + NOISE_MARGIN, 3)).astype(np.float32)
        noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / np.float32(3**0.5)
        self._noise = (noise * noise_level).astype(np.float32)

    def frames(self, shapes: MouthShapes) -> Iterator[np.ndarray]:
        """Yield one frame uint8 [224, 224, 3] RGB per mouth shape."""
        total = len(shapes.gap)
        motion = self.head_motion(total)
        lids = eyes.draw_blinks(self._rng, total)
        # only the head and its margin move
        reach = int(np.ceil(self.look.face_width + 16 + MARGIN))
        left, right = max(0, SIZE // 2 - reach), min(SIZE, SIZE // 2 + reach)
        row, column = np.meshgrid(
            np.arange(SIZE, dtype=np.float32), np.arange(left, right, dtype=np.float32), indexing="ij"
        )
        shade = self._light.shade(self.look, column, row)
        image = np.empty_like(self._scene)
        for t in range(total):
            np.copyto(image, self._scene)
            pose = Pose.at(motion, t, left)
            x, y = pose.canonical(column, row)
            self._draw_head(image[:, left:right], pose, x, y, shade, MouthShape.at(shapes, t), float(lids[t]))
            if self._extras is not None:
                self._extras.draw_before_head(image, t)
                if self._extras.lens is not None:
                    self._extras.lens.blur(image)
            self._add_camera(image, float(motion.light[t]))
            yield np.clip(image, 0, 255, out=image).astype(np.uint8)

    def head_motion(self, total: int) -> HeadMotion:
        """Draw the head motion of `total` frames."""
        return head_motion(self._rng, total)

    def lip_gaps(self, shapes: MouthShapes) -> np.ndarray:
        """The gap between the inner edges of the lips in the middle of the mouth, [T] in canonical pixels."""
        frames = range(len(shapes.gap))
        return np.array([Lips.of(self.look, MouthShape.at(shapes, frame)).gap for frame in frames])

    def _draw_head(
        self,
        window: np.ndarray,
        pose: Pose,
        x: np.ndarray,
        y: np.ndarray,
        shade: np.ndarray,
        shape: MouthShape,
        lid: float,
    ) -> None:
        """Draw the head onto the part of a frame that moves; (x, y) canonical coordinates of its pixels."""
        look = self.look
        unstretched_y = y - _jaw_stretch(y, _jaw_drop(look, shape.gap), look)
        head = sample(self._head, x, unstretched_y)
        behind = np.float32(1) - head[..., 3] * np.float32(1 / 255)
        for channel in range(3):  # three times as fast as broadcasting over pixels of three channels
            window[..., channel] *= behind
            window[..., channel] += head[..., channel]
        if self._extras is not None:
            self._extras.draw_under_lips(window, x, unstretched_y, shade, look)
        for side in SIDES:
            part = pose.window(CENTRE + side * EYE_X, EYE_Y, *eyes.WINDOW)
            u, v = x[part] - np.float32(CENTRE + side * EYE_X), y[part] - np.float32(EYE_Y)
            eyes.draw_eye(window[part], look, u, v, shade[part], lid)
        part = pose.window(CENTRE, look.mouth_y + 10, *lips.WINDOW)
        u, v = x[part] - np.float32(CENTRE), y[part] - np.float32(look.mouth_y)
        lips.draw_mouth(window[part], look, u, v, shade[part], shape)
        if self._extras is not None:
            self._extras.draw_on_face(window, x, y)

    def _add_camera(self, image: np.ndarray, light: float) -> None:
        """White balance, exposure and noise of the camera."""
        top, left = self._rng.integers(NOISE_MARGIN, size=2)
        image *= (self._warmth * (self._gain * light)).astype(np.float32)
        image += self._noise[top : top + SIZE, left : left + SIZE]


def _jaw_drop(look: Look, gap: float) -> float:
    """How far the chin moves down, in pixels."""
    return 11.0 * gap * look.articulation


def _jaw_stretch(y: np.ndarray, drop: float, look: Look) -> np.ndarray:
    """How far skin at height y moves down when the chin moves down by `drop`; 0 above the mouth."""
    part = np.clip((y - (look.mouth_y - 4)) / (look.chin - look.mouth_y), 0, 1)
    stretch: np.ndarray = np.float32(drop) * part * part * (3 - 2 * part)
    return stretch
