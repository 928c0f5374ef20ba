"""What a transcript is, and how it is written: text, SRT, WebVTT, JSON. Times are seconds from the file's start."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from avhubert.errors import ConfigError

FORMATS = ("txt", "srt", "vtt", "json")


CAPTION_SECONDS = 7.0  # a caption is shown for at most this long


CAPTION_CHARACTERS = 84  # two lines of 42


@dataclass(frozen=True)
class Word:
    """A word, its times in seconds, how probable the recognizer finds it (0 … 1), and its segment's number."""

    text: str
    start: float
    end: float
    confidence: float
    segment: int


@dataclass(frozen=True)
class Segment:
    """One decoded window.

    score: of beam search (natural log, normalised by length). modality: what this window was read from, 'av', 'a' or
    'v'. box: around the speaker's face, median over the window (left, top, right, bottom) in pixels, None without a
    picture.
    """

    start: float
    end: float
    text: str
    score: float
    modality: str = ""
    box: tuple[float, float, float, float] | None = None
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """What was said in a file.

    modality: what most of it was read from, 'av', 'a' or 'v'; reason: why; warnings: what to beware of.
    """

    text: str
    segments: list[Segment]
    modality: str
    reason: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def words(self) -> list[Word]:
        """The words of all segments."""
        return [word for segment in self.segments for word in segment.words]


def render(transcript: Transcript, form: str) -> str:
    """A transcript as 'txt', 'srt', 'vtt' or 'json'. ConfigError for any other form."""
    if form not in FORMATS:
        raise ConfigError(f"unknown format '{form}'; known: {', '.join(FORMATS)}")
    if form == "txt":
        return transcript.text + "\n"
    if form == "json":
        segments = [asdict(segment) for segment in transcript.segments]
        words = [word for segment in segments for word in segment.pop("words")]
        whole = {**asdict(transcript), "segments": segments, "words": words}
        return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"
    comma = "," if form == "srt" else "."
    blocks = [
        f"{number}\n{_clock(caption.start, comma)} --> {_clock(caption.end, comma)}\n{caption.text}\n"
        for number, caption in enumerate(captions(transcript.segments), 1)
    ]
    return ("WEBVTT\n\n" if form == "vtt" else "") + "\n".join(blocks)


def _clock(seconds: float, comma: str) -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{comma}{rest % 1000:03}"


@dataclass(frozen=True)
class Caption:
    """What is shown at a time, at most two lines."""

    start: float
    end: float
    text: str


def captions(segments: Sequence[Segment]) -> list[Caption]:
    """Segments with text as captions; one too long to be read at a glance is parted between words."""
    found = []
    for segment in segments:
        if not segment.text:
            continue
        short = segment.end - segment.start <= CAPTION_SECONDS and len(segment.text) <= CAPTION_CHARACTERS
        if short or not segment.words:
            found.append(Caption(segment.start, segment.end, segment.text))
            continue
        group: list[Word] = []
        for word in segment.words:
            length = sum(len(one.text) + 1 for one in group) + len(word.text)
            if group and (length > CAPTION_CHARACTERS or word.end - group[0].start > CAPTION_SECONDS):
                found.append(_caption(group))
                group = []
            group.append(word)
        found.append(_caption(group))
    return found


def _caption(words: Sequence[Word]) -> Caption:
    return Caption(words[0].start, words[-1].end, " ".join(word.text for word in words))
