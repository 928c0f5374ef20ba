"""Subtitles and label tracks as cues: SubRip, WebVTT, SubViewer, SubStation Alpha, Whisper's and Audacity's lines.

Files are read line by line, as players do, so that missing blank lines, missing numbers or one malformed cue never lose
the other cues. What cannot be used is returned with its reason.
"""

from __future__ import annotations

import html
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from avhubert.data.text import normalise_text

MAX_CHARACTERS_PER_SECOND = 30  # nobody speaks faster: the rest of a cue that the video cuts off must not be denser
NAMED_SHARE = 0.6  # of the cues begin with a name and a colon: they are names of speakers
ROLLING_SHARE = 0.3  # of the cues begin with the last line of the cue before: captions that scroll up

_TIME = r"(?:(\d+)\s*:\s*)?(\d{1,3})\s*:\s*(\d{1,2})(?:\s*[.,:，]\s*(\d{1,6}))?"
_TIMING = re.compile(rf"\W*?{_TIME}\s*(?:--?|[–—=])>\s*{_TIME}(.*)")
_TIMING_SUBVIEWER = re.compile(rf"{_TIME},{_TIME}()")
_LABEL = re.compile(r"(\d+(?:[.,]\d+)?)\t(\d+(?:[.,]\d+)?)(?:\t(.*))?")

