"""When a clip is rejected: the limits, and a monitor of the frames with bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.errors import MediaError

MIN_FACE_SHARE = 0.8  # share of frames in which the face must be detected
MAX_FACES = 8  # faces of one video that become clips
MAX_LENGTH_DIFFERENCE = 0.2  # seconds between the ends of video and audio
MIN_FRAMES = 5
MAX_UNUSABLE_SHARE = 0.2  # share of frames that may be black, or in one stretch frozen
FROZEN_SECONDS = 1.0  # a shorter stretch is a pause
BLACK_LEVEL = 24  # no pixel of a black frame is brighter; black in video is 0 or, with a wrong range flag, 16
FROZEN_CHANGE = 0.05  # mean change in gray levels between frames below which nothing moves
STEP = 4  # only every fourth pixel of every fourth row is read


@dataclass
class FrameMonitor:
    """Counts the frames of a video, black ones, and the longest frozen stretch; stops a video after `max_frames`."""

    max_frames: int
    frames: int = 0
    black: int = 0
    longest_frozen: int = 0
    finished: bool = False

    def watch(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the same frames, uint8 [H, W, …]. MediaError as soon as there are too many."""
        previous, frozen = None, 1
        for frame in frames:
            if self.frames == self.max_frames:
                raise too_long(self.max_frames / FRAME_RATE)
            self.frames += 1
            sample = frame[::STEP, ::STEP].astype(np.int16)
            self.black += bool(sample.max() <= BLACK_LEVEL)
            moved = previous is None or float(np.abs(sample - previous).mean()) >= FROZEN_CHANGE
            frozen = 1 if moved else frozen + 1
            self.longest_frozen = max(self.longest_frozen, frozen)
            previous = sample
            yield frame
        self.finished = True

    def problem(self) -> MediaError | None:
        """Why the video is rejected after all its frames have passed; None if it is usable."""
        if self.black > MAX_UNUSABLE_SHARE * self.frames:
            share = 100 * self.black / self.frames
            return _rejected("the video is black", f"in {share:.0f} % of the frames")
        seconds = self.longest_frozen / FRAME_RATE
        if seconds >= FROZEN_SECONDS and self.longest_frozen > MAX_UNUSABLE_SHARE * self.frames:
            return _rejected("the video is frozen", f"for {seconds:.1f} s")
        return None


def too_long(seconds: float) -> MediaError:
    """The error for a clip that is longer than `seconds`."""
    return _rejected("too long", f"more than {seconds:g} s")


def check_clip(monitor: FrameMonitor, face_share: float, audio_seconds: float) -> None:
    """Check a clip after all its frames have passed.

    Raises:
        MediaError: The clip is rejected.
    """
    difference = audio_seconds - monitor.frames / FRAME_RATE
    if monitor.frames < MIN_FRAMES:
        raise _rejected("too short", f"{monitor.frames} frames")
    if problem := monitor.problem():
        raise problem
    if face_share < MIN_FACE_SHARE:
        raise _rejected("face in too few frames", f"{100 * face_share:.0f} %")
    if abs(difference) > MAX_LENGTH_DIFFERENCE + 1e-6:
        raise _rejected("audio and video differ in length", f"{difference:+.2f} s")


def _rejected(kind: str, detail: str) -> MediaError:
    return MediaError(f"{kind} ({detail})", kind=kind)
