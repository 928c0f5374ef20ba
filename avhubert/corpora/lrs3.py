"""LRS3 (and the synthetic corpus, which has its shape): pretrain/, trainval/, test/, a `.txt` beside each `.mp4`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from avhubert.constants import LRS3_SPLITS
from avhubert.corpora.sources import Rejected, SourceClip, phone_file, some, videos
from avhubert.data.text import normalise_text
from avhubert.errors import DataError

LONGEST_SECONDS = 15.0  # a pretrain clip whose last word ends later is split …
SILENCE_SECONDS = 0.4  # … at every silence longer than this, in its middle


@dataclass(frozen=True)
class Word:
    """A word with its times in seconds."""

    text: str
    start: float
    end: float


def read_transcript(path: Path) -> tuple[str, list[Word]]:
    """Text and word timings of a `.txt`. DataError names what is wrong with it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"the transcript {path.name} is missing") from error
    except UnicodeDecodeError as error:
        raise DataError(f"the transcript {path.name} is not UTF-8 text") from error
    if not lines or not lines[0].startswith("Text:"):
        raise DataError(f"the transcript {path.name} does not begin with 'Text:'")
    text = normalise_text(lines[0].removeprefix("Text:"))
    if not text:
        raise DataError(f"the transcript {path.name} is empty")
    words = []
    header = next((i for i, line in enumerate(lines) if line.startswith("WORD START END")), len(lines))
    for number, line in enumerate(lines[header + 1 :], header + 2):
        if not line.strip():
            break
        fields = line.split()
        try:
            words.append(Word(normalise_text(fields[0]), float(fields[1]), float(fields[2])))
        except (IndexError, ValueError) as error:
            raise DataError(f"the transcript {path.name}, line {number}: '{line}' is not WORD START END …") from error
    return text, words


def split_at_silences(words: list[Word]) -> list[tuple[float, float | None, str]]:
    """(start, end, text) of the pieces of a pretrain clip; one piece (0, None, …) if it is short enough.

    A clip whose last word ends at 15 s or later is cut at every silence over 0.4 s, in the middle of the silence.
    """
    if not words or words[-1].end < LONGEST_SECONDS:
        return [(0.0, None, " ".join(word.text for word in words))]
    cuts = [
        (index, (left.end + right.start) / 2)
        for index, (left, right) in enumerate(itertools.pairwise(words), 1)
        if right.start - left.end > SILENCE_SECONDS
    ]
    bounds = [(0, 0.0), *cuts, (len(words), None)]
    return [
        (start or 0.0, end, " ".join(word.text for word in words[first:last]))
        for (first, start), (last, end) in itertools.pairwise(bounds)
    ]


def find(src: str | Path) -> tuple[list[SourceClip], list[Rejected]]:
    """Clips of the corpus at `src`, and the videos whose transcript is missing or wrong.

    Raises:
        DataError: `src` has none of the folders pretrain/, trainval/, test/, or no videos in them.
    """
    src = Path(src)
    if not any((src / split).is_dir() for split in LRS3_SPLITS):
        raise DataError(
            f"{src} has none of the folders {', '.join(f'{split}/' for split in LRS3_SPLITS)}; is it LRS3's root?"
        )
    clips: list[SourceClip] = []
    rejected: list[Rejected] = []
    for split in LRS3_SPLITS:
        for video in videos(src / split) if (src / split).is_dir() else []:
            identifier = video.relative_to(src).with_suffix("").as_posix()
            try:
                text, words = read_transcript(video.with_suffix(".txt"))
            except DataError as error:
                rejected.append(Rejected(identifier, str(error)))
                continue
            pieces = split_at_silences(words) if split == "pretrain" and words else [(0.0, None, text)]
            for number, (start, end, said) in enumerate(pieces):
                name = identifier if len(pieces) == 1 else f"{identifier}_{number:02d}"
                clips.append(SourceClip(name, video, split, start, end, said or text, phone_file(video)))
    if not clips and rejected:
        raise DataError(f"none of the {len(rejected)} videos of {src} can be used; the first: {rejected[0].reason}")
    return some(clips, src, "no videos in pretrain/, trainval/ or test/"), rejected
