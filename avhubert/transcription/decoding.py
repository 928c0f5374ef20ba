"""Decodes the windows of one chunk: windows → batches of model inputs → hypotheses → segments with word times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from avhubert.config.input_preparation import BY_AUDIO, PUBLISHED, InputPreparation
from avhubert.constants import FRAME_RATE, SAMPLES_PER_FRAME
from avhubert.data.collate import pad_streams
from avhubert.data.filterbank import stacked_frames
from avhubert.data.preparation import prepare_streams
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
        preparation = self.recognizer.metadata.preparation()
        inputs = model_inputs(chunk, windows, modality, preparation).to(self.compute.device)
        encoded = self.encode(inputs)
        results = self.search(encoded, inputs.mask)
        assert inputs.lengths is not None
        rows = zip(windows, results, encoded, inputs.lengths, strict=True)
        for index, (window, hypotheses, frames, length) in enumerate(rows, number):
            yield self._segment(chunk, window, hypotheses[0], frames[:length], modality, index)

    def _segment(
        self, chunk: Chunk, window: Window, best: Hypothesis, encoded: Tensor, modality: str, number: int
    ) -> Segment:
        """The segment of one window, from its best hypothesis and its encoded frames [T, D]."""
        text = self.text(best)
        begin = (chunk.start + window.start) / FRAME_RATE
        words = [
            Word(word.word, begin + word.start_seconds, begin + word.end_seconds, word.confidence, number)
            for word in self.aligned_words(text, best, encoded)
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

    def aligned_words(self, text: str, best: Hypothesis, encoded: Tensor) -> list[AlignedWord]:
        """The words of the best hypothesis of one window, from its encoded frames [T, D]."""
        try:
            with self.compute.autocast():
                return align(self.recognizer, encoded, best.tokens, best.posteriors)
        except DataError:  # more tokens than frames: every word gets the times of the whole window
            confidence = math.exp(best.confidence)
            return [AlignedWord(word, 0.0, len(encoded) / FRAME_RATE, confidence) for word in text.split()]


def model_inputs(
    chunk: Chunk, windows: Sequence[Window], modality: str, preparation: InputPreparation = PUBLISHED
) -> ModelInputs:
    """The streams of the windows, padded to the longest of them; `preparation`: how the model's inputs are made."""
    audio, video = [], []
    for window in windows:
        samples = _samples(chunk, window, preparation) if "a" in modality else None
        frames = None
        if "v" in modality:
            assert chunk.mouth is not None
            frames = chunk.mouth[window.start : window.end]
        streams = prepare_streams(samples, frames, preparation, window.frames)
        audio.append(streams[0])
        video.append(streams[1])
    return pad_streams(audio, video)


def _samples(chunk: Chunk, window: Window, preparation: InputPreparation) -> np.ndarray:
    assert chunk.samples is not None
    samples = chunk.samples[window.start * SAMPLES_PER_FRAME : window.end * SAMPLES_PER_FRAME]
    if len(samples) == 0:  # the audio ends before the video
        return np.zeros(window.frames * SAMPLES_PER_FRAME, np.int16)
    if preparation.length == BY_AUDIO and stacked_frames(len(samples)) < window.frames:  # else time would be compressed
        return np.pad(samples, (0, window.frames * SAMPLES_PER_FRAME - len(samples)))
    return samples


def _box(chunk: Chunk, window: Window) -> Box | None:
    if chunk.track is None:
        return None
    sides = np.median(chunk.track.box[window.core_start : window.core_end], axis=0)
    return cast("Box", tuple(round(float(side), 1) for side in sides))
