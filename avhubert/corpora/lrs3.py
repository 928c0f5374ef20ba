"""LRS3, and the synthetic corpus in its layout: pretrain/, trainval/, test/ with a `.txt` beside each `.mp4`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from avhubert.constants import LRS3_SPLITS
from avhubert.corpora.sources import Listing, Rejection, SourceClip, clip_id, find_videos, phone_file, require_clips
from avhubert.data.discovery import Skipped
from avhubert.data.text import normalise_text
from avhubert.encoding import MISSING, read_text
from avhubert.errors import DataError

LONGEST_SECONDS = 15.0  # a pretrain clip whose last word ends at this time or later is split …
SILENCE_SECONDS = 0.4  # … in the middle of every silence longer than this


@dataclass(frozen=True)
class Word:
    """A word with its times in seconds."""

    text: str
    start: float
    end: float


class Segment(NamedTuple):
    """A part of a video with its text; times in seconds, `end` None: until the end of the video."""

    start: float
    end: float | None
    text: str


def read_transcript(path: Path) -> tuple[str, list[Word]]:
    """Text and word times of a `.txt`. DataError names what is wrong with it."""
    lines = _read_lines(path)
    if not lines or not lines[0].startswith("Text:"):
        raise DataError(
            f"the transcript {path.name} does not begin with 'Text:'", kind="malformed transcript", path=path
        )
    text = normalise_text(lines[0].removeprefix("Text:"))
    if not text:
        raise DataError(f"the transcript {path.name} is empty", kind="empty transcript", path=path)
    words = []
    header = next((i for i, line in enumerate(lines) if line.startswith("WORD START END")), len(lines))
    for number, line in enumerate(lines[header + 1 :], header + 2):
        if not line.strip():
            break
        fields = line.split()
        try:
            words.append(Word(normalise_text(fields[0]), float(fields[1]), float(fields[2])))
        except (IndexError, ValueError) as error:
            raise DataError(
                f"the transcript {path.name}, line {number}: '{line}' is not WORD START END …",
                kind="malformed transcript",
                path=path,
            ) from error
    return text, words


def _read_lines(path: Path) -> list[str]:
    name = f"the transcript {path.name}"
    try:
        return read_text(path, name, guess=False).text.splitlines()
    except DataError as error:
        if error.kind == MISSING:
            raise DataError(f"{name} is missing", kind="the transcript is missing", path=path) from error
        raise


def split_at_silences(words: list[Word]) -> list[Segment]:
    """Segments of a pretrain clip; one segment (0, None, …) if the clip is short enough.

    A clip whose last word ends at 15 s or later is cut at every silence over 0.4 s, in the middle of the silence.
    """
    if not words or words[-1].end < LONGEST_SECONDS:
        return [Segment(0.0, None, " ".join(word.text for word in words))]
    cuts = [
        (index, (left.end + right.start) / 2)
        for index, (left, right) in enumerate(itertools.pairwise(words), 1)
        if right.start - left.end > SILENCE_SECONDS
    ]
    bounds = [(0, 0.0), *cuts, (len(words), None)]
    return [
        Segment(start or 0.0, end, " ".join(word.text for word in words[first:last]))
        for (first, start), (last, end) in itertools.pairwise(bounds)
    ]


def find(src: str | Path) -> Listing:
    """Clips of the corpus at `src`, and the videos whose transcript is missing or malformed.

    Raises:
        DataError: `src` has none of the folders pretrain/, trainval/, test/, or there are no videos in them.
    """
    src = Path(src)
    if not any((src / split).is_dir() for split in LRS3_SPLITS):
        raise DataError(
            f"{src} has none of the folders {', '.join(f'{split}/' for split in LRS3_SPLITS)}; is it LRS3's root?",
            path=src,
        )
    clips: list[SourceClip] = []
    rejections: list[Rejection] = []
    skipped: list[Skipped] = []
    for split in (split for split in LRS3_SPLITS if (src / split).is_dir()):
        found = find_videos(src / split)
        skipped += found.skipped
        for video in found.files:
            identifier = clip_id(video.relative_to(src).with_suffix("").as_posix())
            try:
                text, words = read_transcript(video.with_suffix(".txt"))
            except DataError as error:
                rejections.append(Rejection.from_error(identifier, error))
                continue
            # the folder of a clip is a talk, whose speaker is nearly always one person
            speaker = identifier.rpartition("/")[0].partition("/")[2]
            segments = split_at_silences(words) if split == "pretrain" and words else [Segment(0.0, None, text)]
            for number, segment in enumerate(segments):
                name = identifier if len(segments) == 1 else f"{identifier}_{number:02d}"
                clips.append(
                    SourceClip(
                        name,
                        video,
                        split,
                        segment.start,
                        segment.end,
                        segment.text or text,
                        phone_file(video),
                        speaker=speaker,
                    )
                )
    return require_clips(clips, rejections, src, "no videos in pretrain/, trainval/ or test/", skipped)
