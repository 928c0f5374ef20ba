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

from avhubert.model import kernels

STEM_RADIUS = 2  # frames before and after the current one that the stem's kernel reads


class PReLU(nn.PReLU):
    """`nn.PReLU` with one slope per channel, over [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation: [N, C, H, W] → [N, C, H, W]."""
        return kernels.prelu(x, self.weight) if self.training and kernels.applies(x) else super().forward(x)


def activation(kind: str, channels: int) -> nn.Module:
    """Make an activation: `prelu` (one slope per channel, initially 0.25) or `relu`."""
    return PReLU(channels) if kind == "prelu" else nn.ReLU()


def _conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Convolution and batch norm. In evaluation mode the norm is folded into the kernel, which saves a memory pass."""
    if norm.training:
        return kernels.batch_norm(conv(x), norm)
    kernel, shift = _fold(conv.weight, norm)
    return F.conv2d(x, kernel, shift, cast(tuple[int, int], conv.stride), cast(tuple[int, int], conv.padding))


def _fold(kernel: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a convolution that includes the batch norm after it."""
    scale = norm.weight * torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps)
    return kernel * scale.view(-1, *[1] * (kernel.dim() - 1)), norm.bias - cast(Tensor, norm.running_mean) * scale


class ResidualBlock(nn.Module):
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

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: [N, C, H, W] → [N, C', H', W'], H and W divided by the stride."""
        out = self.activation1(_conv_norm(x, self.conv1, self.norm1))
        out = _conv_norm(out, self.conv2, self.norm2)
        shortcut = x if self.shortcut_conv is None else _conv_norm(x, self.shortcut_conv, self.shortcut_norm)
        activated: Tensor = self.activation2(out + shortcut)
        return activated


class VisualFrontEnd(nn.Module):
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
        self.stages = nn.ModuleList()
        inputs = width
        for stage, count in enumerate(blocks):
            outputs = width * 2**stage
            layers = []
            for block in range(count):
                layers.append(ResidualBlock(inputs, outputs, 2 if stage and not block else 1, kind))
                inputs = outputs
            self.stages.append(nn.Sequential(*layers))
        self.projection = nn.Linear(inputs, dim)
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        self.stages.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def stem(self, video: Tensor) -> Tensor:
        """Apply the stem: [N, 1, T, H, H] → [N·T, W, H/4, H/4], channels-last in memory."""
        kernel, shift = self.stem_conv.weight, None
        if not self.training:
            kernel, shift = _fold(kernel, self.stem_norm)
        # a 2-D convolution with five adjacent frames as channels: on a CPU, a 3-D one has no channels-last output
        frames = F.pad(video[:, 0], (0, 0, 0, 0, STEM_RADIUS, STEM_RADIUS)).unfold(1, 2 * STEM_RADIUS + 1, 1)
        x = F.conv2d(frames.flatten(0, 1).permute(0, 3, 1, 2), kernel[:, 0], shift, stride=2, padding=3)
        if self.training:
            x = kernels.batch_norm(x, self.stem_norm)
        return F.max_pool2d(self.stem_activation(x), 3, 2, 1)

    def encode(self, video: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Apply the stem and the residual trunk, without the projection.

        Args:
            video: [N, 1, T, H, H].
            lengths: real frames of each clip; the frames after them must be 0. In evaluation mode, the trunk processes
                only one of the frames that depend on padding alone. None: no padding.

        Returns:
            [N, T, channels of the last stage], 8·W as published.
        """
        n, _, t = video.shape[:3]
        x = self.stem(video)
        index = None
        if lengths is not None and not self.training:
            distinct, inverse = np.unique(_first_equal(lengths, t), return_inverse=True)
            index = torch.from_numpy(inverse.reshape(-1)).to(x.device)
            x = x[torch.from_numpy(distinct).to(x.device)]
        for stage in self.stages:
            x = stage(x)
        x = x.mean((2, 3))
        if index is not None:
            x = x[index]
        return x.view(n, t, -1)

    def forward(self, video: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Visual features [N, T, D] of [N, 1, T, H, H]; `lengths` as in `encode`."""
        features: Tensor = self.projection(self.encode(video, lengths))
        return features


def _first_equal(lengths: Sequence[int], frames: int) -> np.ndarray:
    """For each frame of the batch the index of the first frame with the same stem output, int64 [N·T].

    That is the frame itself, or, if the stem reads only padding there, the first such frame of the batch.
    """
    indices = np.arange(len(lengths) * frames).reshape(-1, frames)
    # at the end of the tensor the stem reads its own zero padding, which equals the padding of the clip
    blank = np.arange(frames) >= np.asarray(lengths)[:, None] + STEM_RADIUS
    return np.where(blank, indices[blank].min(initial=indices.size), indices).ravel()
