"""Video corruption: simulated damage to mouth clips, to measure and to train the robustness of a recognizer.

Clips are uint8 [T, H, W] at 25 Hz. The corruption of a clip depends on its kind and the clip's id only, so that all
models are compared on the same frames. The configuration keys are `data.faults` and `data.fault_prob`, the option of
`avhubert evaluate` is `--fault`.
"""

from __future__ import annotations

import hashlib

import numpy as np

from avhubert.errors import ConfigError, one_of

CORRUPTED_SHARE = 0.4  # of a clip's frames: the length of a freeze or occlusion, the probability that a frame drops
BLUR_SIGMA = 4.0  # standard deviation of the blur in pixels of a 96×96 mouth clip
OCCLUDED_SHARE = 0.6  # of the height and of the width: the size of the occlusion, which is centred
MAX_OFFSET = 25  # frames between video and audio
KINDS = ("blur", "freeze", "occlusion", "drop", "offset:N")


def parse_corruption(text: str) -> str:
    """Check the name of a corruption and return it unchanged.

    Args:
        text: blur, freeze, occlusion, drop or offset:N with N in frames, −25 ≤ N ≤ 25 and N ≠ 0.

    Raises:
        ConfigError: the kind is unknown, or the offset is not a number in that range.
    """
    kind, _, frames = text.partition(":")
    if kind == "offset":
        try:
            offset = int(frames)
        except ValueError:
            offset = 0
        if not 1 <= abs(offset) <= MAX_OFFSET:
            raise ConfigError(
                f"video corruption '{text}': give the offset in frames, 1 to {MAX_OFFSET} or -{MAX_OFFSET} to -1, "
                "as in offset:-5"
            )
    elif text not in KINDS:
        raise ConfigError(one_of("video corruption", text, KINDS))
    return text


def corrupt(frames: np.ndarray, corruption: str, clip_id: str) -> np.ndarray:
    """Corrupt a mouth clip.

    - blur: a Gaussian blur of every frame.
    - freeze: one random span repeats its first frame.
    - occlusion: a gray rectangle covers the mouth during one random span.
    - drop: random frames are replaced by the frame before them.
    - offset:N: the video is N frames late (early if N < 0); its first (last) frame is repeated.

    Args:
        frames: uint8 [T, H, W].
        corruption: a name that `parse_corruption` accepts.
        clip_id: with the name of the corruption the seed of the random numbers.

    Returns:
        A new array uint8 [T, H, W]; `frames` is not changed.
    """
    rng = np.random.default_rng([*hashlib.sha256(f"{corruption} {clip_id}".encode()).digest()])
    count = len(frames)
    kind, _, offset = corruption.partition(":")
    if kind == "blur":
        return _blur(frames)
    if kind == "offset":
        return frames[np.clip(np.arange(count) - int(offset), 0, count - 1)]
    if kind == "drop":
        dropped = rng.random(count) < CORRUPTED_SHARE
        dropped[0] = False
        return frames[np.maximum.accumulate(np.where(dropped, 0, np.arange(count)))]
    length = max(1, round(CORRUPTED_SHARE * count))
    start = int(rng.integers(0, count - length + 1))
    corrupted: np.ndarray = frames.copy()
    if kind == "freeze":
        corrupted[start : start + length] = frames[start]
    else:
        height, width = frames.shape[1:]
        top, left = round((1 - OCCLUDED_SHARE) / 2 * height), round((1 - OCCLUDED_SHARE) / 2 * width)
        corrupted[start : start + length, top : height - top, left : width - left] = 128
    return corrupted


def _blur(frames: np.ndarray) -> np.ndarray:
    """A separable Gaussian blur of uint8 [T, H, W]; pixels at the edge are repeated outwards."""
    radius = round(3 * BLUR_SIGMA)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / BLUR_SIGMA) ** 2)
    kernel /= kernel.sum()
    blurred = frames.astype(np.float32)
    for axis in (1, 2):
        widths = [(radius, radius) if dimension == axis else (0, 0) for dimension in range(3)]
        padded = np.pad(blurred, widths, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis)
        blurred = windows @ kernel.astype(np.float32)
    return np.rint(blurred).astype(np.uint8)
