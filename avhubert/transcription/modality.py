"""Which streams of a recording are worth reading, and what a user should know about them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.errors import ConfigError
from avhubert.transcription.segmenter import SILENT, STILL

MIN_SEEN = 0.5  # share of frames with a face below which lips are not read beside sound


DARK = 40.0  # mean gray level of mouth clips below which there is little to see


LONGEST_OFFSET = 20  # frames by which sound and lips are moved against each other to find their offset


WORTH_TELLING = 5  # frames


CLEARLY = 0.12  # by which the correlation at the offset must be above that without


LEAST_CORRELATION = 0.35


ORDER = {"both": ("av", "a", "v"), "sound": ("a", "av", "v"), "lips": ("v", "av", "a"), "neither": ("av", "a", "v")}


def choose(
    known: Sequence[str], level: np.ndarray | None, moved: np.ndarray | None, found_share: float, file: str,
    no_picture: str = "",
) -> tuple[str, str]:  # fmt: skip
    """The modality to read, one of `known` and there, and the reason in words.

    level: dB [T] of the sound, None without any; moved: [T] of the mouth, None if no face was found;
    no_picture: why there is no picture to look for a face in; '' if there is one.

    Raises:
        ConfigError: the model reads none of what the file offers.
    """
    sound = level is not None and np.percentile(level, 95) >= SILENT
    lips = moved is not None and found_share >= MIN_SEEN and np.percentile(moved, 95) >= STILL
    there = ("a" if level is not None else "") + ("v" if moved is not None else "")
    kind = "both" if sound and lips else "sound" if sound else "lips" if lips else "neither"
    for choice in ORDER[kind]:
        if choice in known and set(choice) <= set(there):
            return choice, _reason(choice, level, moved, found_share, bool(sound), bool(lips), known, no_picture)
    raise ConfigError(f"this model reads {', '.join(known)}, but {file} only offers '{there}'")


def _reason(
    choice: str, level: np.ndarray | None, moved: np.ndarray | None, share: float, sound: bool, lips: bool,
    known: Sequence[str], no_picture: str,
) -> str:  # fmt: skip
    if choice == "av" and sound and lips:
        return "sound and lips are both there"
    if choice == "av":
        return "this model reads sound and lips only together" if len(known) == 1 else "both streams are there"
    missing = "lips" if choice == "a" else "sound"
    if choice == "a":
        why = (
            no_picture if no_picture
            else "no face was found" if moved is None
            else f"the face is seen in only {100 * share:.0f} % of the frames" if share < MIN_SEEN
            else "the mouth does not move" if not lips
            else "this model does not read both"
        )  # fmt: skip
    else:
        why = (
            "there is no sound" if level is None
            else "the sound is silent" if not sound
            else "this model does not read both"
        )  # fmt: skip
    return f"without the {missing}: {why}"


def dark(mouth: np.ndarray) -> str | None:
    """A warning if mouth clips, uint8 [T, 96, 96], are too dark to show much."""
    mean = float(mouth.mean())
    return f"the picture is dark (mean gray level {mean:.0f} of 255 around the mouth)" if mean < DARK else None


def offset(lip_gap: np.ndarray, level: np.ndarray) -> str | None:
    """A warning if sound and lips, both [T], fit each other clearly better when moved by 0.2 s or more."""
    frames = min(len(lip_gap), len(level))
    if frames < 4 * LONGEST_OFFSET:
        return None
    gap, heard = lip_gap[:frames], np.maximum(level[:frames], SILENT)
    lags = list(range(-LONGEST_OFFSET, LONGEST_OFFSET + 1))
    fits = [_correlation(gap[max(0, lag) : frames + min(0, lag)], heard[max(0, -lag) : frames - max(0, lag)])
            for lag in lags]  # fmt: skip
    best = int(np.argmax(fits))
    lag = lags[best]
    if abs(lag) < WORTH_TELLING or fits[best] < LEAST_CORRELATION or fits[best] - fits[LONGEST_OFFSET] < CLEARLY:
        return None
    which = "after" if lag > 0 else "before"
    return f"the lips seem to move {abs(lag) / FRAME_RATE:.2f} s {which} the sound; check the recording's synchrony"


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    spread = float(a.std() * b.std())
    return float(np.mean((a - a.mean()) * (b - b.mean()))) / spread if spread > 1e-9 else 0.0
