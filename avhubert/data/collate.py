"""Collation: examples to a padded batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from avhubert.constants import FRAME_RATE, NO_LABEL, PAD
from avhubert.devices import to_device
from avhubert.model.inputs import ModelInputs


@dataclass
class Example:
    """One clip, augmented for one epoch.

    Attributes:
        index: of the clip in the data set.
        epoch: counted from 0.
        id: the clip's id.
        frames: T, video frames at 25 Hz.
        audio: float32 [T, 104]; None if the clip lacks audio or it was dropped.
        video: float32 [T, 88, 88]; None if the clip lacks video or it was dropped.
        labels: per label set int [labels], at the rate of the label set.
        tokens: ids of the transcript, ending with `</s>`; None without transcripts.
    """

    index: int
    epoch: int
    id: str
    frames: int
    audio: Tensor | None
    video: Tensor | None
    labels: list[np.ndarray]
    tokens: list[int] | None


@dataclass
class Batch:
    """B clips, padded to T frames.

    Attributes:
        model_inputs: the inputs of the model; None in a batch without rows.
        labels: per label set int64 [B, T], the class of each frame; -1 where the frame is padding or after the last
            label. (The published collation cuts the targets to the longest row and counts padding as class 1 in
            shorter rows.)
        tokens: int64 [B, L], each row ends with `</s>` (2) and is padded with 1; None without transcripts.
        ids: of the clips.
        frames: video frames of all clips without padding.
        left_out: clips that could not be read (id → reason), if the data set skips them. If no clip could be read,
            the batch has no rows.
    """

    model_inputs: ModelInputs | None
    labels: list[Tensor]
    tokens: Tensor | None
    ids: list[str]
    frames: int
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def inputs(self) -> ModelInputs:
        """The inputs of the model; only for a batch with rows."""
        assert self.model_inputs is not None, "the batch has no rows"
        return self.model_inputs

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        return to_device(self, device)


def empty_batch() -> Batch:
    """A batch without rows."""
    return Batch(None, [], None, [], 0)


def batch_frames(lengths: Sequence[int], pad: bool, crop_frames: int | None) -> int:
    """T, the frames of a batch.

    Args:
        lengths: frames of each clip.
        pad: pad the clips to the longest; otherwise crop them to the shortest.
        crop_frames: maximum of T; None: no maximum.
    """
    size = max(lengths) if pad else min(lengths)
    return size if crop_frames is None else min(size, crop_frames)


def pad_streams(audio: Sequence[Tensor | None], video: Sequence[Tensor | None], size: int | None = None) -> ModelInputs:
    """Streams of utterances to the inputs of one model call, padded with zeros: the package's only collation.

    Args:
        audio: per utterance float [T, 104] at 25 Hz, or None.
        video: per utterance float [T, 88, 88], or None; at least one stream of an utterance, both of equal length.
        size: frames of the batch, at least the longest utterance; None: the longest.
    """
    streams = [a if v is None else v for a, v in zip(audio, video, strict=True)]
    lengths = [len(stream) for stream in streams if stream is not None]
    assert len(lengths) == len(streams), "an utterance needs audio or video"
    size = max(lengths) if size is None else size
    padded = [_padded(rows, size) for rows in (audio, video)]
    return ModelInputs(
        audio=None if padded[0] is None else padded[0].transpose(1, 2),
        video=None if padded[1] is None else padded[1][:, None],
        padding_mask=torch.arange(size) >= torch.tensor(lengths)[:, None],
        has_audio=torch.tensor([row is not None for row in audio]),
        has_video=torch.tensor([row is not None for row in video]),
    )


def _padded(rows: Sequence[Tensor | None], size: int) -> Tensor | None:
    """[B, size, …] with zeros where a row ends or is None; None if all are."""
    present = next((row for row in rows if row is not None), None)
    if present is None:
        return None
    batch = present.new_zeros(len(rows), size, *present.shape[1:])
    for target, row in zip(batch, rows, strict=True):
        if row is not None:
            target[: len(row)] = row
    return batch


def collate(examples: Sequence[Example], size: int, starts: Sequence[int], label_rates: Sequence[int]) -> Batch:
    """Make a batch of the frames start … start + size - 1 of each example.

    Args:
        examples: B clips; all of them have tokens or none.
        size: T, the frames of the batch.
        starts: first frame of each example.
        label_rates: labels per second of each label set.
    """
    spans = [(start, min(example.frames, start + size)) for example, start in zip(examples, starts, strict=True)]
    inputs = pad_streams(
        [None if e.audio is None else e.audio[first:last] for e, (first, last) in zip(examples, spans, strict=True)],
        [None if e.video is None else e.video[first:last] for e, (first, last) in zip(examples, spans, strict=True)],
        size,
    )
    labels = [torch.full((len(examples), size), NO_LABEL) for _ in label_rates]
    for row, (example, (first, last)) in enumerate(zip(examples, spans, strict=True)):
        for target, clusters, rate in zip(labels, example.labels, label_rates, strict=True):
            target[row, : last - first] = frame_labels(clusters, rate, first, last - first)
    tokens = None
    if examples[0].tokens is not None:
        rows = [torch.tensor(example.tokens) for example in examples]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    frames = sum(last - first for first, last in spans)
    return Batch(inputs, labels, tokens, [example.id for example in examples], frames)


def frame_labels(row: np.ndarray, rate: int, start: int, frames: int) -> Tensor:
    """The label of each video frame: label t · rate // 25 for frame t, -1 after the last label.

    Args:
        row: int [labels] of a clip.
        rate: labels per second.
        start: the first frame.
        frames: the number of frames.

    Returns:
        int64 [frames].
    """
    indices = np.arange(start, start + frames) * rate // FRAME_RATE
    labels = np.full(frames, NO_LABEL, np.int64)
    has_label = indices < len(row)
    labels[has_label] = row[indices[has_label]]
    return torch.from_numpy(labels)
