"""Decodes the windows of one chunk: windows → batches of model inputs → hypotheses → segments with word times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from avhubert.constants import FRAME_RATE, SAMPLES_PER_FRAME
from avhubert.data.collate import pad_streams
from avhubert.data.filterbank import audio_features
from avhubert.data.video import transform
from avhubert.decode.alignment import AlignedWord, align
from avhubert.decode.batch_decoder import BatchDecoder
from avhubert.decode.beam_search import Hypothesis
from avhubert.errors import DataError
from avhubert.model.inputs import ModelInputs
from avhubert.transcription.reader import Chunk
from avhubert.transcription.segmenter import Window
from avhubert.transcription.transcript import Box, Segment, Word

if TYPE_CHECKING:
    from torch import Tensor


FRAMES_PER_BATCH = 800  # including padding


def batches(windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Consecutive windows in batches of at most FRAMES_PER_BATCH frames including padding; at least one in each."""
    batch: list[Window] = []
    for window in windows:
        longest = max(member.frames for member in [*batch, window])
        if batch and longest * (len(batch) + 1) > FRAMES_PER_BATCH:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


class WindowDecoder(BatchDecoder):
    """Decodes windows of a file into segments with word times."""

    def segments(self, chunk: Chunk, windows: Sequence[Window], modality: str, number: int) -> Iterator[Segment]:
        """The segments of a batch of windows, in order.

        Args:
            chunk: The chunk of the file that has the windows.
            windows: The windows.
            modality: The streams to read: 'av', 'a' or 'v'.
            number: Index of the first of these segments in the transcript.
        """
        inputs = model_inputs(chunk, windows, modality).to(self.compute.device)
        encoded = self.encode(inputs)
        results = self.search(encoded, inputs.mask)
        for index, (window, hypotheses, frames) in enumerate(zip(windows, results, encoded, strict=True), number):
            yield self._segment(chunk, window, hypotheses[0], frames[: window.frames], modality, index)

    def _segment(
        self, chunk: Chunk, window: Window, best: Hypothesis, encoded: Tensor, modality: str, number: int
    ) -> Segment:
        """The segment of one window, from its best hypothesis and its encoded frames [T, D]."""
        text = self.text(best)
        begin = (chunk.start + window.start) / FRAME_RATE
        words = [
            Word(word.word, begin + word.start_seconds, begin + word.end_seconds, word.confidence, number)
            for word in self._aligned_words(text, best, encoded)
        ]
        return Segment(
            start=(chunk.start + window.core_start) / FRAME_RATE,
            end=(chunk.start + window.core_end) / FRAME_RATE,
            text=text,
            score=best.score,
            modality=modality,
            box=_box(chunk, window),
            words=tuple(words),
        )

    def _aligned_words(self, text: str, best: Hypothesis, encoded: Tensor) -> list[AlignedWord]:
        try:
            with self.compute.autocast():
                return align(self.recognizer, encoded, best.tokens, best.posteriors)
        except DataError:  # more tokens than frames: every word gets the times of the whole window
            confidence = math.exp(best.confidence)
            return [AlignedWord(word, 0.0, len(encoded) / FRAME_RATE, confidence) for word in text.split()]


def model_inputs(chunk: Chunk, windows: Sequence[Window], modality: str) -> ModelInputs:
    """The streams of the windows, padded to the longest of them."""
    return pad_streams(
        [_audio(chunk, window) if "a" in modality else None for window in windows],
        [_video(chunk, window) if "v" in modality else None for window in windows],
    )


def _audio(chunk: Chunk, window: Window) -> Tensor:
    assert chunk.samples is not None
    samples = chunk.samples[window.start * SAMPLES_PER_FRAME : window.end * SAMPLES_PER_FRAME]
    if len(samples) == 0:  # the audio ends before the video
        samples = np.zeros(window.frames * SAMPLES_PER_FRAME, np.int16)
    return audio_features(samples, window.frames)


def _video(chunk: Chunk, window: Window) -> Tensor:
    assert chunk.mouth is not None
    return transform(chunk.mouth[window.start : window.end])


def _box(chunk: Chunk, window: Window) -> Box | None:
    if chunk.track is None:
        return None
    sides = np.median(chunk.track.box[window.core_start : window.core_end], axis=0)
    return cast("Box", tuple(round(float(side), 1) for side in sides))
