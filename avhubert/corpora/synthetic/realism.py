"""Optional realism, as measured on crops of GRID: skin, nose, pale lips and shaded teeth; a lens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from avhubert.corpora.synthetic.look import CENTRE, NOSE_Y, Look
from avhubert.corpora.synthetic.painting import SIZE, blob, cloud, ellipse

FINE, COARSE = 100, 45  # cells of the skin's texture in each direction
FOLD_SHADE = 2.6  # pixels; standard deviation of the shade of a fold


@dataclass(frozen=True)
class Skin:
    """The skin of a speaker.

    Attributes:
        texture: Relative brightness, [SIZE, SIZE], about 1.
        fold: Depth of the folds between nose and mouth, 0…1.
        teeth: Brightness of the teeth between the lips relative to that in full light.
        lips: Share of the skin's colour in that of the lips.
        nose: Depth of the shades of the nose, 0…1.
    """

    texture: np.ndarray
    fold: float
    teeth: float
    lips: float
    nose: float

    def look(self, look: Look) -> Look:
        """The same look with teeth in shade and paler lips."""
        return replace(look, teeth=look.teeth * self.teeth, lips=look.lips + self.lips * (look.skin - look.lips))

    def paint(self, head: np.ndarray, look: Look, x: np.ndarray, y: np.ndarray) -> None:
        """Change a head, premultiplied RGBA [SIZE, SIZE, 4]; (x, y) its pixels."""
        shade = np.ones((SIZE, SIZE))
        for side in (-1, 1):
            start = np.array([CENTRE + side * (look.nose_width + 4), NOSE_Y - 2])
            end = np.array([CENTRE + side * (look.mouth_width + 7), look.mouth_y + 4])
            along = end - start
            position = np.clip(((x - start[0]) * along[0] + (y - start[1]) * along[1]) / (along @ along), 0, 1)
            distance = np.hypot(x - start[0] - position * along[0], y - start[1] - position * along[1])
            shade *= 1 - self.fold * (1 - 0.6 * position) * np.exp(-0.5 * (distance / FOLD_SHADE) ** 2)
        head[..., :3] *= (self.texture * shade * self._nose(look, x - CENTRE, y - NOSE_Y))[..., None]

    def _nose(self, look: Look, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
        """Brightness of the nose's tip, wings and nostrils, about 1."""
        wide = look.nose_width
        light = 1 + 0.2 * self.nose * blob(dx, dy + 7, 0.5 * wide, 4)
        light *= 1 - 0.5 * self.nose * blob(dx, dy - 2.5, 0.9 * wide, 1.8)
        for side in (-1, 1):
            wing = ellipse(dx - side * 0.62 * wide, dy + 3.5, 0.55 * wide, 5.5)
            outside = np.clip(side * dx / wide, 0, 1)
            light *= 1 - self.nose * outside * np.exp(-0.5 * ((wing - 1) / 1.6) ** 2)
            light *= 1 - self.nose * blob(dx - side * 0.45 * wide, dy - 0.5, 0.3 * wide, 1.5)
        return light


@dataclass(frozen=True)
class Lens:
    """A lens.

    Attributes:
        kernel: Weights of the blur in each direction, their sum is 1.
        glare: Gray levels that stray light adds to black; white does not change.
    """

    kernel: np.ndarray
    glare: float

    def blur(self, image: np.ndarray) -> None:
        """Blur a whole image [SIZE, SIZE, 3], and add stray light."""
        half = len(self.kernel) // 2
        for axis in (0, 1):
            padded = np.pad(image, [(half, half) if axis == number else (0, 0) for number in range(3)], mode="edge")
            image[:] = 0
            for shift, weight in enumerate(self.kernel):
                image += weight * (padded[shift : shift + SIZE] if axis == 0 else padded[:, shift : shift + SIZE])
        image *= np.float32(1 - self.glare / 255)
        image += np.float32(self.glare)


def draw_skin(rng: np.random.Generator) -> Skin:
    """Draw the skin of a speaker."""
    strength, fold, teeth = rng.uniform(0.03, 0.06), rng.uniform(0, 0.3), rng.uniform(0.6, 0.85)
    texture = 0.7 * cloud(rng, (SIZE, SIZE), FINE) + 0.5 * cloud(rng, (SIZE, SIZE), COARSE)
    lips, nose = rng.uniform(0.2, 0.65), rng.uniform(0.2, 0.5)
    return Skin(1 + strength * texture, float(fold), float(teeth), float(lips), float(nose))


def draw_lens(rng: np.random.Generator) -> Lens:
    """Draw the lens of a clip."""
    spread = rng.uniform(0.6, 1.2)
    position = np.arange(-5, 6)
    kernel = np.exp(-0.5 * (position / spread) ** 2)
    return Lens((kernel / kernel.sum()).astype(np.float32), float(rng.uniform(5, 30)))
