"""What a live recogniser takes and returns: frames, samples, words and events. Times are in seconds of the caller."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PARTIAL, FINAL, NOTICE = "partial", "final", "notice"  # kinds of events


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a stream.

    Attributes:
        image: RGB uint8 [H, W, 3], or a mouth crop, gray uint8 [96, 96] (for models that read from nose to chin:
            [88, 88]).
        seconds: When it was recorded, by the clock that the audio has too.
    """

    image: np.ndarray
    seconds: float


@dataclass(frozen=True)
class AudioBlock:
    """Consecutive samples of a stream.

    Attributes:
        samples: int16 [N] at 16 kHz, mono.
        seconds: When the first sample was recorded, by the clock that the frames have too; None: the block follows the
            one before without a gap.
    """

    samples: np.ndarray
    seconds: float | None = None


@dataclass(frozen=True)
class LiveWord:
    """One word.

    Attributes:
        text: The word.
        start: Start time in seconds.
        end: End time in seconds.
        confidence: The recognizer's probability of the word, 0 to 1.
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class LiveEvent:
    """What a live recogniser reports.

    Attributes:
        kind: 'partial': the words so far of an utterance that goes on, in place of earlier ones; 'final': the words
            of an utterance that has ended, which never change again; 'notice': a message.
        utterance: Number of the utterance, from 0; of a notice: that of the next utterance.
        start: Start time in seconds of what was read.
        end: End time in seconds of what was read.
        words: The words, empty if none were recognised.
        modality: The streams that were read: 'av', 'a' or 'v'; of a notice ''.
        person: Who spoke, by number of appearance from 1; None without video.
        message: One sentence, of a notice only.
    """

    kind: str
    utterance: int
    start: float
    end: float
    words: tuple[LiveWord, ...] = ()
    modality: str = ""
    person: int | None = None
    message: str = ""

    @property
    def text(self) -> str:
        """The words, separated by spaces."""
        return " ".join(word.text for word in self.words)
