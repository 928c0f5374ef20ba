"""What keeps a clip out of the data: limits, and a watch over its pictures while they pass, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.errors import MediaError

MIN_FOUND = 0.8  # share of frames in which the face must be seen

MAX_FACES = 8  # of one video that become clips

MAX_LENGTH_DIFFERENCE = 0.2  # seconds between the ends of picture and sound

MIN_FRAMES = 5

MAX_FAULTY = 0.2  # share of frames that may be black, or in one stretch frozen

FROZEN_SECONDS = 1.0  # a shorter stretch is a pause

BLACK_LEVEL = 24  # no pixel of a black picture is brighter; video black is 0 or, wrongly marked, 16

FROZEN_CHANGE = 0.05  # mean change in gray levels from frame to frame below which nothing moves

STEP = 4  # every fourth pixel of every fourth row is looked at


@dataclass
class Watch:
    """Counts frames, black ones, and the longest stretch of unchanged ones; stops a video past `max_frames`."""

    max_frames: int
    frames: int = 0
    black: int = 0
    longest_still: int = 0
    finished: bool = False

    def over(self, pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same pictures, uint8 [H, W, …]. MediaError as soon as there are too many."""
        before, still = None, 1
        for picture in pictures:
            if self.frames == self.max_frames:
                raise MediaError(too_long(self.max_frames / FRAME_RATE))
            self.frames += 1
            few = picture[::STEP, ::STEP].astype(np.int16)
            self.black += bool(few.max() <= BLACK_LEVEL)
            moved = before is None or float(np.abs(few - before).mean()) >= FROZEN_CHANGE
            still = 1 if moved else still + 1
            self.longest_still = max(self.longest_still, still)
            before = few
            yield picture
        self.finished = True

    def fault(self) -> str:
        """Why a video whose frames have all passed can't be used; '' if it can."""
        if self.black > MAX_FAULTY * self.frames:
            return f"the picture is black (in {100 * self.black / self.frames:.0f} % of the frames)"
        seconds = self.longest_still / FRAME_RATE
        if seconds >= FROZEN_SECONDS and self.longest_still > MAX_FAULTY * self.frames:
            return f"the picture is frozen (for {seconds:.1f} s)"
        return ""


def too_long(seconds: float) -> str:
    """The reason for a clip that lasts longer than `seconds`."""
    return f"too long (more than {seconds:g} s)"


def check(watch: Watch, found_share: float, audio_seconds: float) -> None:
    """MediaError with the reason if a clip, seen whole, is to be left out; the reason begins with its kind."""
    difference = audio_seconds - watch.frames / FRAME_RATE
    if watch.frames < MIN_FRAMES:
        raise MediaError(f"too short ({watch.frames} frames)")
    if fault := watch.fault():
        raise MediaError(fault)
    if found_share < MIN_FOUND:
        raise MediaError(f"face in too few frames ({100 * found_share:.0f} %)")
    if abs(difference) > MAX_LENGTH_DIFFERENCE + 1e-6:
        raise MediaError(f"sound and picture differ in length ({difference:+.2f} s)")
