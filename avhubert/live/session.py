"""Reads a source with a live recogniser until the source ends."""

from __future__ import annotations

from collections.abc import Iterator

from avhubert.errors import MediaError
from avhubert.live.recognizer import LiveRecognizer
from avhubert.live.records import NOTICE, AudioBlock, LiveEvent, VideoFrame
from avhubert.live.sources import Counts, Feed, Item
from avhubert.transcription.transcript import Segment, Word


def run(recognizer: LiveRecognizer, items: Iterator[Item], drop: bool, counts: Counts) -> Iterator[LiveEvent]:
    """The events of a source.

    Args:
        recognizer: The recogniser.
        items: Frames and samples of the source.
        drop: Whether frames are dropped when the recogniser is behind.
        counts: What was lost; complete at the end.

    Raises:
        MediaError: The source broke off; all events before were yielded.
    """
    try:
        for batch in Feed(items, drop, counts).batches():
            frames: list[VideoFrame] = []
            for item in batch:
                if isinstance(item, AudioBlock):
                    yield from recognizer.push(frames, item)
                    frames = []
                else:
                    frames.append(item)
            if frames:
                yield from recognizer.push(frames)
    except (MediaError, KeyboardInterrupt):
        yield from recognizer.finish()
        raise
    yield from recognizer.finish()
    for count, what in ((counts.dropped, "frames were dropped: the machine is too slow"),
                        (counts.damaged, "packets could not be decoded")):  # fmt: skip
        if count:
            yield LiveEvent(NOTICE, 0, 0.0, 0.0, message=f"{count} {what}")


def segment(event: LiveEvent, origin: float, number: int) -> Segment:
    """A final event as a segment of a transcript whose time 0 is `origin`."""
    words = tuple(
        Word(word.text, word.start - origin, word.end - origin, word.confidence, number) for word in event.words
    )
    start, end = event.start - origin, event.end - origin
    return Segment(start, end, event.text, 0.0, event.modality, None, words)
