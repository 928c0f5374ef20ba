"""Where in a live stream somebody speaks, and where utterances end. Times are in frames of 25 Hz."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avhubert.constants import FRAME_RATE, SAMPLES_PER_FRAME
from avhubert.live.history import History
from avhubert.transcription.segmenter import (
    CUT_SMOOTHING,
    EDGE,
    OVERLAP,
    SHORT_PAUSE,
    SHORTEST,
    active_frames,
    loudness,
    spans,
    visible_speech,
)
from avhubert.transcription.speech_activity import MIN_PROBABILITY, StreamingDetector, voiced

CONTEXT = 60 * FRAME_RATE  # frames by which quiet and loud are told apart
SHORTEST_PAUSE, LONGEST_PAUSE = 7, 15  # frames without speech after which an utterance has ended …
PAUSE_SHARE = 10  # … and within these limits, the longest window divided by this
MIN_SPEECH = 4  # frames of speech with which an utterance begins


class AudioActivity:
    """Level and probability of speech of each frame of the audio, as it arrives."""

    def __init__(self) -> None:
        self.level = History((), np.float64, CONTEXT)
        self.probability = History((), np.float32, CONTEXT)
        self.present = History((), np.bool_, CONTEXT)  # False: silence in place of missing audio
        self._detector = StreamingDetector()
        self._samples = np.zeros(0, np.int16)  # of the frame that is not complete yet
        self._present = np.zeros(0, bool)

    @property
    def end(self) -> int:
        """Number of frames for which everything is known."""
        return min(self.level.end, self.probability.end)

    def push(self, samples: np.ndarray, present: bool) -> None:
        """Take samples, int16 [N] at 16 kHz; `present`: they were recorded, and do not replace missing ones."""
        self.probability.extend(self._detector.push(samples))
        samples = np.concatenate([self._samples, samples])
        self._present = np.concatenate([self._present, np.full(len(samples) - len(self._present), present)])
        frames = len(samples) // SAMPLES_PER_FRAME
        used = frames * SAMPLES_PER_FRAME
        if frames == 0:
            self._samples = samples
            return
        self.level.extend(loudness(samples[:used], frames))
        self.present.extend(self._present[:used].reshape(frames, SAMPLES_PER_FRAME).mean(1) > 0.5)
        self._samples, self._present = samples[used:], self._present[used:]


@dataclass(frozen=True)
class Utterance:
    """A stretch of speech that is read together.

    Attributes:
        number: From 0.
        start: First frame that is read.
        core_start: First frame whose words count; later than `start` after a cut without a pause.
    """

    number: int
    start: int
    core_start: int


@dataclass(frozen=True)
class Window:
    """What is read of an utterance.

    Attributes:
        utterance: The utterance.
        end: First frame that is not read any more.
        core_end: First frame whose words do not count.
        final: Whether the utterance ends with it.
    """

    utterance: Utterance
    end: int
    core_end: int
    final: bool = True


class Segmenter:
    """Begins an utterance with speech and ends it in a pause, or where it would become too long.

    Attributes:
        pause: Frames without speech after which an utterance has ended.
        current: The utterance that goes on; None in a pause.
        number: Of the next utterance.
    """

    def __init__(self, longest: int) -> None:
        """Begin in a pause.

        Args:
            longest: Limit of a window's length in frames.
        """
        self.longest = longest
        self.pause = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, longest // PAUSE_SHARE))
        self.current: Utterance | None = None
        self.number = 0
        self._free = 0  # first frame that no utterance has read
        self._shift = 0

    def update(self, speech: np.ndarray, activity: np.ndarray, end: int) -> Window | None:
        """Take the newest knowledge; where the utterance ends, if it does.

        Args:
            speech: Frames with speech, bool [n], of the last n frames before `end`.
            activity: Level of the audio, or movement of the lips, of the same frames.
            end: Frame after the last one.
        """
        self._shift = end - len(speech)
        if self.current is None:
            self._begin(speech, end)
        utterance = self.current
        if utterance is None:
            return None
        since = speech[utterance.core_start - self._shift :]
        last = int(np.flatnonzero(since)[-1]) + 1 if since.any() else 0
        stop = utterance.core_start + last
        if end - stop >= self.pause:
            return self._ended(utterance, min(end, stop + EDGE))
        if end - utterance.start >= self.longest:
            return self._cut(speech, activity, utterance, end)
        return None

    def flush(self, end: int) -> Window | None:
        """End the utterance at the end of the stream."""
        return None if self.current is None else self._ended(self.current, end)

    def _begin(self, speech: np.ndarray, end: int) -> None:
        first = max(self._free, self._shift)
        for start, stop in spans(speech[first - self._shift :]):
            if stop - start >= MIN_SPEECH:
                begin = max(first, first + start - EDGE)
                self.current = Utterance(self.number, begin, begin)
                self.number += 1
                return
        self._free = max(self._free, end - self.pause)

    def _ended(self, utterance: Utterance, core_end: int, end: int | None = None) -> Window:
        self.current = None
        self._free = core_end
        return Window(utterance, core_end if end is None else end, core_end)

    def _cut(self, speech: np.ndarray, activity: np.ndarray, utterance: Utterance, end: int) -> Window:
        """End a long utterance in its longest pause, or at its quietest frame, with an overlap."""
        start = utterance.start
        pauses = [
            (b - a, start + (a + b) // 2)
            for a, b in spans(~speech[start - self._shift : end - self._shift])
            if b - a >= SHORT_PAUSE and a >= SHORTEST
        ]
        if pauses:
            cut = max(pauses)[1]
            return self._ended(utterance, cut)
        overlap = min(OVERLAP, self.longest // 8)
        quiet = np.convolve(activity, np.ones(CUT_SMOOTHING) / CUT_SMOOTHING, "same")
        first, last = start + self.longest // 2, end - overlap
        cut = first + int(quiet[first - self._shift : last - self._shift].argmin())
        window = self._ended(utterance, cut, min(end, cut + overlap))
        self.current = Utterance(self.number, max(cut - overlap, start + 1), cut)
        self.number += 1
        return window


def speaking(audio: AudioActivity | None, moved: np.ndarray | None, end: int, count: int) -> np.ndarray:
    """Frames with speech among the last `count` before `end`, bool [count].

    As `active_frames`, with the difference that speech in noise ends where the voice does: a live text cannot wait.

    Args:
        audio: Of the stream; None without audio.
        moved: Movement of the lips, float [count]; None without a face. At least one of the two is needed.
        end: Frame after the last one.
        count: Number of frames.
    """
    if audio is None:
        assert moved is not None
        return visible_speech(moved)
    frames = slice(end - count, end)
    probability = audio.probability[frames]
    speech = active_frames(audio.level[frames], moved, voiced(probability))
    sure = np.pad(probability >= MIN_PROBABILITY, EDGE)
    voice = np.lib.stride_tricks.sliding_window_view(sure, 2 * EDGE + 1).any(1)
    if moved is not None:
        voice |= visible_speech(moved)
    return speech & voice
