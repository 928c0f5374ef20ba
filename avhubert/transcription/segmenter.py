"""Cuts a recording into windows at pauses, and joins the words of overlapping windows. Times are in frames of 25 Hz."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from avhubert.constants import FRAME_RATE, SAMPLES_PER_FRAME
from avhubert.transcription.transcript import Segment, Word

# windows, in frames
LONGEST = 15 * FRAME_RATE  # longest window, including its overlaps; see `longest_window`
MIN_LONGEST = 2 * FRAME_RATE  # lower limit of the longest window, for recognizers trained on very short clips
SHORTEST = FRAME_RATE // 2  # shortest window with speech; shorter ones are merged with a neighbour
OVERLAP = FRAME_RATE  # on both sides of a cut outside a pause; at most an eighth of the longest window
EDGE = 6  # frames before and after speech that belong to its window

# pauses, in frames without speech
PAUSE = FRAME_RATE  # separates two windows, however short they are
SHORT_PAUSE = 4  # a window that is too long may be cut here
EMPTY = 2 * FRAME_RATE  # becomes a window without speech, which is not decoded

# speech activity
SILENT = -65.0  # dB of full scale; quieter frames are always silent
MIN_RANGE = 12.0  # dB between quiet and loud frames; with less, the level does not show pauses
STILL = 0.0015  # lip movement per frame in face heights; below it, the mouth is at rest
SMOOTHING = 9  # frames over which lip movement is averaged
VOICE_MARGIN = 15  # frames before and after a voice that count as speech, see `speech_activity`
CUT_SMOOTHING = 5  # frames over which activity is averaged to find the quietest frame


@dataclass(frozen=True)
class Window:
    """Consecutive frames that are decoded together.

    Attributes:
        start: First frame that is decoded.
        end: Frame after the last one that is decoded.
        core_start: First frame whose words are kept; later than `start` if the window overlaps the one before.
        core_end: Frame after the last one whose words are kept.
        speech: Whether the window has speech.
    """

    start: int
    end: int
    core_start: int
    core_end: int
    speech: bool = True

    @property
    def frames(self) -> int:
        """Number of frames that are decoded."""
        return self.end - self.start

    @property
    def core_frames(self) -> int:
        """Number of frames whose words are kept."""
        return self.core_end - self.core_start

    @property
    def overlaps_previous(self) -> bool:
        """Whether the window before covers its first frames too."""
        return self.start < self.core_start


# --------------------------------------------------------------------------- speech activity
def loudness(samples: np.ndarray, frames: int) -> np.ndarray:
    """Level of int16 [N] at 16 kHz in dB of full scale, float [frames]; frames after the last sample are silent."""
    power = np.zeros(frames)
    whole = min(frames, -(-len(samples) // SAMPLES_PER_FRAME))
    used = samples[: whole * SAMPLES_PER_FRAME].astype(np.float64)
    padded = np.pad(used, (0, whole * SAMPLES_PER_FRAME - len(used)))
    power[:whole] = np.square(padded).reshape(whole, -1).mean(1)
    return 10 * np.log10(power / 32768**2 + 1e-12)


def movement(lip_gap: np.ndarray, face_height: float) -> np.ndarray:
    """Movement of the lips, float [T]: change of their opening per frame in face heights, averaged over 0.36 s."""
    if len(lip_gap) < 2:
        return np.zeros(len(lip_gap))
    return _moving_average(np.abs(np.gradient(lip_gap / max(face_height, 1.0))), SMOOTHING)


def visible_stretches(detected: np.ndarray) -> np.ndarray:
    """Stretches in which a face is visible, bool [T], from the frames in which it was detected; both last 2 s."""
    visible: np.ndarray = detected.copy()
    for value in (True, False):  # first closes the gaps, then removes what is short
        for start, end in spans(visible != value):
            if end - start < EMPTY and (value or end - start < len(visible)):
                visible[start:end] = value
    return visible


def audible_speech(level: np.ndarray) -> np.ndarray | None:
    """Frames that are loud enough for speech, bool [T]; None if the level varies too little (steady noise, music)."""
    quiet, loud = np.percentile(level, [3, 95])
    if loud < SILENT:
        return np.zeros(len(level), bool)
    quiet = max(quiet, SILENT)
    if loud - quiet < MIN_RANGE:
        return None
    return np.asarray(level > quiet + 0.35 * (loud - quiet))


def visible_speech(moved: np.ndarray) -> np.ndarray:
    """Frames in which the mouth moves, bool [T]."""
    quiet, busy = np.percentile(moved, [5, 95])
    if busy < STILL:
        return np.zeros(len(moved), bool)
    quiet = min(quiet, STILL)  # without pauses, even the quietest frames are speech
    return np.asarray(moved > max(STILL / 2, quiet + 0.15 * (busy - quiet)))


def _moving_average(values: np.ndarray, width: int) -> np.ndarray:
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, "valid")


def active_frames(level: np.ndarray | None, moved: np.ndarray | None, voiced: np.ndarray | None) -> np.ndarray:
    """Frames in which somebody may speak, bool [T].

    Pauses of the audio are used; pauses of the lips only where the level of the audio shows none. What is loud without
    being speech (music, noise) is not active, except while the lips move: noise may hide the voice from the detector.

    Args:
        level: Level of the audio in dB, float [T]; None without audio.
        moved: Movement of the lips, float [T]; None without a face. At least one of the two is needed.
        voiced: Frames of the audio with speech, bool [T]; None: all that is loud counts.
    """
    audible = None if level is None else audible_speech(level)
    visible = None if moved is None else visible_speech(moved)
    if audible is not None and not audible.any() and visible is not None:
        audible = None  # the recording may be muted although somebody speaks
    if audible is not None:
        speech = audible
    elif visible is not None:
        speech = visible
    else:
        assert level is not None
        speech = np.ones(len(level), bool)
    if voiced is None:
        return speech
    return _without_noise(_with_quiet_voices(speech, voiced), voiced if visible is None else voiced | visible)


def _with_quiet_voices(speech: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """Adds speech in long pauses: beside something loud, the level takes a quiet voice for a pause."""
    result: np.ndarray = speech.copy()
    for start, end in spans(~speech):
        if end - start >= EMPTY:
            first, last = start + VOICE_MARGIN, end - VOICE_MARGIN  # without the margins of the speech around the pause
            for a, b in spans(voiced[first:last]):
                if b - a >= SHORTEST:
                    result[first + a : first + b] = True
    return result


def _without_noise(speech: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """Removes what is outside of possible speech for longer than a pause inside a sentence."""
    result: np.ndarray = speech.copy()
    for start, end in spans(~possible):
        if end - start >= EMPTY:
            result[start:end] = False
    return result


def spans(mask: np.ndarray) -> list[tuple[int, int]]:
    """(start, end) of each span of True in bool [T]."""
    change = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(change[::2], change[1::2], strict=True)]


# --------------------------------------------------------------------------- cutting
def longest_window(trained_frames: int | None) -> int:
    """Frames of the longest window: at most those of the longest clip that the recognizer was trained on."""
    return max(MIN_LONGEST, min(LONGEST, trained_frames or LONGEST))


def find_windows(
    level: np.ndarray | None, moved: np.ndarray | None, longest: int = LONGEST, voiced: np.ndarray | None = None
) -> list[Window]:
    """Windows over T frames; their cores cover each frame exactly once, in order.

    A pause of 1 s separates two windows in its middle. A window longer than `longest` is cut in its longest pause;
    without a pause, it is cut at the quietest frame, and the two windows overlap. 2 s or more without any activity
    become a window without speech.

    Args:
        level: Level of the audio in dB, float [T]; None without audio.
        moved: Movement of the lips, float [T]; None without a face. At least one of the two is needed.
        longest: Limit of a window's length in frames.
        voiced: Frames of the audio with speech, bool [T]; None if that is not known, see `active_frames`.
    """
    activity = level if level is not None else moved
    assert activity is not None
    speech = active_frames(level, moved, voiced)
    smoothed = _moving_average(activity, CUT_SMOOTHING)
    windows: list[Window] = []
    for start, end, has_speech in _stretches(speech):
        if has_speech:
            windows += _limited(start, end, speech, smoothed, longest)
        else:
            windows.append(Window(start, end, start, end, False))
    return windows


def _merged_spans(speech: np.ndarray) -> list[tuple[int, int]]:
    """Spans of speech; those separated by less than a pause are merged, short ones also across longer pauses."""
    merged: list[tuple[int, int]] = []
    for start, end in spans(speech):
        if merged:
            previous_start, previous_end = merged[-1]
            gap = start - previous_end
            short = min(end - start, previous_end - previous_start) < SHORTEST
            if gap < PAUSE or (short and gap < EMPTY):
                merged[-1] = (previous_start, end)
                continue
        merged.append((start, end))
    return merged


def _stretches(speech: np.ndarray) -> list[tuple[int, int, bool]]:
    """(start, end, whether there is speech) of stretches that cover every frame and end in pauses."""
    frames = len(speech)
    if not speech.any():
        return [(0, frames, False)]
    spans = _merged_spans(speech)
    stretches, covered = [], 0
    for (start, end), (following, _) in zip(spans, [*spans[1:], (frames, frames)], strict=True):
        if start - covered >= EMPTY - EDGE:
            stretches.append((covered, start - EDGE, False))
            covered = start - EDGE
        if following - end >= EMPTY:
            stop = end + EDGE
        elif following == frames:
            stop = frames
        else:
            stop = (end + following) // 2
        stretches.append((covered, stop, True))
        covered = stop
    if covered < frames:
        stretches.append((covered, frames, False))
    return stretches


def _limited(start: int, end: int, speech: np.ndarray, activity: np.ndarray, longest: int) -> list[Window]:
    """One stretch of speech as windows of at most `longest` frames."""
    if end - start <= longest:
        return [Window(start, end, start, end)]
    pauses = [
        (b - a, start + (a + b) // 2)
        for a, b in spans(~speech[start:end])
        if b - a >= SHORT_PAUSE and a >= SHORTEST and b <= end - start - SHORTEST
    ]
    if pauses:
        _, cut = max(pauses)
        return [
            *_limited(start, cut, speech, activity, longest),
            *_limited(cut, end, speech, activity, longest),
        ]
    return _overlapping(start, end, activity, longest)


def _overlapping(start: int, end: int, activity: np.ndarray, longest: int) -> list[Window]:
    """One stretch of speech without pauses, cut at its quietest frames into windows that overlap."""
    overlap = min(OVERLAP, longest // 8)
    cuts = [start]
    while end - cuts[-1] > longest - overlap * (len(cuts) > 1):
        core = longest - overlap * (1 + (len(cuts) > 1))
        first = cuts[-1] + 2 * core // 3
        cuts.append(first + int(np.argmin(activity[first : cuts[-1] + core])))
    cuts.append(end)
    return [
        Window(a - overlap if a > start else a, b + overlap if b < end else b, a, b)
        for a, b in itertools.pairwise(cuts)
    ]


def cut_windows(windows: list[Window], cuts: Sequence[int], longest: int = LONGEST) -> list[Window]:
    """Cuts windows with speech at given frames; the parts overlap, so that no word is lost.

    Args:
        windows: Windows of consecutive frames.
        cuts: Frames, in order.
        longest: Limit of a window's length in frames.
    """
    overlap = min(OVERLAP, longest // 8)
    result: list[Window] = []
    for window in windows:
        rest = window
        for cut in cuts:
            if rest.speech and rest.core_start + EMPTY <= cut <= rest.core_end - EMPTY:
                result.append(replace(rest, end=min(rest.end, cut + overlap), core_end=cut))
                rest = replace(rest, start=max(rest.start, cut - overlap), core_start=cut)
        result.append(rest)
    return result


def complete_windows(windows: list[Window], chunk_frames: int) -> tuple[list[Window], int]:
    """The windows of a chunk that no later frame can change, and the frame where they end.

    The next chunk starts there: if possible in a pause in the second half of the chunk, else after the window before
    the last one, without overlap.
    """
    if len(windows) < 2:
        return windows, windows[-1].core_end if windows else chunk_frames
    pauses = [
        number
        for number, window in enumerate(windows[1:], 1)
        if not window.overlaps_previous and window.start > chunk_frames // 2
    ]
    complete = windows[: pauses[-1] if pauses else -1]
    last = complete[-1]
    return [*complete[:-1], replace(last, end=last.core_end)], last.core_end


# --------------------------------------------------------------------------- joining
def join_words(before: Sequence[Word], after: Sequence[Word], cut_seconds: float) -> tuple[list[Word], list[Word]]:
    """The words of two overlapping windows without repetitions.

    If both windows have the same word at the same time, they are joined at the one nearest to the cut. Otherwise each
    word is kept by the window whose core has the middle of the word.
    """
    common = [
        (abs(_middle(word) - cut_seconds), i, j)
        for i, word in enumerate(before)
        for j, other in enumerate(after)
        if word.text == other.text and min(word.end, other.end) > max(word.start, other.start)
    ]
    if common:
        _, i, j = min(common)
        return list(before[: i + 1]), list(after[j + 1 :])
    first = bisect.bisect_left([_middle(word) for word in before], cut_seconds)
    second = bisect.bisect_left([_middle(word) for word in after], cut_seconds)
    return list(before[:first]), list(after[second:])


def join_segments(before: Segment, after: Segment, cut_seconds: float) -> tuple[Segment, Segment]:
    """The segments of two overlapping windows without repeated words."""
    words_before, words_after = join_words(before.words, after.words, cut_seconds)
    return _with_words(before, words_before), _with_words(after, words_after)


def _with_words(segment: Segment, words: Sequence[Word]) -> Segment:
    return replace(segment, words=tuple(words), text=" ".join(word.text for word in words))


def _middle(word: Word) -> float:
    return (word.start + word.end) / 2
