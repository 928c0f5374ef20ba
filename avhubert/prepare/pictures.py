"""Pictures of rejected inputs for the report, made in a process: these are the files that a decoder may not survive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avhubert.corpora.sources import SourceClip
from avhubert.data.video import read_frames
from avhubert.processes import run_in_processes

PICTURE_SECONDS = 10.0  # without progress, after which an input gets no picture
MAX_HEIGHT = 160


def first_frames(clips: Sequence[SourceClip]) -> dict[str, np.ndarray]:
    """The first frame of each clip by id, RGB, at most 160 pixels high; clips whose frame cannot be read have none."""
    if not clips:
        return {}
    outcomes = run_in_processes(_first_frame, clips, 1, PICTURE_SECONDS)
    return {clip.id: outcome for clip, outcome in outcomes if isinstance(outcome, np.ndarray)}


def _first_frame(clip: SourceClip) -> np.ndarray | None:
    try:
        frame = next(read_frames(clip.path, clip.start, clip.end), None)
    except Exception:  # why the input is rejected is known; the picture is only an illustration
        return None
    step = 1 if frame is None else -(-frame.shape[0] // MAX_HEIGHT)
    return None if frame is None else frame[::step, ::step].copy()
