"""Which of several faces is the active speaker."""

from __future__ import annotations

import numpy as np

from avhubert.constants import SAMPLES_PER_FRAME
from avhubert.prepare.geometry import interpolate
from avhubert.prepare.tracking import Track

SPEAKER_WINDOW = 9  # frames

LEAST_POWER = 100.0  # of samples: below it is silence

LEAST_SPREAD = 1.0  # dB by which the sound's level must vary to tell anything

LEAST_SHARED = 2e-4  # of face heights per frame, that a mouth's movement shares with the sound's level


# --------------------------------------------------------------------------- the speaker
def speaking(tracks: list[Track], sound: np.ndarray, frames: int) -> tuple[Track, bool]:
    """The track whose mouth moves with the sound, int16 [N] at 16 kHz, and True; the first and False if none does.

    Tracks seen in less than half as many frames as the first are not asked. A mouth's movement is the change of its
    opening relative to the face's height, the sound its level in dB, both as means over 0.36 s.
    """
    needed = frames * SAMPLES_PER_FRAME
    samples = np.pad(sound[:needed].astype(np.float64), (0, max(0, needed - len(sound))))
    level = 10 * np.log10(np.square(samples).reshape(frames, -1).mean(1) + LEAST_POWER)
    asked = [one for one in tracks if 2 * len(one.frames) >= len(tracks[0].frames)]
    scores = [_moves_with(one, level) for one in asked]
    best = int(np.argmax(scores))
    return (asked[best], True) if scores[best] >= LEAST_SHARED else (tracks[0], False)


def _moves_with(one: Track, level: np.ndarray) -> float:
    """Covariance of movement and sound over the sound's spread, in units that are the same for all faces.

    Not the correlation: the noise of a still mouth may correlate with anything, but hardly moves.
    """
    index = np.array(sorted(one.frames))
    if len(index) <= SPEAKER_WINDOW:
        return 0.0
    height = np.median([one.frames[i].box[3] - one.frames[i].box[1] for i in index])
    gap = interpolate(index, np.array([one.frames[i].lip_gap for i in index]), len(level)) / max(height, 1.0)
    moved, heard = _smoothed(np.abs(np.gradient(gap)))[index], _smoothed(level)[index]
    spread = float(heard.std())
    return float(np.mean((moved - moved.mean()) * (heard - heard.mean()))) / spread if spread >= LEAST_SPREAD else 0.0


def _smoothed(values: np.ndarray) -> np.ndarray:
    padded = np.pad(values, SPEAKER_WINDOW // 2, mode="edge")
    return np.convolve(padded, np.ones(SPEAKER_WINDOW) / SPEAKER_WINDOW, "valid")
