"""Random variation of training clips: speed, size, rotation, light and sharpness of the mouth, colour of the voice.

A recognizer that is fine-tuned on few speakers learns their faces and voices by heart; clips that vary teach it that
these do not matter. `data.augment` draws the values, the functions here apply them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from avhubert.constants import SAMPLE_RATE
from avhubert.data.audio import resample


@dataclass(frozen=True)
class ImageChange:
    """How the frames of a clip change.

    Attributes:
        scale: of the mouth; above 1 it becomes larger.
        degrees: rotation, clockwise.
        sharpness: resolution relative to that of the clip, above 0, at most 1.
        gamma: exponent of the gray levels, which are between 0 and 1.
        contrast: factor of the distance to middle gray.
        brightness: added to the gray levels between 0 and 1.
    """

    scale: float = 1.0
    degrees: float = 0.0
    sharpness: float = 1.0
    gamma: float = 1.0
    contrast: float = 1.0
    brightness: float = 0.0


def change_speed_of_frames(frames: np.ndarray, speed: float) -> np.ndarray:
    """Play a clip faster or slower: the nearest frame for each new time.

    Args:
        frames: uint8 [T, H, W].
        speed: above 1: faster.

    Returns:
        uint8 [T', H, W], T' as `frames_at_speed` says.
    """
    times = (np.arange(frames_at_speed(len(frames), speed)) + 0.5) * speed
    chosen: np.ndarray = frames[np.minimum(times.astype(int), len(frames) - 1)]
    return chosen


def frames_at_speed(frames: int, speed: float) -> int:
    """Frames of a clip at another speed, at least 1."""
    return max(1, round(frames / speed))


def change_speed_of_samples(samples: np.ndarray, speed: float) -> np.ndarray:
    """Play audio int16 [N] faster or slower; its pitch changes too, as that of a tape."""
    return resample(samples, round(SAMPLE_RATE * speed))


def change_images(frames: np.ndarray, change: ImageChange) -> np.ndarray:
    """Scale, rotate, blur and relight all frames of a clip alike; pixels at the edge are repeated outwards.

    Args:
        frames: uint8 [T, H, W].
        change: the same for all frames.

    Returns:
        uint8 [T, H, W], a new array.
    """
    height, width = frames.shape[1:]
    images = torch.from_numpy(frames)[None].float()  # the frames are the channels of one image
    if change.scale != 1 or change.degrees:
        angle = math.radians(change.degrees)
        cosine, sine = math.cos(angle) / change.scale, math.sin(angle) / change.scale
        matrix = torch.tensor([[cosine, sine * height / width, 0.0], [-sine * width / height, cosine, 0.0]])
        grid = F.affine_grid(matrix[None], [1, 1, height, width], align_corners=False)
        images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if change.sharpness < 1:
        small = (max(1, round(height * change.sharpness)), max(1, round(width * change.sharpness)))
        images = F.interpolate(F.adaptive_avg_pool2d(images, small), (height, width), mode="bilinear")
    changed: np.ndarray = _light(change).take(images[0].round_().clamp_(0, 255).byte().numpy())
    return changed


def _light(change: ImageChange) -> np.ndarray:
    """The new gray level of each of the 256 levels, uint8 [256]."""
    levels = (np.arange(256) / 255) ** change.gamma
    levels = (levels - 0.5) * change.contrast + 0.5 + change.brightness
    rounded: np.ndarray = np.rint(levels.clip(0, 1) * 255).astype(np.uint8)
    return rounded