_ASS_TAGS = re.compile(r"\{[^{}]*\}")
_TAGS = re.compile(r"</?[A-Za-z][^<>]*>|<[\d:.,]+>")
_ASS_BREAKS = re.compile(r"\\[Nh]")
_DESCRIPTIONS = re.compile(r"\[[^\[\]]*\]:?|\([^()]*\)|（[^（）]*）|【[^【】]*】|[♩♪♫♬]")
_LINE_STARTS = re.compile(r"^\s*(?:>>+|[-–—‐]+\s)\s*", re.MULTILINE)
_SPEAKER = re.compile(r"^\s*[A-Z][A-Z0-9 .'-]{1,30}:\s+(?=.*[a-z])", re.MULTILINE)
_NAME = re.compile(r"[^\W\d_][\w .'’-]{0,40}:\s+")
_WORD_TIME = re.compile(r"<[\d:]+\.\d+>")  # in YouTube's automatic captions, which scroll up
_DIRECTION_MARKS = re.compile("[\u00ad\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


@dataclass(frozen=True)
class Cue:
    """A subtitle.

    Attributes:
        start: Seconds.
        end: Seconds; None: until the end of the video.
        lines: The text as it is displayed, without markup.
    """

    start: float
    end: float | None
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The normalised text of what is spoken: without descriptions of sounds and names of speakers."""
        return spoken("\n".join(self.lines))


@dataclass(frozen=True)
class BadCue:
    """A cue that cannot be used.

    Attributes:
        where: The cue, for the user: its time or its line in the file.
        reason: Why it cannot be used.
        kind: The reason without names and numbers.
    """

    where: str
    reason: str
    kind: str


@dataclass
class Subtitles:
    """The cues of a file in the order of their times, and those that cannot be used."""

    cues: list[Cue] = field(default_factory=list)
    bad: list[BadCue] = field(default_factory=list)


def parse(content: str) -> Subtitles:
    """The cues of a text; none if it is plain text."""
    lines = re.split(r"\r*\n|\r", content)
    subtitles = Subtitles()
    if any(line.startswith("Dialogue:") for line in lines) and "[Events]" in content:
        rows = _substation(lines)
    elif filled := [line for line in lines if line.strip()]:
        is_track = all(_LABEL.fullmatch(line) or line.startswith("\\\t") for line in filled)
        rows = _labels(lines) if is_track else _timed(lines)
    else:
        return subtitles
    for number, start, end, text in rows:
        if start is None or end is None or end <= start:
            problem = "is not START --> END" if start is None or end is None else "does not end after its start"
            reason = f"line {number}, '{' '.join(lines[number - 1].split())}' {problem}"
            subtitles.bad.append(BadCue(f"line {number}", reason, "malformed subtitle"))
        else:
            subtitles.cues.append(Cue(start, end, tuple(_without_markup(text))))
    cues = sorted(set(_without_names(subtitles.cues)), key=lambda cue: (cue.start, cue.end, cue.lines))
    subtitles.cues = _without_repeats(cues, has_word_times=bool(_WORD_TIME.search(content)))
    return subtitles


_Row = tuple[int, "float | None", "float | None", list[str]]  # number of its line, start, end, lines of text


def _timed(lines: Sequence[str]) -> Iterator[_Row]:
    """SubRip, WebVTT, SubViewer, and lines such as `[00:01.000 --> 00:02.000] text`."""
    times = [(index, match) for index, line in enumerate(lines) if (match := _timing(line)) is not None]
    is_webvtt = lines[0].startswith("WEBVTT")
    ends = [index for index, _ in times[1:]] + [len(lines)]
    for (index, match), end in zip(times, ends, strict=False):
        if isinstance(match, bool):
            yield index + 1, None, None, []
            continue
        values = match.groups()
        text = _text_lines(list(lines[index + 1 : end]), end < len(lines), is_webvtt)
        after = values[8].strip()
        if after.startswith("]"):
            text = [after[1:], *text]
        yield index + 1, _seconds(values[:4]), _seconds(values[4:8]), text


def _timing(line: str) -> re.Match[str] | bool | None:
    """The times of a line; False if it is a malformed line of times, None if it is none."""
    match = _TIMING.match(line) or _TIMING_SUBVIEWER.fullmatch(line.strip())
    if match is not None:
        return match
    return False if "-->" in line and line.strip()[0] in "0123456789[" else None


def _text_lines(lines: list[str], before_another: bool, is_webvtt: bool) -> list[str]:
    """The text of a cue, from the lines after its times to the next line of times, which may have a name or number."""
    if before_another and lines and lines[-1].strip():
        is_name = is_webvtt and (len(lines) == 1 or not lines[-2])
        if lines[-1].strip().isdecimal() or is_name:
            lines.pop()
    if is_webvtt:  # after an empty line follow notes and styles
        return lines[: lines.index("")] if "" in lines else lines
    blank = next((index for index, line in enumerate(lines) if not line.strip()), len(lines))
    # in SubRip, text after a blank line is still displayed; numbers are those of cues without times
    return [*lines[:blank], *(line for line in lines[blank:] if line.strip() and not line.strip().isdecimal())]


def _seconds(values: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = values
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(f"{seconds}.{fraction or 0}")


def clock_seconds(text: str) -> float | None:
    """Seconds of a time that is written as seconds or as H:MM:SS, with a point or a comma; None if it is empty.

    Raises:
        ValueError: It is not a time.
    """
    text = text.strip()
    if not text:
        return None
    if match := re.fullmatch(_TIME, text):
        return _seconds(match.groups())
    seconds = float(text.replace(",", "."))
    if not 0 <= seconds < math.inf:
        raise ValueError(text)
    return seconds


def _substation(lines: Sequence[str]) -> Iterator[_Row]:
    """SubStation Alpha (.ass, .ssa): the line `Format:` of the events names the columns."""
    columns = ["layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text"]
    for number, line in enumerate(lines, 1):
        kind, _, values = line.partition(":")
        if kind == "Format" and "text" in values.lower():
            columns = [name.strip().lower() for name in values.split(",")]
        elif kind == "Dialogue":
            row = dict(zip(columns, values.split(",", len(columns) - 1), strict=False))
            times = [re.fullmatch(_TIME, row.get(name, "").strip()) for name in ("start", "end")]
            start, end = (None if time is None else _seconds(time.groups()) for time in times)
            yield number, start, end, re.split(r"\\[Nn]", row.get("text", ""))


def _labels(lines: Sequence[str]) -> Iterator[_Row]:
    """A label track of Audacity: start and end in seconds and text, separated by tabs."""
    for number, line in enumerate(lines, 1):
        if match := _LABEL.fullmatch(line):
            start, end = (float(value.replace(",", ".")) for value in match.groups()[:2])
            yield number, start, end, [match[3] or ""]


# --------------------------------------------------------------------------- text
def _without_markup(lines: Sequence[str]) -> Iterator[str]:
    # drawings are no text
    text = re.sub(r"\{[^{}]*\\p[1-9][^{}]*\}[^{}]*", "", "\n".join(lines))
    text = _ASS_BREAKS.sub(" ", _TAGS.sub("", _ASS_TAGS.sub("", text)))
    for line in _DIRECTION_MARKS.sub("", html.unescape(text)).split("\n"):
        if line.strip():
            yield " ".join(line.split())


def spoken(text: str) -> str:
    """The spoken part of a subtitle, normalised: no [descriptions], (descriptions), notes, dashes, SPEAKER: names."""
    text = _DESCRIPTIONS.sub(" ", text)
    return normalise_text(_SPEAKER.sub("", _LINE_STARTS.sub("", text)))


def _without_names(cues: list[Cue]) -> list[Cue]:
    """Minutes of meetings (Zoom) begin each cue with the name of the speaker: `Jane Doe: Hello`."""
    named = [cue for cue in cues if cue.lines and _NAME.match(cue.lines[0])]
    if len(named) < max(2, NAMED_SHARE * len(cues)):
        return cues
    first_lines = {cue: cue.lines[0].partition(":")[2].strip() for cue in named}
    return [replace(cue, lines=(first_lines[cue], *cue.lines[1:])) if cue in first_lines else cue for cue in cues]


def _without_repeats(cues: list[Cue], has_word_times: bool) -> list[Cue]:
    """Captions that scroll up show each line twice or more often: only its first time is kept."""
    pairs = list(itertools.pairwise(cues))
    repeats = sum(bool(before.lines) and after.lines[:1] == before.lines[-1:] for before, after in pairs)
    if repeats < (1 if has_word_times else max(2, ROLLING_SHARE * len(cues))):
        return cues
    kept: list[Cue] = []
    displayed: tuple[str, ...] = ()
    for cue in cues:
        shared = max(n for n in range(len(cue.lines) + 1) if displayed[len(displayed) - n :] == cue.lines[:n])
        kept.append(replace(cue, lines=cue.lines[shared:]))
        displayed = cue.lines or displayed
    return kept


# --------------------------------------------------------------------------- times
def within(subtitles: Subtitles, seconds: float | None) -> Subtitles:
    """The cues of a video of this length; None: the length is not known.

    A cue that ends later than the video lasts until its end, if its text can be spoken in that time. Cues that cannot
    are bad.
    """
    if not seconds:
        return subtitles
    result = Subtitles(bad=list(subtitles.bad))
    for cue in subtitles.cues:
        if cue.end is None or cue.end <= seconds:
            result.cues.append(cue)
        elif len(cue.text) <= MAX_CHARACTERS_PER_SECOND * (seconds - cue.start):
            result.cues.append(replace(cue, end=None))
        else:
            where = f"{cue.start:g} to {cue.end:g} s"
            reason = f"the subtitle of {where} is beyond the end of the video, which lasts {seconds:.2f} s"
            result.bad.append(BadCue(where, reason, "subtitle beyond the end of the video"))
    return result
