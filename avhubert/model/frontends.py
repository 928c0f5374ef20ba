"""The visual front end: a 3-D stem over the clip and a 2-D residual trunk over each frame (ICLR 2022, appendix A).

Shapes: N clips, T frames at 25 Hz, W = `visual_width`, H = height and width of a frame (88).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avhubert.model import inference, kernels
from avhubert.model.inference import Linear

STEM_RADIUS = 2  # frames before and after the current one that the stem's kernel reads
STEM_FRAMES = 2 * STEM_RADIUS + 1
GAP = 2 * STEM_RADIUS  # empty frames after each clip: one window after its end reads the last of them
FRAMES_AT_ONCE = 64  # of the front end for inference on a CPU: their images fit the processor's cache


class PReLU(nn.PReLU):
    """`nn.PReLU` with one slope per channel, over [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation: [N, C, H, W] → [N, C, H, W]."""
        return kernels.prelu(x, self.weight) if self.training and kernels.prelu_applies(x) else super().forward(x)


def activation(kind: str, channels: int) -> nn.Module:
    """Make an activation: `prelu` (one slope per channel, initially 0.25) or `relu`."""
    return PReLU(channels) if kind == "prelu" else nn.ReLU()


Folded = inference.Derived[tuple[Tensor, Tensor]]  # kernel and bias


def _conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, folded: Folded) -> Tensor:
    """Convolution and batch norm. In evaluation mode the norm is folded into the kernel, which saves a memory pass."""
    if norm.training:
        return kernels.batch_norm(conv(x), norm)
    kernel, shift = _folded(x, conv, norm, folded)
    return F.conv2d(x, kernel, shift, cast(tuple[int, int], conv.stride), cast(tuple[int, int], conv.padding))


def _folded(x: Tensor, conv: nn.Module, norm: nn.BatchNorm2d, folded: Folded) -> tuple[Tensor, Tensor]:
    """Kernel and bias of `_fold` for the input x; `folded` keeps them for inference."""
    weight = cast(Tensor, conv.weight)
    if not inference.applies(x):
        return _fold(weight, norm)
    dtype = inference.product_type(x)

    def compute() -> tuple[Tensor, Tensor]:
        kernel, shift = _fold(weight, norm)
        return kernel.to(dtype, memory_format=torch.channels_last), shift.to(dtype)

    statistics = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    return folded.get((weight, norm.weight, norm.bias, *statistics), dtype, compute)


def _fold(kernel: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a convolution that includes the batch norm after it."""
    scale = norm.weight * torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps)
    return _planar(kernel) * scale.view(-1, 1, 1, 1), norm.bias - cast(Tensor, norm.running_mean) * scale


def _planar(kernel: Tensor) -> Tensor:
    """The kernel of a 2-D convolution; that of the stem, [W, 1, …], has adjacent frames as channels."""
    return kernel[:, 0] if kernel.dim() == 5 else kernel


class ResidualBlock(inference.Keeper):
    """Two 3×3 convolutions with batch norm, and a shortcut, which is projected if the shape changes.

    Args:
        inputs: channels C.
        outputs: channels C'.
        stride: of the first convolution.
        kind: of the activations, see `activation`.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, kind: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.activation1 = activation(kind, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.activation2 = activation(kind, outputs)
        self.shortcut_conv: nn.Conv2d | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut_conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(outputs)
        self._folded1, self._folded2, self._folded_shortcut = Folded(), Folded(), Folded()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: [N, C, H, W] → [N, C', H', W'], H and W divided by the stride."""
        out = self.activation1(_conv_norm(x, self.conv1, self.norm1, self._folded1))
        out = _conv_norm(out, self.conv2, self.norm2, self._folded2)
        if self.shortcut_conv is not None:
            x = _conv_norm(x, self.shortcut_conv, self.shortcut_norm, self._folded_shortcut)
        activated: Tensor = self.activation2(out.add_(x) if inference.applies(out) else out + x)
        return activated


