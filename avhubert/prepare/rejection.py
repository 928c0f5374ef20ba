"""When a clip is rejected: the limits, and a monitor of the frames with bounded memory.

The longest clip is an option of the command: its default is `MAX_CLIP_SECONDS` in `avhubert.config.command_defaults`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from avhubert.constants import FRAME_RATE
from avhubert.errors import MediaError
from avhubert.processes import report_progress

# kinds of rejection
TOO_LONG, NO_AUDIO, NO_VIDEO, NO_FACE = "too long", "no audio track", "no video track", "no face was found"

MIN_FACE_SHARE = 0.8  # share of frames in which the face must be detected
MAX_GAP_FRAMES = 25  # in a row in which the face may be undetected: the crop is interpolated between its neighbours
MAX_FACES = 8  # faces of one video that become clips
MAX_LENGTH_DIFFERENCE = 0.2  # seconds between the ends of video and audio
MIN_FRAMES = 5
WORD_TOLERANCE = 0.1  # seconds of the last word that may be missing
MAX_BLACK_SHARE = 0.2  # share of frames that may be black
BLACK_LEVEL = 24  # no pixel of a black frame is brighter; black in video is 0 or, with a wrong range flag, 16
# A camera or stream that hangs repeats the same frame. Encoders refine it: measured, 0.3 to 1.0 of the frames are equal
# with x264 at constant quality. The face of a person at rest changes in every frame by noise and breath, if only by
# 0.01 gray levels on average: no frames are equal.
FROZEN_CHANGE = 0.05  # mean change of the face in gray levels between frames below which nothing moves, and …
EQUAL_SHARE = 0.25  # … share of equal frames from which on a stretch without movement is frozen
FROZEN_FRAMES = 10  # length of a frozen stretch; fewer are the repetitions of a slow camera
FROZEN_SECONDS = 1.0  # of all stretches; less is a hitch
MAX_FROZEN_SHARE = 0.5  # of the clip: strong compression repeats frames of a person who waits before speaking
GRID = 32  # changes are recorded in cells, so many in each direction of the frame
STEP = 4  # only every fourth pixel of every fourth row is read


class CutError(MediaError):
    """There are faces before and after a cut.

    Attributes:
        frame: First frame of the second shot with faces.
        frames: Number of frames of the clip.
    """

    def __init__(self, frame: int, frames: int) -> None:
        kind = "a cut between shots with faces"
        super().__init__(f"{kind} (at {frame / FRAME_RATE:.2f} s; cut the video there)", kind=kind)
        self.frame = frame
        self.frames = frames


@dataclass
class FrameMonitor:
    """Counts the frames of a video and black ones, records where frames change; stops a video after `max_frames`."""

    max_frames: int
    frames: int = 0
    black: int = 0
    finished: bool = False
    _changes: list[np.ndarray] = field(default_factory=list)  # per frame the mean change in each cell of the grid
    _size: tuple[int, int] = (1, 1)  # height and width of the frames

    def watch(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the same frames, uint8 [H, W, …]. MediaError as soon as there are too many."""
        previous = None
        for frame in frames:
            if self.frames == self.max_frames:
                raise too_long(self.max_frames / FRAME_RATE)
            report_progress()
            self.frames += 1
            self.black += bool(frame[::STEP, ::STEP].max() <= BLACK_LEVEL)
            self._changes.append(_change(previous, frame))
            self._size = frame.shape[:2]
            previous = frame
            yield frame
        self.finished = True

    def problem(self, boxes: Sequence[np.ndarray] = ()) -> MediaError | None:
        """Why the video is rejected after all its frames have passed; None if it is usable.

        Args:
            boxes: Per face float [T, 4]: left, top, right and bottom in each frame; without faces, the whole frame
                counts.
        """
        if self.black > MAX_BLACK_SHARE * self.frames:
            share = 100 * self.black / self.frames
            return _rejected("the video is black", f"in {share:.0f} % of the frames")
        frozen = min(map(self._frozen_frames, boxes)) if boxes else self._frozen_frames(None)
        if frozen >= FROZEN_SECONDS * FRAME_RATE and frozen > MAX_FROZEN_SHARE * self.frames:
            return _rejected("the video is frozen", f"for {frozen / FRAME_RATE:.1f} s")
        return None

    def _frozen_frames(self, boxes: np.ndarray | None) -> int:
        """Number of frames in frozen stretches, within the boxes [T, 4] of a face."""
        changes = [self._change_in(cells, None if boxes is None else boxes[i]) for i, cells in enumerate(self._changes)]
        frozen = 0
        starts = [index for index, change in enumerate(changes) if change >= FROZEN_CHANGE]
        for start, end in itertools.pairwise([*starts, len(changes)]):
            equal = sum(change == 0 for change in changes[start + 1 : end])
            if end - start >= FROZEN_FRAMES and equal >= EQUAL_SHARE * (end - start - 1):
                frozen += end - start
        return frozen

    def _change_in(self, cells: np.ndarray, box: np.ndarray | None) -> float:
        """Mean change in the cells that a box covers; None: in all cells."""
        if box is not None:
            height, width = self._size
            left, top = np.clip(np.floor(GRID * box[:2] / (width, height)), 0, GRID - 1).astype(int)
            right, bottom = np.clip(np.ceil(GRID * box[2:] / (width, height)), 1, GRID).astype(int)
            cells = cells[top:bottom, left:right]
        return float(cells.mean(dtype=np.float32)) if cells.size else 0.0


