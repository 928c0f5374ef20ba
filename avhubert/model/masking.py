"""Span masking of pre-training and modality dropout (ICLR 2022, § 3.3 and 3.4).

All random numbers are drawn on the CPU from one generator. Shapes: B utterances, T video frames at 25 Hz. A *span* is a
maximal sequence of adjacent masked frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avhubert.config.schema import MaskingConfig
from avhubert.errors import ConfigError

MIN_SPANS = 2  # of an utterance
BLANK = -1  # in place of the index of a source frame: the masked frame is set to 0


@dataclass
class Masks:
    """The masked frames of a batch. Draw them on the CPU, then move them with the batch.

    Either `features` is set (feature masking) or the other three (input masking). Only real frames are masked.

    Attributes:
        audio: bool [B, T], True = masked.
        video: bool [B, T], True = masked.
        video_source: int64 [B, T], for each masked video frame the flat index b·T + t of the frame that replaces it;
            −1: the frame is set to 0.
        features: bool [B, T], True = masked.
    """

    audio: Tensor | None = None
    video: Tensor | None = None
    video_source: Tensor | None = None
    features: Tensor | None = None

    def union(self, has_audio: Tensor | None = None, has_video: Tensor | None = None) -> Tensor:
        """The frames to predict, bool [B, T]: masked in at least one stream that the utterance has.

        Args:
            has_audio: bool [B]; None: every utterance has audio.
            has_video: bool [B]; None: every utterance has video.
        """
        if self.features is not None:
            return self.features
        assert self.audio is not None
        assert self.video is not None
        audio = self.audio if has_audio is None else self.audio & has_audio[:, None]
        video = self.video if has_video is None else self.video & has_video[:, None]
        return audio | video

    def replace_audio(self, audio: Tensor | None, embedding: Tensor) -> Tensor | None:
        """Replace the masked frames of audio [B, 104, T] by `embedding` [104], or by 0 in a batch of one clip."""
        if audio is None or self.audio is None:
            return audio
        value = embedding * (len(audio) > 1)  # as published: in a batch of one clip both streams are masked with 0
        return torch.where(self.audio[:, None, :], value.to(audio.dtype)[:, None], audio)

    def replace_video(self, video: Tensor | None) -> Tensor | None:
        """Replace the masked frames of video [B, 1, T, H, H] by their source frames before masking."""
        if video is None or self.video is None:
            return video
        assert self.video_source is not None
        frames = video.flatten(0, 2)
        masked, source = self.video.flatten(), self.video_source.flatten()
        unchanged = torch.arange(len(frames), device=frames.device)
        blank = masked & (source == BLANK)
        replaced = frames[torch.where(masked & ~blank, source, unchanged)]
        return replaced.masked_fill_(blank[:, None, None], 0).view_as(video)

    def replace_features(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Replace the masked frames of fused features [B, T', D], T' ≤ T, by `embedding` [D]."""
        if self.features is None:
            return x
        return torch.where(self.features[:, : x.shape[1], None], embedding.to(x.dtype), x)


def draw_masks(padding_mask: Tensor, config: MaskingConfig, masking_type: str, rng: np.random.Generator) -> Masks:
    """Draw the masks of a batch.

    Args:
        padding_mask: bool [B, T], True = padding.
        config: probabilities and lengths; a probability of 0 masks nothing.
        masking_type: `feature` draws one mask; `input` draws the video mask, then the replacement frames, then the
            audio mask.
        rng: determines the masks.

    Raises:
        ConfigError: `feature` masking, but the settings of audio and video differ.
    """
    frames = padding_mask.shape[1]
    lengths = (~padding_mask).sum(1).tolist()
    if masking_type == "feature":
        if (config.prob_audio, config.length_audio) != (config.prob_video, config.length_video):
            raise ConfigError(
                "feature masking has one mask for both streams: set masking.prob_video and masking.length_video to"
                f" the values of audio, {config.prob_audio} and {config.length_audio}"
            )
        mask = span_mask(lengths, frames, config.prob_audio, config.length_audio, config.thin, rng)
        return Masks(features=torch.from_numpy(mask))
    video = span_mask(lengths, frames, config.prob_video, config.length_video, config.thin, rng)
    source = replacement(video, config.selection, rng)
    audio = span_mask(lengths, frames, config.prob_audio, config.length_audio, config.thin, rng)
    return Masks(torch.from_numpy(audio), torch.from_numpy(video), torch.from_numpy(source))


