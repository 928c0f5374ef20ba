"""Optional realism, as measured on crops of GRID: skin with texture and folds, teeth in shade; a lens and a codec."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avhubert.corpora.synthetic.look import CENTRE, NOSE_Y, Look
from avhubert.corpora.synthetic.painting import SIZE, cloud

BLOCK = 8  # pixels; side of the blocks of a video codec
FINE, COARSE = 100, 45  # cells of the skin's texture in each direction
FOLD_SHADE = 2.6  # pixels; standard deviation of the shade of a fold


@dataclass(frozen=True)
class Skin:
    """The skin of a speaker.

    Attributes:
        texture: Relative brightness, [SIZE, SIZE], about 1.
        fold: Depth of the folds between nose and mouth, 0…1.
        teeth: Brightness of the teeth between the lips relative to that in full light.
    """

    texture: np.ndarray
    fold: float
    teeth: float

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
        head[..., :3] *= (self.texture * shade)[..., None]


@dataclass(frozen=True)
class Lens:
    """A lens and a codec.

    Attributes:
        kernel: Weights of the blur in each direction, their sum is 1.
        glare: Gray levels that stray light adds to black; white does not change.
        step: Step of the lowest frequencies of a block; 0: nothing is lost.
    """

    kernel: np.ndarray
    glare: float
    step: float

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

    def compress(self, image: np.ndarray) -> None:
        """Round the frequencies of blocks of gray levels, as codecs do."""
        if not self.step:
            return
        gray = image.mean(-1)
        blocks = gray.reshape(SIZE // BLOCK, BLOCK, SIZE // BLOCK, BLOCK).transpose(0, 2, 1, 3)
        waves = _cosines()
        frequencies = waves @ blocks @ waves.T
        order = np.arange(BLOCK)
        steps = np.float32(self.step) * (1 + order[:, None] + order[None, :])
        lossy = waves.T @ (np.rint(frequencies / steps) * steps) @ waves
        image += (lossy.transpose(0, 2, 1, 3).reshape(SIZE, SIZE) - gray)[..., None]


def _cosines() -> np.ndarray:
    """The orthonormal cosine transform of BLOCK values, float32 [BLOCK, BLOCK]."""
    order = np.arange(BLOCK)
    waves = np.cos(np.pi * order[:, None] * (2 * order[None, :] + 1) / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    waves[0] /= np.sqrt(2)
    result: np.ndarray = waves.astype(np.float32)
    return result


def draw_skin(rng: np.random.Generator) -> Skin:
    """Draw the skin of a speaker."""
    strength, fold, teeth = rng.uniform(0.03, 0.06), rng.uniform(0, 0.3), rng.uniform(0.6, 0.85)
    texture = 0.7 * cloud(rng, (SIZE, SIZE), FINE) + 0.5 * cloud(rng, (SIZE, SIZE), COARSE)
    return Skin(1 + strength * texture, float(fold), float(teeth))


def draw_lens(rng: np.random.Generator) -> Lens:
    """Draw the lens and the codec of a clip."""
    spread = rng.uniform(0.6, 1.2)
    position = np.arange(-5, 6)
    kernel = np.exp(-0.5 * (position / spread) ** 2)
    return Lens((kernel / kernel.sum()).astype(np.float32), float(rng.uniform(5, 30)), float(rng.uniform(0, 5)))
