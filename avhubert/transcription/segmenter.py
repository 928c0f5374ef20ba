"""Where a recording is cut: pauses of sound and mouth, windows of limited length, and how their words are joined again.

Everything is counted in frames of 25 Hz.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avhubert.constants import FRAME_RATE, SAMPLES_PER_FRAME
from avhubert.transcription.transcript import Word

LONGEST = 15 * FRAME_RATE  # window, with its overlaps


OVERLAP = FRAME_RATE  # on both sides of a cut that no pause offered, at most an eighth of the longest window


PAUSE = FRAME_RATE  # without speech: parts two windows, however short they are


SHORT_PAUSE = 4  # frames without speech where a window that is too long may be cut


EMPTY = 2 * FRAME_RATE  # without speech for so long: not read at all


EDGE = 6  # frames kept before and after speech


SHORTEST = FRAME_RATE // 2  # of a window with speech; shorter ones join their neighbour


SILENT = -65.0  # dB of full scale: below is silence, whatever the rest


LEAST_RANGE = 12.0  # dB between the quiet and the loud frames, below which loudness says nothing about pauses


STILL = 0.0015  # lip movement a frame, in face heights, below which a mouth is at rest


@dataclass(frozen=True)
class Window:
    """Frames [start, end) are read; the words of [core_start, core_end) are kept. speech: whether there is any."""

    start: int
    end: int
    core_start: int
    core_end: int
    speech: bool = True


# --------------------------------------------------------------------------- speech
def loudness(samples: np.ndarray, frames: int) -> np.ndarray:
    """Level of int16 [N] at 16 kHz in dB of full scale, float [frames]; frames beyond the samples are silent."""
    power = np.zeros(frames)
    whole = min(frames, -(-len(samples) // SAMPLES_PER_FRAME))
    part = samples[: whole * SAMPLES_PER_FRAME].astype(np.float64)
    padded = np.pad(part, (0, whole * SAMPLES_PER_FRAME - len(part)))
    power[:whole] = np.square(padded).reshape(whole, -1).mean(1)
    return 10 * np.log10(power / 32768**2 + 1e-12)


def movement(lip_gap: np.ndarray, face_height: float) -> np.ndarray:
    """How much the lips move, float [T]: change of their opening a frame in face heights, mean over 0.36 s."""
    if len(lip_gap) < 2:
        return np.zeros(len(lip_gap))
    return _smooth(np.abs(np.gradient(lip_gap / max(face_height, 1.0))), 9)


def sounds(level: np.ndarray) -> np.ndarray | None:
    """bool [T]: frames that may be speech, by their level; None where the level tells nothing (steady noise, music)."""
    quiet, loud = np.percentile(level, [3, 95])
    if loud < SILENT:
        return np.zeros(len(level), bool)
    quiet = max(quiet, SILENT)
    if loud - quiet < LEAST_RANGE:
        return None
    return level > quiet + 0.35 * (loud - quiet)


def moves(moved: np.ndarray) -> np.ndarray:
    """bool [T]: frames in which the mouth is not at rest."""
    quiet, busy = np.percentile(moved, [5, 95])
    if busy < STILL:
        return np.zeros(len(moved), bool)
    quiet = min(quiet, STILL)  # who never stops talking has no pauses
    return moved > max(STILL / 2, quiet + 0.15 * (busy - quiet))


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, "valid")


# --------------------------------------------------------------------------- cutting
def windows(level: np.ndarray | None, moved: np.ndarray | None, longest: int = LONGEST) -> list[Window]:
    """Windows over T frames; their cores cover every frame once, in order.

    level: dB [T] of the sound, moved: [T] of the mouth; either may be None, not both. A pause of 1 s in the sound (of
    the mouth, where the sound has none to offer) parts two windows in its middle; what is longer than `longest` is cut
    in its longest pause; where there is none, it is cut where it is quietest, and the two windows overlap. A stretch of
    2 s in which neither sound nor mouth does anything is a window without speech.
    """
    figures = level if level is not None else moved
    assert figures is not None
    frames = len(figures)
    heard = None if level is None else sounds(level)
    seen = None if moved is None else moves(moved)
    if heard is not None and not heard.any() and seen is not None:
        heard = None  # a muted recording is not a silent speaker
    active = heard if heard is not None else seen if seen is not None else np.ones(frames, bool)
    calm = _smooth(figures, 5)
    found: list[Window] = []
    for start, end, speech in _stretches(active):
        found += _limited(start, end, active, calm, longest) if speech else [Window(start, end, start, end, False)]
    return found


def _runs(of: np.ndarray) -> list[tuple[int, int]]:
    """(start, end) of each run of True in bool [T]."""
    change = np.flatnonzero(np.diff(np.concatenate([[0], of.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(change[::2], change[1::2], strict=True)]


def _stretches(active: np.ndarray) -> list[tuple[int, int, bool]]:
    """(start, end, speech) that cover every frame, parted in pauses."""
    frames = len(active)
    if not active.any():
        return [(0, frames, False)]
    joined: list[tuple[int, int]] = []
    for start, end in _runs(active):
        gap = start - joined[-1][1] if joined else frames
        short = joined and min(end - start, joined[-1][1] - joined[-1][0]) < SHORTEST
        if joined and (gap < PAUSE or (short and gap < EMPTY)):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    found, done = [], 0
    for (start, end), (following, _) in zip(joined, [*joined[1:], (frames, frames)], strict=True):
        if start - done >= EMPTY - EDGE:  # long without speech: a window of its own
            found.append((done, start - EDGE, False))
            done = start - EDGE
        stop = end + EDGE if following - end >= EMPTY else frames if following == frames else (end + following) // 2
        found.append((done, stop, True))
        done = stop
    if done < frames:
        found.append((done, frames, False))
    return found


def _limited(start: int, end: int, active: np.ndarray, calm: np.ndarray, longest: int) -> list[Window]:
    """A stretch of speech in windows of at most `longest` frames."""
    if end - start <= longest:
        return [Window(start, end, start, end)]
    pauses = [
        (b - a, start + (a + b) // 2)
        for a, b in _runs(~active[start:end])
        if b - a >= SHORT_PAUSE and a >= SHORTEST and b <= end - start - SHORTEST
    ]
    if pauses:
        _, cut = max(pauses)
        return [*_limited(start, cut, active, calm, longest), *_limited(cut, end, active, calm, longest)]
    overlap = min(OVERLAP, longest // 8)
    cuts = [start]
    while end - cuts[-1] > longest - overlap * (len(cuts) > 1):
        core = longest - overlap * (1 + (len(cuts) > 1))
        first = cuts[-1] + 2 * core // 3
        cuts.append(first + int(np.argmin(calm[first : cuts[-1] + core])))
    cuts.append(end)
    return [
        Window(a - overlap if a > start else a, b + overlap if b < end else b, a, b)
        for a, b in itertools.pairwise(cuts)
    ]


# --------------------------------------------------------------------------- joining
def join(before: Sequence[Word], after: Sequence[Word], cut_seconds: float) -> tuple[list[Word], list[Word]]:
    """The words of two overlapping windows, each said once.

    Where both heard a word at the same time near the cut, they are joined at the one nearest to it; else each word goes
    to the window in whose core its middle lies.
    """
    same = [
        (abs((one.start + one.end) / 2 - cut_seconds), i, j)
        for i, one in enumerate(before)
        for j, other in enumerate(after)
        if one.text == other.text and min(one.end, other.end) > max(one.start, other.start)
    ]
    if same:
        _, i, j = min(same)
        return list(before[: i + 1]), list(after[j + 1 :])
    first = bisect.bisect_left([(word.start + word.end) / 2 for word in before], cut_seconds)
    second = bisect.bisect_left([(word.start + word.end) / 2 for word in after], cut_seconds)
    return list(before[:first]), list(after[second:])