def span_mask(
    lengths: list[int], frames: int, prob: float, span: int, thin: bool, rng: np.random.Generator
) -> np.ndarray:
    """Draw span masks.

    A row has prob · length / span spans, at least 2. The number is rounded up or down at random, with one random number
    per row, or one for all rows if no row is padded (as published). The starts are drawn without replacement; spans may
    overlap.

    Args:
        lengths: real frames of each row.
        frames: T.
        prob: approximate share of masked frames before overlaps; 0: nothing is masked.
        span: frames of a span.
        thin: unmask random frames until all rows have as many masked frames as the row with the fewest.
        rng: determines the masks.

    Returns:
        bool [B, T], True = masked.
    """
    mask = np.zeros((len(lengths), frames), dtype=bool)
    if prob == 0:
        return mask
    rounding = rng.random(len(lengths) if min(lengths) < frames else 1)
    for row, length, offset in zip(mask, lengths, np.resize(rounding, len(lengths)), strict=True):
        spans = max(MIN_SPANS, int(prob * length / span + offset))
        starts = rng.choice(max(length - span, spans + 1), spans, replace=False)
        masked = (starts[:, None] + np.arange(span)).ravel()
        row[masked[masked < length]] = True
    if thin:
        counts = mask.sum(1)
        for row, count in zip(mask, counts, strict=True):
            row[rng.choice(np.flatnonzero(row), count - counts.min(), replace=False)] = False
    return mask


def spans(mask: np.ndarray) -> list[tuple[int, int, int]]:
    """The spans of a mask bool [B, T]: (row, first frame, frame after the last) of each."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    return list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))


def replacement(mask: np.ndarray, selection: str, rng: np.random.Generator) -> np.ndarray:
    """Draw the frames that replace masked video frames. In a batch of one clip there are none, as published.

    Args:
        mask: bool [B, T], True = masked.
        selection: `same_seq`: a span of the same clip and length replaces each span. It ends at least one frame before
            the masked span or starts after it (at frame 0 if neither is possible); after the end of the row its last
            frame is repeated. `same_other_seq`: the same frames of another clip; the batch is rotated by one random
            number.
        rng: determines the frames.

    Returns:
        Flat indices b·T + t, int64 [B, T]; −1 for unmasked frames and if there is no replacement.
    """
    batch, frames = mask.shape
    source = np.full(mask.shape, BLANK, dtype=np.int64)
    if batch == 1:
        return source
    if selection == "same_other_seq":
        other = (np.arange(batch) + rng.integers(1, batch)) % batch
        source[mask] = (other[:, None] * frames + np.arange(frames))[mask]
        return source
    for row, start, end in spans(mask):
        length = end - start
        before = max(0, start - length)  # starts 0 … before-1 and end … frames-1 are allowed
        choices = before + frames - end
        first = int(rng.integers(choices)) if choices else 0
        if choices and first >= before:
            first += end - before
        source[row, start:end] = row * frames + np.minimum(first + np.arange(length), frames - 1)
    return source


def draw_modality_dropout(batch: int, config: MaskingConfig, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw the streams to keep in training (modality dropout).

    With probability `modality_dropout` one stream is dropped: audio with probability `audio_dropout`, otherwise video.

    Args:
        batch: B.
        config: the probabilities, and whether there is one draw for the batch or one per utterance.
        rng: determines the streams.

    Returns:
        (audio, video), each bool [B], True = kept; at least one of them is True.
    """
    draws = rng.random((batch if config.dropout_per_utterance else 1, 2))
    drop = draws[:, 0] < config.modality_dropout
    audio = drop & (draws[:, 1] < config.audio_dropout)
    video = drop & ~audio
    keep_audio, keep_video = (torch.from_numpy(np.resize(~dropped, batch)) for dropped in (audio, video))
    return keep_audio, keep_video
