"""Span masks of pre-training and modality dropout (ICLR 2022, § 3.3 and 3.4), all drawn on the CPU from one generator.

Shapes: B utterances, T video frames at 25 Hz. A *span* is a longest sequence of adjacent masked frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avhubert.config.schema import MaskingConfig
from avhubert.errors import ConfigError

MIN_SPANS = 2
BLANK = -1  # instead of a source frame: the masked frame becomes 0


@dataclass
class Masks:
    """Masked frames of a batch, drawn on the CPU and moved with the inputs.

    Either `features` is set (feature masking) or the other three.

    `audio`, `video`, `features`: bool [B, T], True = masked; only real frames are masked. `video_source`: int64 [B,
    T], for masked video the frame b·T + t that replaces it, or −1: it becomes 0.
    """

    audio: Tensor | None = None
    video: Tensor | None = None
    video_source: Tensor | None = None
    features: Tensor | None = None

    def union(self, has_audio: Tensor | None = None, has_video: Tensor | None = None) -> Tensor:
        """bool [B, T]: frames to predict. A stream that an utterance lacks masks nothing."""
        if self.features is not None:
            return self.features
        assert self.audio is not None
        assert self.video is not None
        audio = self.audio if has_audio is None else self.audio & has_audio[:, None]
        video = self.video if has_video is None else self.video & has_video[:, None]
        return audio | video

    def replace_audio(self, audio: Tensor | None, embedding: Tensor) -> Tensor | None:
        """audio [B, 104, T] with masked frames ← the learned `embedding` [104], or ← 0 in a batch of one clip."""
        if audio is None or self.audio is None:
            return audio
        value = embedding * (len(audio) > 1)  # published: a batch of one has its masked frames blanked in both streams
        return torch.where(self.audio[:, None, :], value.to(audio.dtype)[:, None], audio)

    def replace_video(self, video: Tensor | None) -> Tensor | None:
        """video [B, 1, T, H, H] with masked frames ← their source frames, read from the clip as it was."""
        if video is None or self.video is None:
            return video
        assert self.video_source is not None
        frames = video.flatten(0, 2)
        masked, source = self.video.flatten(), self.video_source.flatten()
        own = torch.arange(len(frames), device=frames.device)
        blank = masked & (source == BLANK)
        replaced = frames[torch.where(masked & ~blank, source, own)]
        return replaced.masked_fill_(blank[:, None, None], 0).view_as(video)

    def replace_features(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Fused features [B, T', D], T' <= T, with masked frames ← the learned `embedding` [D]."""
        if self.features is None:
            return x
        return torch.where(self.features[:, : x.shape[1], None], embedding.to(x.dtype), x)


def draw_masks(padding_mask: Tensor, config: MaskingConfig, masking_type: str, rng: np.random.Generator) -> Masks:
    """Masks of one batch, reproducible from `rng`; padding_mask bool [B, T] (all False where nothing is padded).

    `feature` masking draws one mask with the settings of audio, which must be those of video too (else ConfigError);
    `input` masking draws video first, then what replaces it, then audio. A probability of 0 masks nothing.
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
    """bool [B, `frames`]: spans of `span` frames in rows of `lengths` real frames.

    prob · length / span spans a row (at least 2; rounded by one random number a row, or one for all rows where all
    are of full length, as the published statistics have it), starts drawn without replacement, spans may overlap.
    With `thin`, random frames are unmasked until every row has as many as the least masked one.
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
    """(row, first frame, frame after the last) of every span of a mask bool [B, T]."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    return list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))


def replacement(mask: np.ndarray, selection: str, rng: np.random.Generator) -> np.ndarray:
    """Which frame replaces each masked one: int64 [B, T] of b·T + t, −1 where there is none.

    `same_seq`: each span is replaced by a span of the same clip that ends a frame or more before it or starts
    after it (frame 0 if there is no such start); past the clip's end the last frame repeats. `same_other_seq`: the
    same frames of another clip, the batch being rotated by one random number. A batch of one clip has its masked
    frames set to 0, as published.
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
    """Which streams are kept in training: (audio, video), bool [B] each, never both dropped.

    With probability `modality_dropout` one stream goes: audio with probability `audio_dropout`, else video. One draw
    for the batch, or one per utterance.
    """
    draws = rng.random((batch if config.dropout_per_utterance else 1, 2))
    drop = draws[:, 0] < config.modality_dropout
    audio = drop & (draws[:, 1] < config.audio_dropout)
    video = drop & ~audio
    keep_audio, keep_video = (torch.from_numpy(np.resize(~dropped, batch)) for dropped in (audio, video))
    return keep_audio, keep_video
