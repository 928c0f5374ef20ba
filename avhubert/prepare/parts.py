"""Divides clips of several shots with faces: without a transcript, each shot can be a clip of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from avhubert.constants import FRAME_RATE
from avhubert.corpora.sources import Rejection, SourceClip
from avhubert.prepare.records import ClipResult

SHORTEST_PART = 25  # frames; a shorter part before or after a cut becomes no clip
SHORT_PART = "a part beside a cut is too short"  # kind of rejection


@dataclass(frozen=True)
class Division:
    """What became of clips that may be divided.

    Attributes:
        clips: The clips; instead of those that are divided, their parts.
        rejections: Parts that are too short.
        divided: How many clips were divided.
    """

    clips: list[SourceClip]
    rejections: list[Rejection] = field(default_factory=list)
    divided: int = 0


def divide_at_cuts(clips: Sequence[SourceClip], results: Mapping[str, ClipResult], taken: Collection[str]) -> Division:
    """Replace each clip of a folder that was rejected because of a cut by the parts before and after it.

    A clip with a transcript is not divided: which words are in which part is unknown. Neither is one of which no part
    has `SHORTEST_PART` frames. Parts have the id of the clip with `_000` and `_001`.

    Args:
        clips: The clips.
        results: Their results, by id.
        taken: Ids that no part may have: those of all clips of the corpus.
    """
    divided: list[SourceClip] = []
    rejections: list[Rejection] = []
    count = 0
    for clip in clips:
        result = results.get(clip.id)
        parts = _parts(clip, result, taken) if result is not None and is_divided(clip, result) else []
        long_enough = [part for part, frames in parts if frames >= SHORTEST_PART]
        if not long_enough:
            divided.append(clip)
            continue
        count += 1
        divided += long_enough
        rejections += [
            Rejection(part.id, f"{SHORT_PART} ({frames / FRAME_RATE:.2f} s)", SHORT_PART)
            for part, frames in parts
            if frames < SHORTEST_PART
        ]
    return Division(divided, rejections, count)


def is_divided(clip: SourceClip, result: ClipResult) -> bool:
    """Whether a clip was rejected because of a cut and may be divided there."""
    return result.cut is not None and clip.every_face and clip.text is None


def _parts(clip: SourceClip, result: ClipResult, taken: Collection[str]) -> list[tuple[SourceClip, int]]:
    """The parts of a clip with their numbers of frames."""
    assert result.cut is not None
    frame, frames = result.cut
    time = clip.start + frame / FRAME_RATE
    ends = ((clip.start, time, frame), (time, clip.end, frames - frame))
    return [
        (replace(clip, id=_unused(f"{clip.id}_{number:03d}", taken), start=start, end=end), length)
        for number, (start, end, length) in enumerate(ends)
    ]


def _unused(name: str, taken: Collection[str]) -> str:
    """The name, with underscores appended until no other clip has it."""
    while name in taken:
        name += "_"
    return name
