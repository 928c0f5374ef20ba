"""`LiveRecognizer`: text while a person speaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from avhubert.checkpoints.load import load_recognizer
from avhubert.config.command_defaults import BUILTIN_MODEL
from avhubert.live.engine import LiveEngine
from avhubert.live.load import Load
from avhubert.live.mouths import MouthTracker, Person
from avhubert.live.records import AudioBlock, LiveEvent, VideoFrame
from avhubert.live.stream import LiveStream
from avhubert.model.recognizer import Recognizer
from avhubert.prepare.detectors.selection import default_model
from avhubert.transcription.modality import AUTO


class LiveRecognizer:
    """Recognises speech from frames and samples as they arrive.

    Text appears while a person speaks: the events of `push` are the words of the utterance so far ('partial'), and its
    last text when it has ended ('final'). Memory does not grow with the length of the stream.
    """

    def __init__(
        self,
        model: str | Path | Recognizer | LiveEngine = BUILTIN_MODEL,
        modality: str = AUTO,
        *,
        mouth_crops: bool = False,
        device: str = AUTO,
        precision: str = AUTO,
        decode: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Load the recognizer.

        Args:
            model: Model directory, published checkpoint, name on the Hub, 'builtin', a loaded recognizer, or an engine
                that several streams share.
            modality: Streams to read: 'av', 'a' or 'v'. 'auto': those that are usable, decided for each window.
            mouth_crops: Frames are mouth crops, in which no face is looked for.
            device: 'auto' (a GPU if there is one), 'cpu', 'cuda', 'cuda:N' or 'mps'.
            precision: 'auto' (bf16 on a GPU that supports it, else fp32), 'fp32', 'bf16' or 'fp16'.
            decode: Settings of the beam search that replace those of the model.
            clock: Seconds of real time, by which the work is measured.

        Raises:
            ConfigError: The modality, the device, the precision or a setting is unknown or cannot be used here.
            CheckpointError: `model` is not a recognizer, or the face models are missing or damaged.
        """
        if isinstance(model, LiveEngine):
            self._engine = model
        else:
            self._engine = LiveEngine(load_recognizer(model), device, precision, decode)
        lips = modality != "a" and any("v" in supported for supported in self._engine.modalities)
        tracker = None
        if not mouth_crops:
            tracker = MouthTracker(default_model(), self._engine.preparation.crop) if lips else None
        self._ignore_video = not lips
        self._stream = LiveStream(self._engine, tracker, modality, Load(clock))
        self._finished = False

    @property
    def retracted_words(self) -> int:
        """Number of words of ended utterances that were shown and taken back."""
        return self._stream.retracted

    @property
    def people(self) -> list[Person]:
        """Everybody whose face was seen recently, in the order of appearance."""
        return list(self._stream.people)

    def push(self, frames: Iterable[VideoFrame] = (), audio: AudioBlock | None = None) -> list[LiveEvent]:
        """Take the next frames and samples of the stream, either or both; the events that follow from them.

        Frames may be late, missing or at any rate; the timestamps of frames and samples are by the same clock.

        Raises:
            ConfigError: A timestamp is not a number, or frames or samples have a wrong shape or type.
        """
        assert not self._finished, "the stream has ended: make another recogniser"
        load = self._stream.load
        load.begin()
        added = self._stream.push([] if self._ignore_video else frames, audio)
        events = self._read(False)
        return [*events, *self._stream.notices(load.end(added))]

    def finish(self) -> list[LiveEvent]:
        """End the stream; the last events."""
        if self._finished:
            return []
        self._finished = True
        self._stream.finish()
        return [*self._read(True), *self._stream.notices(None)]

    def _read(self, last: bool) -> list[LiveEvent]:
        events: list[LiveEvent] = []
        for request in self._stream.requests(last):
            (words,) = self._engine.words([request.features])
            events += self._stream.accept(request, words)
        return events
