"""Examples to a padded batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from avhubert.constants import FRAME_RATE, NO_LABEL, PAD
from avhubert.devices import to_device
from avhubert.model.inputs import ModelInputs


# --------------------------------------------------------------------------- what a batch is
@dataclass
class Example:
    """One clip as it is shown in one epoch; a stream that is not shown is None."""

    index: int
    epoch: int
    id: str
    frames: int
    audio: Tensor | None  # float32 [T, 104]
    video: Tensor | None  # float32 [T, 88, 88]
    labels: list[np.ndarray]  # per label set, int [labels], at its own rate
    tokens: list[int] | None  # with </s>


@dataclass
class Batch:
    """B clips, padded to T frames.

    Attributes:
        model_inputs: what the model reads; None in a batch without rows.
        labels: per label set int64 [B, T], the class of each frame; -1 = none: padding, or the labels have run out.
            (The published collation trims targets to the batch's longest and lets padding count as class 1 in shorter
            ones.)
        tokens: int64 [B, L] with </s> (2), padded with 1; None without transcripts.
        ids: of the clips.
        frames: video frames of all clips, padding not counted.
        left_out: clips that could not be read (id → reason), where the dataset tolerates them; if all of them are, the
            batch has no rows.
    """

    model_inputs: ModelInputs | None
    labels: list[Tensor]
    tokens: Tensor | None
    ids: list[str]
    frames: int
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def inputs(self) -> ModelInputs:
        """What the model reads, of a batch that has rows."""
        assert self.model_inputs is not None, "the batch has no rows"
        return self.model_inputs

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        return to_device(self, device)


def empty_batch() -> Batch:
    """A batch without rows."""
    return Batch(None, [], None, [], 0)


def batch_frames(lengths: Sequence[int], pad: bool, crop_frames: int | None) -> int:
    """Frames T of a batch of clips of these lengths."""
    size = max(lengths) if pad else min(lengths)
    return size if crop_frames is None else min(size, crop_frames)


def collate(examples: Sequence[Example], size: int, starts: Sequence[int], label_rates: Sequence[int]) -> Batch:
    """Put frames start … start + size - 1 of each example into a batch of `size` frames."""
    count = len(examples)
    lengths = [min(example.frames - start, size) for example, start in zip(examples, starts, strict=True)]
    has_audio = torch.tensor([example.audio is not None for example in examples])
    has_video = torch.tensor([example.video is not None for example in examples])
    audio = torch.zeros(count, size, _width(examples, "audio")) if has_audio.any() else None
    video = torch.zeros(count, 1, size, *_shape(examples, "video")) if has_video.any() else None
    labels = [torch.full((count, size), NO_LABEL) for _ in label_rates]
    for row, (example, start, length) in enumerate(zip(examples, starts, lengths, strict=True)):
        if audio is not None and example.audio is not None:
            audio[row, :length] = example.audio[start : start + length]
        if video is not None and example.video is not None:
            video[row, 0, :length] = example.video[start : start + length]
        for target, clusters, rate in zip(labels, example.labels, label_rates, strict=True):
            target[row, :length] = frame_labels(clusters, rate, start, length)
    tokens = None
    if examples[0].tokens is not None:
        rows = [torch.tensor(example.tokens) for example in examples]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    inputs = ModelInputs(
        audio=None if audio is None else audio.transpose(1, 2),
        video=video,
        padding_mask=torch.arange(size) >= torch.tensor(lengths)[:, None],
        has_audio=has_audio,
        has_video=has_video,
    )
    return Batch(
        inputs,
        labels=labels,
        tokens=tokens,
        ids=[example.id for example in examples],
        frames=sum(lengths),
    )


def _shape(examples: Sequence[Example], stream: str) -> tuple[int, ...]:
    return next(tuple(x.shape[1:]) for example in examples if (x := getattr(example, stream)) is not None)


def _width(examples: Sequence[Example], stream: str) -> int:
    return _shape(examples, stream)[0]


def frame_labels(row: np.ndarray, rate: int, start: int, frames: int) -> Tensor:
    """int64 [frames]: label row[int(t * rate / 25)] of frames t = start …, -1 where the row has run out."""
    places = np.arange(start, start + frames) * rate // FRAME_RATE
    found = np.full(frames, NO_LABEL, np.int64)
    inside = places < len(row)
    found[inside] = row[places[inside]]
    return torch.from_numpy(found)
