"""Decodes the windows of one chunk: windows → batches of model inputs → hypotheses → segments with word times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from avhubert.constants import AUDIO_DIM, CROP_SIZE, FRAME_RATE, SAMPLES_PER_FRAME
from avhubert.data.filterbank import audio_features
from avhubert.data.video import transform
from avhubert.decode.alignment import AlignedWord, align
from avhubert.decode.beam_search import Hypothesis, beam_search
from avhubert.errors import DataError
from avhubert.transcription.reader import Chunk
from avhubert.transcription.segmenter import Window
from avhubert.transcription.transcript import Box, Segment, Word

if TYPE_CHECKING:
    from torch import Tensor

    from avhubert.model.recognizer import Recognizer

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


def decode_windows(
    recognizer: Recognizer, chunk: Chunk, windows: Sequence[Window], modality: str, number: int
) -> Iterator[Segment]:
    """The segments of a batch of windows, in order.

    Args:
        recognizer: The recognizer.
        chunk: The chunk of the file that has the windows.
        windows: The windows.
        modality: The streams to read: 'av', 'a' or 'v'.
        number: Index of the first of these segments in the transcript.
    """
    audio, video, padding_mask = collate(chunk, windows, modality)
    device = next(recognizer.parameters()).device
    mask = None if padding_mask is None else padding_mask.to(device)
    with torch.inference_mode():
        encoded = recognizer.encode(
            None if audio is None else audio.to(device), None if video is None else video.to(device), mask
        )
    results = beam_search(recognizer, encoded, mask, recognizer.decode_settings)
    for index, (window, hypotheses, frames) in enumerate(zip(windows, results, encoded, strict=True), number):
        yield _segment(recognizer, chunk, window, hypotheses[0], frames[: window.frames], modality, index)


def collate(
    chunk: Chunk, windows: Sequence[Window], modality: str
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Audio [B, 104, T], video [B, 1, T, 88, 88] and padding mask [B, T] of the windows; None for what is not used."""
    lengths = [window.frames for window in windows]
    longest = max(lengths)
    audio = torch.zeros(len(windows), AUDIO_DIM, longest) if "a" in modality else None
    video = torch.zeros(len(windows), 1, longest, CROP_SIZE, CROP_SIZE) if "v" in modality else None
    for row, window in enumerate(windows):
        if audio is not None:
            audio[row, :, : window.frames] = _audio(chunk, window).T
        if video is not None:
            video[row, 0, : window.frames] = _video(chunk, window)
    padding = torch.arange(longest)[None] >= torch.tensor(lengths)[:, None]
    return audio, video, padding if padding.any() else None


def _audio(chunk: Chunk, window: Window) -> Tensor:
    assert chunk.samples is not None
    samples = chunk.samples[window.start * SAMPLES_PER_FRAME : window.end * SAMPLES_PER_FRAME]
    if len(samples) == 0:  # the audio ends before the video
        samples = np.zeros(window.frames * SAMPLES_PER_FRAME, np.int16)
    return audio_features(samples, window.frames)


def _video(chunk: Chunk, window: Window) -> Tensor:
    assert chunk.mouth is not None
    return transform(chunk.mouth[window.start : window.end])


def _segment(
    recognizer: Recognizer,
    chunk: Chunk,
    window: Window,
    best: Hypothesis,
    encoded: Tensor,
    modality: str,
    number: int,
) -> Segment:
    """The segment of one window, from its best hypothesis and its encoded frames [T, D]."""
    text = recognizer.require_tokenizer("used").decode(best.tokens)
    begin = (chunk.start + window.start) / FRAME_RATE
    words = [
        Word(word.word, begin + word.start_seconds, begin + word.end_seconds, word.confidence, number)
        for word in _aligned_words(recognizer, text, best, encoded)
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


def _aligned_words(recognizer: Recognizer, text: str, best: Hypothesis, encoded: Tensor) -> list[AlignedWord]:
    try:
        return align(recognizer, encoded, best.tokens, best.posteriors)
    except DataError:  # more tokens than frames: every word gets the times of the whole window
        confidence = math.exp(sum(best.posteriors) / len(best.posteriors))
        return [AlignedWord(word, 0.0, len(encoded) / FRAME_RATE, confidence) for word in text.split()]


def _box(chunk: Chunk, window: Window) -> Box | None:
    if chunk.track is None:
        return None
    sides = np.median(chunk.track.box[window.core_start : window.core_end], axis=0)
    return cast("Box", tuple(round(float(side), 1) for side in sides))
