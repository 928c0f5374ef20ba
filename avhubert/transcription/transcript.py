"""The transcript of a file and its formats: text, SRT, WebVTT, JSON. Times are in seconds from the file's start."""

from __future__ import annotations

import html
import json
from dataclasses import asdict, dataclass, field

from avhubert.errors import ConfigError
from avhubert.transcription.captions import Caption, caption_lines, captions

FORMATS = ("txt", "srt", "vtt", "json")

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Word:
    """One word.

    Attributes:
        text: The word.
        start: Start time in seconds.
        end: End time in seconds.
        confidence: The recognizer's probability of the word, 0 to 1.
        segment: Index of the word's segment in the transcript.
    """

    text: str
    start: float
    end: float
    confidence: float
    segment: int


@dataclass(frozen=True)
class Segment:
    """One decoded window of a file.

    Attributes:
        start: Start time in seconds.
        end: End time in seconds.
        text: The transcribed text; empty if the recognizer found no words.
        score: Score of the beam search: natural logarithm, normalised by length.
        modality: The streams that were read: 'av', 'a' or 'v'.
        box: Bounding box of the speaker's face (left, top, right, bottom) in pixels, median over the window; None
            without video.
        words: The words with their times.
    """

    start: float
    end: float
    text: str
    score: float
    modality: str = ""
    box: Box | None = None
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """The transcript of one file, or of one person in it.

    Attributes:
        text: The whole text.
        segments: The decoded windows in order of time.
        modality: The streams that most of the file was read from: 'av', 'a' or 'v'.
        reason: Why these streams were read.
        warnings: Problems of the recording that the user should know.
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
    """Formats a transcript as 'txt', 'srt', 'vtt' or 'json'.

    Raises:
        ConfigError: `form` is another format.
    """
    if form not in FORMATS:
        raise ConfigError(f"unknown format '{form}'; known: {', '.join(FORMATS)}")
    if form == "txt":
        return transcript.text + "\n"
    if form == "json":
        return _json(transcript)
    blocks = [_block(number, caption, form) for number, caption in enumerate(captions(transcript.segments), 1)]
    return ("WEBVTT\n\n" if form == "vtt" else "") + "\n".join(blocks)


def _block(number: int, caption: Caption, form: str) -> str:
    """One caption of SRT or WebVTT."""
    decimal_mark = "," if form == "srt" else "."
    start, end = _clock(caption.start, decimal_mark), _clock(caption.end, decimal_mark)
    text = "\n".join(caption_lines(caption.text))
    if form == "vtt":
        text = html.escape(text, quote=False)  # < and & begin tags and entities there
    return f"{number}\n{start} --> {end}\n{text}\n"


def clock(seconds: float) -> str:
    """A time for messages: minutes and seconds, such as '2:05'."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _json(transcript: Transcript) -> str:
    segments = [asdict(segment) for segment in transcript.segments]
    words = [word for segment in segments for word in segment.pop("words")]
    content = {**asdict(transcript), "segments": segments, "words": words}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _clock(seconds: float, decimal_mark: str) -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{decimal_mark}{rest % 1000:03}"
