"""Selects the active speaker among several faces: the one whose mouth motion matches the audio."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from avhubert.constants import SAMPLES_PER_FRAME
from avhubert.prepare.geometry import interpolate
from avhubert.prepare.tracking import Track

SMOOTHING_WINDOW = 9  # frames
LEAST_POWER = 100.0  # of samples; less is silence
LEAST_SPREAD = 1.0  # dB; with a smaller standard deviation the audio level selects nobody
LEAST_SHARED = 2e-4  # of face heights per frame; mouth motion that is explained by the audio level


class ActiveSpeaker(NamedTuple):
    """The track of the active speaker, and whether the audio selected it."""

    track: Track
    by_audio: bool


def active_speaker(tracks: list[Track], audio: np.ndarray, frames: int) -> ActiveSpeaker:
    """The track whose mouth motion matches the audio, int16 [N] at 16 kHz; the first track if none does.

    Only tracks with at least half as many frames as the first are candidates. Mouth motion is the change of the lip
    gap relative to the face's height; the audio level is in dB; both are means over 0.36 s.
    """
    length = frames * SAMPLES_PER_FRAME
    samples = np.pad(audio[:length].astype(np.float64), (0, max(0, length - len(audio))))
    level = 10 * np.log10(np.square(samples).reshape(frames, -1).mean(1) + LEAST_POWER)
    candidates = [track for track in tracks if 2 * len(track.frames) >= len(tracks[0].frames)]
    scores = [_shared_motion(track, level) for track in candidates]
    best = int(np.argmax(scores))
    if scores[best] >= LEAST_SHARED:
        return ActiveSpeaker(candidates[best], True)
    return ActiveSpeaker(tracks[0], False)


def _shared_motion(track: Track, level: np.ndarray) -> float:
    """Covariance of mouth motion and audio level over the level's standard deviation, comparable between faces.

    Not the correlation: the noise of a still mouth can correlate with anything, but is small.
    """
    index = np.array(sorted(track.frames))
    if len(index) <= SMOOTHING_WINDOW:
        return 0.0
    height = np.median([track.frames[i].box[3] - track.frames[i].box[1] for i in index])
    gap = interpolate(index, np.array([track.frames[i].lip_gap for i in index]), len(level)) / max(height, 1.0)
    motion, loudness = _smooth(np.abs(np.gradient(gap)))[index], _smooth(level)[index]
    spread = float(loudness.std())
    if spread < LEAST_SPREAD:
        return 0.0
    return float(np.mean((motion - motion.mean()) * (loudness - loudness.mean()))) / spread


def _smooth(values: np.ndarray) -> np.ndarray:
    padded = np.pad(values, SMOOTHING_WINDOW // 2, mode="edge")
    return np.convolve(padded, np.ones(SMOOTHING_WINDOW) / SMOOTHING_WINDOW, "valid")