def _change(previous: np.ndarray | None, frame: np.ndarray) -> np.ndarray:
    """Mean change of a frame in gray levels in each cell of the grid: float16 [GRID, GRID], 0 only for equal pixels."""
    if previous is None or previous.shape != frame.shape:
        return np.full((GRID, GRID), 255, np.float16)
    if frame is previous:  # repeated because the source has fewer frames per second
        return np.zeros((GRID, GRID), np.float16)
    change = _cell_means(_green(frame)[::STEP, ::STEP], _green(previous)[::STEP, ::STEP])
    if change.any() or np.array_equal(frame, previous):
        return change
    if frame.ndim == 2:
        return _cell_means(frame, previous)
    channels: list[np.ndarray] = [_cell_means(frame[..., channel], previous[..., channel]) for channel in range(3)]
    total: np.ndarray = channels[0] + channels[1] + channels[2]
    return total


def _green(frame: np.ndarray) -> np.ndarray:
    """Green stands for the gray level of an RGB frame."""
    return frame if frame.ndim == 2 else frame[..., 1]


def _cell_means(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean absolute difference of uint8 [H, W] images in each cell of the grid: float16 [GRID, GRID]."""
    means: np.ndarray = np.abs(np.subtract(a, b, dtype=np.int16)).astype(np.float32)
    for axis in (0, 1):
        starts = np.arange(GRID) * a.shape[axis] // GRID
        sizes = np.maximum(np.diff(starts, append=a.shape[axis]), 1)
        means = np.add.reduceat(means, starts, axis) / sizes.reshape((-1, 1) if axis == 0 else (1, -1))
    return means.astype(np.float16)


def too_long(seconds: float) -> MediaError:
    """The error for a clip that is longer than `seconds`."""
    return _rejected(TOO_LONG, f"more than {seconds:g} s")


def check_video(
    monitor: FrameMonitor,
    face_share: float,
    boxes: Sequence[np.ndarray] = (),
    longest_gap: int = 0,
    cut: int | None = None,
) -> None:
    """Check the video of a clip after all its frames have passed.

    Args:
        monitor: Has seen the frames.
        face_share: Share of frames in which the speaker's face was detected.
        boxes: Per face float [T, 4], see `FrameMonitor.problem`.
        longest_gap: Number of frames in a row in which the speaker's face was not detected.
        cut: First frame of another shot with a face; None if there is none.

    Raises:
        MediaError: The clip is rejected.
    """
    if monitor.frames < MIN_FRAMES:
        raise _rejected("too short", f"{monitor.frames} frames")
    if problem := monitor.problem(boxes):
        raise problem
    if cut is not None:
        raise CutError(cut, monitor.frames)
    if face_share < MIN_FACE_SHARE:
        raise _rejected("face in too few frames", f"{100 * face_share:.0f} %")
    if longest_gap > MAX_GAP_FRAMES:
        raise _rejected("the face is not seen for too long", f"{longest_gap / FRAME_RATE:.1f} s")


def check_lengths(monitor: FrameMonitor, audio_seconds: float) -> None:
    """MediaError if audio and video differ in length."""
    difference = audio_seconds - monitor.frames / FRAME_RATE
    if abs(difference) > MAX_LENGTH_DIFFERENCE + 1e-6:
        raise _rejected("audio and video differ in length", f"{difference:+.2f} s")


def check_audio(seconds: float, max_seconds: float) -> None:
    """MediaError if the audio of a clip without video is too short or too long."""
    if round(seconds * FRAME_RATE) < MIN_FRAMES:
        raise _rejected("too short", f"{seconds:.2f} s of audio")
    if seconds > max_seconds:
        raise too_long(max_seconds)


def check_words(clip_seconds: float, spoken_until: float) -> None:
    """MediaError if the clip ends before the last word of its transcript."""
    if clip_seconds < spoken_until - WORD_TOLERANCE:
        detail = f"it has {clip_seconds:.2f} s, its words {spoken_until:.2f} s"
        raise _rejected("it ends before its last word", detail)


def _rejected(kind: str, detail: str) -> MediaError:
    return MediaError(f"{kind} ({detail})", kind=kind)
