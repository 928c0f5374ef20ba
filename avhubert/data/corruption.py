"""What goes wrong with a picture: faults put on mouth clips to see how a recognizer bears them.

Clips are uint8 [T, H, W] at 25 Hz. The same clip id gives the same fault in every run and for every model.
"""

from __future__ import annotations

import hashlib

import numpy as np

from avhubert.errors import ConfigError, one_of

SHARE = 0.4  # of a clip's frames that a freeze, an occlusion or drops last


BLUR = 4.0  # standard deviation of the blur, pixels of a 96×96 mouth clip


COVERED = 0.6  # of the height and of the width that an occlusion covers, about the middle


FARTHEST = 25  # frames that picture and sound may be moved apart


KINDS = ("blur", "freeze", "occlusion", "drop", "offset:N")


def parse_fault(text: str) -> str:
    """`text` if it names a fault: blur, freeze, occlusion, drop or offset:N, −25 ≤ N ≤ 25 frames; else ConfigError."""
    kind, _, frames = text.partition(":")
    if kind == "offset":
        try:
            count = int(frames)
        except ValueError:
            count = 0
        if not 1 <= abs(count) <= FARTHEST:
            raise ConfigError(f"fault '{text}': give the offset in frames, 1 to {FARTHEST} either way, as in offset:-5")
    elif text not in KINDS:
        raise ConfigError(one_of("fault", text, KINDS))
    return text


def with_fault(frames: np.ndarray, fault: str, clip_id: str) -> np.ndarray:
    """The frames with `fault` (as `parse_fault` has it), a new array of the same shape.

    blur: all of the clip. freeze: a stretch shows its first frame. occlusion: a gray rectangle over the mouth for a
    stretch. drop: random frames are missing, the one before stays. offset:N: the picture comes N frames late (early
    where N < 0), the frame at the edge standing.
    """
    rng = np.random.default_rng([*hashlib.sha256(f"{fault} {clip_id}".encode()).digest()])
    count = len(frames)
    kind, _, moved = fault.partition(":")
    if kind == "blur":
        return _blurred(frames)
    if kind == "offset":
        return frames[np.clip(np.arange(count) - int(moved), 0, count - 1)]
    if kind == "drop":
        missing = rng.random(count) < SHARE
        missing[0] = False
        return frames[np.maximum.accumulate(np.where(missing, 0, np.arange(count)))]
    length = max(1, round(SHARE * count))
    start = int(rng.integers(0, count - length + 1))
    faulty = frames.copy()
    if kind == "freeze":
        faulty[start : start + length] = frames[start]
    else:
        height, width = frames.shape[1:]
        top, left = round((1 - COVERED) / 2 * height), round((1 - COVERED) / 2 * width)
        faulty[start : start + length, top : height - top, left : width - left] = 128
    return faulty


def _blurred(frames: np.ndarray) -> np.ndarray:
    """A Gaussian along rows and columns, the edges standing on."""
    reach = round(3 * BLUR)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / BLUR) ** 2)
    kernel /= kernel.sum()
    blurred = frames.astype(np.float32)
    for axis in (1, 2):
        around = [(reach, reach) if each == axis else (0, 0) for each in range(3)]
        padded = np.pad(blurred, around, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis)
        blurred = windows @ kernel.astype(np.float32)
    return np.rint(blurred).astype(np.uint8)
