"""Selects the active speaker among several faces: the one whose mouth opening matches the audio."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from avhubert.constants import SAMPLE_RATE, SAMPLES_PER_FRAME
from avhubert.prepare.geometry import interpolate
from avhubert.prepare.tracking import Track

# The first formant rises when the mouth opens. The 80 to 300 Hz of the voice itself say little about which mouth it is.
BANDS = ((300, 1000), (1000, 3000))  # Hz
LEAST_POWER = 1e4  # of a band's spectrum; less is silence
TREND_WINDOW = 25  # frames; slower changes are removed: all speakers are silent at the ends of a clip
LEAST_SPREAD = 1.0  # dB; with a smaller standard deviation the audio level selects nobody
LEAST_SCORE = 0.1  # mean correlation from which on the audio selects a face
STILL_GAP = 0.004  # standard deviation of the lip gap in face heights; the noise of a still mouth correlates by chance


class ActiveSpeaker(NamedTuple):
    """The track of the active speaker, and whether the audio selected it."""

    track: Track
    by_audio: bool


def active_speaker(tracks: list[Track], audio: np.ndarray, frames: int) -> ActiveSpeaker:
    """The track whose mouth opening matches the audio, int16 [N] at 16 kHz; the first track if none does.

    Only tracks with at least half as many frames as the first are candidates. The score of a face is the mean of three
    correlations: of the lip gap with the level of each of two frequency bands, and of the gap's change with the level
    of the upper band one frame later. Changes slower than a second are removed from gap and levels.
    """
    levels = band_levels(audio, frames)
    candidates = [track for track in tracks if 2 * len(track.frames) >= len(tracks[0].frames)]
    scores = [_score(track, levels) for track in candidates]
    best = int(np.argmax(scores))
    if scores[best] >= LEAST_SCORE:
        return ActiveSpeaker(candidates[best], True)
    return ActiveSpeaker(tracks[0], False)


def band_levels(audio: np.ndarray, frames: int) -> np.ndarray:
    """Level of each band in dB per video frame, [2, frames]."""
    length = frames * SAMPLES_PER_FRAME
    samples = np.pad(audio[:length].astype(np.float64), (0, max(0, length - len(audio))))
    spectrum = np.fft.rfft(samples.reshape(frames, -1) * np.hanning(SAMPLES_PER_FRAME), axis=1)
    power = np.square(np.abs(spectrum))
    frequencies = np.fft.rfftfreq(SAMPLES_PER_FRAME, 1 / SAMPLE_RATE)
    bands = [power[:, (frequencies >= low) & (frequencies < high)].mean(1) for low, high in BANDS]
    decibels: np.ndarray = 10 * np.log10(np.stack(bands) + LEAST_POWER)
    return decibels


def _score(track: Track, levels: np.ndarray) -> float:
    """How well the mouth of a track matches the levels [2, T]: −1…1, near 0 for a still mouth."""
    index = np.array(sorted(track.frames))
    if len(index) < TREND_WINDOW // 2:
        return 0.0
    first, last = int(index[0]), int(index[-1]) + 1
    height = max(float(np.median([track.frames[i].box[3] - track.frames[i].box[1] for i in index])), 1.0)
    gap = interpolate(index - first, np.array([track.frames[i].lip_gap for i in index]), last - first) / height
    return match(gap, levels[:, first:last])


def match(gap: np.ndarray, levels: np.ndarray) -> float:
    """How well the opening of a mouth in face heights, [T], matches the levels [2, T]: −1…1, near 0 for a still one."""
    if len(gap) < TREND_WINDOW // 2 or levels.std(axis=1).max() < LEAST_SPREAD:
        return 0.0
    pairs = _pairs(gap, levels)
    return _mean_correlation(pairs, 0) * min(1.0, float(pairs[0][0].std()) / STILL_GAP)


def correlations_by_lag(lip_gap: np.ndarray, audio: np.ndarray, lags: Iterable[int]) -> np.ndarray:
    """The mean of the three correlations of `active_speaker` for each lag, −1…1, [number of lags].

    Args:
        lip_gap: Float [T].
        audio: int16 [640 T] at 16 kHz.
        lags: Frames by which the lips are taken to move after the audio; negative: before it.
    """
    pairs = _pairs(lip_gap, band_levels(audio, len(lip_gap)))
    return np.array([_mean_correlation(pairs, lag) for lag in lags])


def _pairs(gap: np.ndarray, levels: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """What of a lip gap [T] and of levels [2, T] is correlated."""
    opening = _without_trend(gap)
    lower, upper = (_without_trend(level) for level in levels)
    return (opening, lower), (opening, upper), (np.gradient(gap)[:-1], upper[1:])


def _mean_correlation(pairs: Iterable[tuple[np.ndarray, np.ndarray]], lag: int) -> float:
    late, early = max(0, lag), max(0, -lag)
    correlations = [_correlation(a[late : len(a) - early], b[early : len(b) - late]) for a, b in pairs]
    return float(np.mean(correlations))


def _without_trend(values: np.ndarray) -> np.ndarray:
    """The values [T] without their weighted mean over `TREND_WINDOW` frames."""
    width = min(TREND_WINDOW, (len(values) + 1) // 2 * 2 - 1)
    weights = np.hanning(width + 2)[1:-1]
    padded = np.pad(values, width // 2, mode="edge")
    rest: np.ndarray = values - np.convolve(padded, weights / weights.sum(), "valid")
    return rest


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / spread if spread > 0 else 0.0