class VisualFrontEnd(inference.Keeper):
    """Visual features of mouth clips: [N, 1, T, H, H] → [N, T, D].

    Args:
        dim: D.
        width: W, channels of the stem (published: 64).
        blocks: residual blocks of each stage (published: 2, 2, 2, 2). Every stage after the first halves the resolution
            and doubles the channels.
        kind: of the activations, see `activation`.
    """

    def __init__(self, dim: int, width: int = 64, blocks: Sequence[int] = (2, 2, 2, 2), kind: str = "prelu") -> None:
        super().__init__()
        self.stem_conv = nn.Conv3d(1, width, (5, 7, 7), (1, 2, 2), (STEM_RADIUS, 3, 3), bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.stem_activation = activation(kind, width)
        self._folded_stem = Folded()
        self._increasing: inference.Derived[bool] = inference.Derived()
        self.stages = nn.ModuleList()
        inputs = width
        for stage, count in enumerate(blocks):
            outputs = width * 2**stage
            layers = []
            for block in range(count):
                layers.append(ResidualBlock(inputs, outputs, 2 if stage and not block else 1, kind))
                inputs = outputs
            self.stages.append(nn.Sequential(*layers))
        self.projection = Linear(inputs, dim)
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        self.stages.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def stem(self, video: Tensor) -> Tensor:
        """Apply the stem: [N, 1, T, H, H] → [N·T, W, H/4, H/4], channels-last in memory."""
        frames = F.pad(video[:, 0], (0, 0, 0, 0, STEM_RADIUS, STEM_RADIUS)).unfold(1, STEM_FRAMES, 1)
        return self._stem(frames.flatten(0, 1).contiguous())  # of one clip, `flatten` makes a view

    def _stem(self, windows: Tensor) -> Tensor:
        """Apply the stem to windows of adjacent frames: [N, H, H, STEM_FRAMES] → [N, W, H/4, H/4]."""
        # a 2-D convolution with adjacent frames as channels: on a CPU, a 3-D one has no channels-last output
        kernel, shift = _planar(self.stem_conv.weight), None
        if not self.training:
            kernel, shift = _folded(windows, self.stem_conv, self.stem_norm, self._folded_stem)
        x = F.conv2d(windows.permute(0, 3, 1, 2), kernel, shift, stride=2, padding=3)
        if self.training:
            x = kernels.batch_norm(x, self.stem_norm)
        elif self._increases(x):  # the same numbers, with a quarter of the work in the activation
            return cast(Tensor, self.stem_activation(F.max_pool2d(x, 3, 2, 1)))
        return F.max_pool2d(self.stem_activation(x), 3, 2, 1)

    def _increases(self, x: Tensor) -> bool:
        """Whether the stem's activation preserves order, so that it may follow the maximum of its outputs."""
        if not inference.applies(x):
            return False
        slopes = getattr(self.stem_activation, "weight", None)
        return slopes is None or self._increasing.get((slopes,), x.dtype, lambda: bool((slopes >= 0).all()))

    def _trunk(self, x: Tensor) -> Tensor:
        """Apply the residual trunk: [N, W, H/4, H/4] → [N, channels of the last stage]."""
        for stage in self.stages:
            x = stage(x)
        return x.mean((2, 3))

    def encode(self, video: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Apply the stem and the residual trunk, without the projection.

        Args:
            video: [N, 1, T, H, H].
            lengths: real frames of each clip. In training mode, the frames after them must be 0. In evaluation mode
                they count as 0, and only one of the frames that depend on padding alone is processed. None: all T.

        Returns:
            [N, T, channels of the last stage], 8·W as published.
        """
        n, _, t = video.shape[:3]
        if lengths is not None and not self.training:
            return self._encode_frames(video, lengths).view(n, t, -1)
        return self._trunk(self.stem(video)).view(n, t, -1)

    def _encode_frames(self, video: Tensor, lengths: Sequence[int]) -> Tensor:
        """`encode` in evaluation mode, on a CPU a few frames at a time, which takes less memory: [N·T, channels]."""
        starts, frame_of = _windows(lengths, video.shape[2])
        windows = _spaced(video[:, 0], lengths).unfold(0, STEM_FRAMES, 1)
        at_once = FRAMES_AT_ONCE if inference.applies(video) else len(starts)
        chunks = torch.from_numpy(starts).to(video.device).split(at_once)
        features = torch.cat([self._trunk(self._stem(windows.index_select(0, chunk))) for chunk in chunks])
        return features[torch.from_numpy(frame_of).to(video.device)]

    def forward(self, video: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Visual features [N, T, D] of [N, 1, T, H, H]; `lengths` as in `encode`."""
        features: Tensor = self.projection(self.encode(video, lengths))
        return features


def _spaced(frames: Tensor, lengths: Sequence[int]) -> Tensor:
    """The real frames of clips [N, T, H, H], one clip after the other, with empty frames between: [*, H, H].

    Each clip has STEM_RADIUS empty frames before it and twice as many after it. One more is at the end.
    """
    total = sum(length + GAP for length in lengths) + STEM_RADIUS + 1
    dtype = inference.product_type(frames) if inference.applies(frames) else frames.dtype
    spaced = frames.new_zeros(total, *frames.shape[2:], dtype=dtype)
    begin = STEM_RADIUS
    for clip, length in zip(frames, lengths, strict=True):
        spaced[begin : begin + length] = clip[:length]
        begin += length + GAP
    return spaced


def _windows(lengths: Sequence[int], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Which windows of `_spaced` the stem has to read.

    Returns:
        starts: the first frame of each distinct window, int64.
        frame_of: for each frame of the batch the position of its window in `starts`, int64 [N·T]. Where a window has
            padding alone, it is the same for all frames.
    """
    counts = np.asarray(lengths)[:, None]
    begins = np.cumsum(counts + GAP, 0) - counts - GAP
    positions = np.arange(frames)
    blank = begins[-1] + counts[-1] + STEM_RADIUS
    starts = np.where(positions < counts + STEM_RADIUS, begins + positions, blank)
    distinct, inverse = np.unique(starts, return_inverse=True)
    return distinct, inverse.reshape(-1)
