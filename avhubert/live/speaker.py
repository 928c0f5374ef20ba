"""Who speaks in a live stream: the person whose mouth opening matches the audio, as `avhubert.prepare.speaker` says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avhubert.live.history import History
from avhubert.live.mouths import Person
from avhubert.prepare.speaker import LEAST_SCORE, band_levels, match

MIN_VISIBLE = 0.5  # share of a window's frames in which a face must be detected
MEMORY = 1500  # frames of levels


class VoiceLevels:
    """Level of each frequency band of the audio, by frame, as it arrives."""

    def __init__(self) -> None:
        self.levels = History((2,), np.float64, MEMORY)

    def push(self, samples: np.ndarray, frames: int) -> None:
        """Take the samples, int16 [640 · frames], of the next frames."""
        if frames:
            self.levels.extend(band_levels(samples, frames).T)


def visible(people: Sequence[Person], start: int, end: int) -> list[Person]:
    """The people whose faces are detected in at least half of the frames start … end − 1."""
    return [
        person
        for person in people
        if person.mouths.start <= start
        and person.mouths.end >= end
        and person.detected[start:end].mean() >= MIN_VISIBLE
    ]


def speaking_person(people: Sequence[Person], levels: History | None, start: int, end: int) -> Person | None:
    """Who of the visible people speaks in the frames start … end − 1; None if nobody is visible.

    The one whose mouth matches the audio; if no mouth does, the one whose mouth moves most.

    Args:
        people: Everybody who is known.
        levels: Levels of the audio, see `VoiceLevels`; None without audio.
        start: First frame.
        end: Frame after the last one.
    """
    present = visible(people, start, end)
    if len(present) < 2:
        return present[0] if present else None
    gaps = [_relative_gap(person, start, end) for person in present]
    if levels is not None and levels.start <= start and levels.end >= end:
        scores = [match(gap, levels[start:end].T) for gap in gaps]
        if max(scores) >= LEAST_SCORE:
            return present[int(np.argmax(scores))]
    return present[int(np.argmax([gap.std() for gap in gaps]))]


def _relative_gap(person: Person, start: int, end: int) -> np.ndarray:
    """Opening of the lips in face heights, float [T]."""
    height = max(float(np.median(person.height[start:end])), 1.0)
    gap: np.ndarray = person.lip_gap[start:end] / height
    return gap
