"""The inputs of a model call: the streams of a batch, and which of their frames and rows are real.

Shapes: B utterances, T video frames at 25 Hz.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from avhubert.devices import to_device, to_host
from avhubert.errors import DataError

R = TypeVar("R")


@dataclass
class ModelInputs:
    """The inputs of one batch, all on one device.

    Attributes:
        audio: float [B, 104, T], stacked filterbank frames; None if no row has audio.
        video: float [B, 1, T, 88, 88], normalised mouth clips; None if no row has video.
        padding_mask: bool [B, T], True where a frame is padding (only at the end of a row); None: no padding.
        has_audio, has_video: bool [B], False where the row lacks the stream; None: every row has it.
        lengths: real frames of each row, on the host; derived from `padding_mask`.
        audio_rows, video_rows: rows that have the stream, on the host; derived from `has_audio`, `has_video`.

    The values on the host determine shapes and branches, so that a model call on a GPU does not wait for results.
    Create the inputs on the CPU and move them with `to`: deriving these values then does not wait for the GPU.

    Raises:
        DataError: shapes do not match, the batch is empty, or neither audio nor video is given.
    """

    audio: Tensor | None = None
    video: Tensor | None = None
    padding_mask: Tensor | None = None
    has_audio: Tensor | None = None
    has_video: Tensor | None = None
    lengths: tuple[int, ...] | None = None
    audio_rows: tuple[int, ...] | None = None
    video_rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        batch, frames = self._check_shapes()
        if self.lengths is None:
            if self.padding_mask is None:
                self.lengths = (frames,) * batch
            else:
                self.lengths = tuple(to_host((~self.padding_mask).sum(1)).tolist())
        for stream in ("audio", "video"):
            if getattr(self, f"{stream}_rows") is None:
                setattr(self, f"{stream}_rows", self._rows(getattr(self, stream), getattr(self, f"has_{stream}")))

    def _rows(self, stream: Tensor | None, has: Tensor | None) -> tuple[int, ...]:
        if stream is None:
            return ()
        if has is None:
            return tuple(range(self.batch_size))
        return tuple(row for row, present in enumerate(to_host(has).tolist()) if present)

    def _check_shapes(self) -> tuple[int, int]:
        shapes = []
        if self.audio is not None:
            if self.audio.dim() != 3:
                raise DataError(f"audio must have the shape [batch, features, frames], not {list(self.audio.shape)}")
            shapes.append((self.audio.shape[0], self.audio.shape[2]))
        if self.video is not None:
            if self.video.dim() != 5 or self.video.shape[1] != 1:
                raise DataError(
                    f"video must have the shape [batch, 1, frames, height, width], not {list(self.video.shape)}"
                )
            shapes.append((self.video.shape[0], self.video.shape[2]))
        if not shapes:
            raise DataError("neither audio nor video was given: give at least one")
        if self.padding_mask is not None:
            shapes.append((self.padding_mask.shape[0], self.padding_mask.shape[1]))
        if len(set(shapes)) > 1:
            raise DataError(f"audio, video and padding_mask differ in [batch, frames]: {', '.join(map(str, shapes))}")
        if 0 in shapes[0]:
            raise DataError(f"the batch is empty: [batch, frames] is {list(shapes[0])}")
        return shapes[0]

    @property
    def _present(self) -> Tensor:
        present = self.audio if self.video is None else self.video
        assert present is not None
        return present

    @property
    def device(self) -> torch.device:
        """The device of all tensors."""
        return self._present.device

    @property
    def batch_size(self) -> int:
        """B, the number of utterances."""
        return self._present.shape[0]

    @property
    def frames(self) -> int:
        """T, the frames of a row, padding included."""
        return self._present.shape[2]

    @property
    def mask(self) -> Tensor | None:
        """The padding mask, or None if no frame is padding: attention without a mask is faster."""
        assert self.lengths is not None
        return None if all(length == self.frames for length in self.lengths) else self.padding_mask

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> ModelInputs:
        """The same inputs on `device`; `dtype` converts audio and video (None: no conversion)."""
        return to_device(self, device, dtype)


FIELDS = tuple(field.name for field in fields(ModelInputs))[:5]


def takes_inputs(position: int) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Make a decorator for functions that take a ModelInputs, so that they also accept its tensors as arguments.

    With it `model(audio, video, padding_mask)` and `model(audio=…, video=…)` mean
    `model(ModelInputs(audio, video, padding_mask))`. Positional tensors have the order of the dataclass.

    Args:
        position: of the argument `inputs`, counted from 0.
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            before, rest = args[:position], args[position:]
            if (rest and isinstance(rest[0], ModelInputs)) or "inputs" in kwargs:
                return function(*args, **kwargs)
            named = {name: kwargs.pop(name) for name in FIELDS if name in kwargs}
            tensors = dict(zip(FIELDS, rest, strict=False))
            inputs = ModelInputs(**tensors, **named)
            return function(*before, inputs, *rest[len(FIELDS) :], **kwargs)

        return call

    return decorate
