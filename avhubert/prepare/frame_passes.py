"""The frames of a video for several passes: landmarks first, then crops."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avhubert.data.media import MediaPart
from avhubert.data.video import read_frames_part

MAX_KEPT_BYTES = 96_000_000  # of the frames of one video; 75 frames of 720 × 576 pixels have 93 MB


class FramePasses:
    """The frames of a part of a video, RGB uint8 [H, W, 3], in one pass after another.

    The first complete pass keeps them in memory, if they have at most `MAX_KEPT_BYTES`: decoding them again takes
    a fifth of the time of a clip. Longer videos are decoded in each pass, so that memory does not grow with them.

    Attributes:
        part: The part of the video. Its damage is recorded in the first pass.
    """

    def __init__(self, part: MediaPart) -> None:
        self.part = part
        self._next = part
        self._kept: list[np.ndarray] | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        """One pass.

        Raises:
            MediaError: See `read_frames_part`.
        """
        return self._decode() if self._kept is None else iter(self._kept)

    def _decode(self) -> Iterator[np.ndarray]:
        part, self._next = self._next, self.part.again()
        kept: list[np.ndarray] = []
        size = 0
        for frame in read_frames_part(part):
            size += 0 if kept and frame is kept[-1] else frame.nbytes
            if size > MAX_KEPT_BYTES:
                kept.clear()
            else:
                kept.append(frame)
            yield frame
        if size <= MAX_KEPT_BYTES:
            self._kept = kept
