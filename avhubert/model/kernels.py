"""Batch norm and PReLU for training on a CPU, over images [N, C, H, W] that are channels-last in memory.

PyTorch's batch norm sums such images in one float32 accumulator per channel: the statistics have an error of 1e-5, and
the gradients of the stem one of 1 %. Its PReLU spends most of the time on the gradient of the slopes. The functions
here view the same memory as rows [N·H, W·C]: each sum has fewer terms, and vectors are long even with few channels.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def applies(x: Tensor) -> bool:
    """Whether to use this batch norm for x: float32 or float64 on a CPU. PyTorch's is fine otherwise."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def prelu_applies(x: Tensor) -> bool:
    """Whether to use this PReLU for x: on a CPU, also in bfloat16."""
    return applies(x) or (x.device.type == "cpu" and x.dtype == torch.bfloat16)


def _rows(x: Tensor) -> Tensor:
    """The image [N, C, H, W] as rows [N·H, W·C]."""
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(n * h, w * c)


def _image(rows: Tensor, shape: torch.Size) -> Tensor:
    """Rows [N·H, W·C] as an image of shape [N, C, H, W]."""
    n, c, h, w = shape
    return rows.view(n, h, w, c).permute(0, 3, 1, 2)


class _BatchNorm(torch.autograd.Function):
    """(x, weight, bias, eps) → (output, mean, biased variance)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        rows, width = _rows(x), x.shape[3]
        means, variances = (s.view(width, -1) for s in torch.batch_norm_update_stats(rows, None, None, 0.0))
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        scale = torch.rsqrt(variance + eps)
        normalised = torch.addcmul((-mean * scale).repeat(width), rows, scale.repeat(width))
        ctx.save_for_backward(normalised, weight * scale)
        ctx.shape = x.shape
        ctx.mark_non_differentiable(mean, variance)
        out = torch.addcmul(bias.repeat(width), normalised, weight.repeat(width))
        return _image(out, x.shape), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        normalised, scale = ctx.saved_tensors
        rows, width = _rows(gradients[0]), ctx.shape[3]
        bias = rows.sum(0).view(width, -1).sum(0)
        weight = (rows * normalised).sum(0).view(width, -1).sum(0)
        scale_over_count = scale / (rows.numel() // len(scale))
        through_statistics = torch.addcmul(
            (-scale_over_count * bias).repeat(width), normalised, (-scale_over_count * weight).repeat(width)
        )
        return _image(through_statistics.addcmul_(rows, scale.repeat(width)), ctx.shape), weight, bias, None


class _PReLU(torch.autograd.Function):
    """PReLU over rows, one slope per column."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        positive = torch.ops.aten.threshold_backward(gradients[0], x, 0)  # the gradient where x > 0, else 0
        negative = gradients[0] - positive
        return positive.addcmul_(negative, slope.to(x.dtype)), negative.mul_(x).sum(0, dtype=slope.dtype)


_frozen = False  # whether batch norm keeps its running statistics


@contextlib.contextmanager
def statistics_frozen() -> Iterator[None]:
    """A context in which batch norm in training mode does not update its running statistics.

    Activation checkpointing repeats the forward pass in it. It applies to all threads, because the backward pass runs
    in a separate thread.
    """
    global _frozen
    _frozen = True
    try:
        yield
    finally:
        _frozen = False


def batch_norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Compute `norm(x)` in training mode and update its running statistics, except within `statistics_frozen`.

    Args:
        x: [N, C, H, W].
        norm: of C channels.

    Returns:
        [N, C, H, W].
    """
    assert norm.momentum is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    if not applies(x):
        if not _frozen:
            normalised: Tensor = norm(x)
            return normalised
        running = norm.running_mean.clone(), norm.running_var.clone()
        return F.batch_norm(x, *running, norm.weight, norm.bias, True, norm.momentum, norm.eps)
    out: Tensor
    out, mean, variance = _BatchNorm.apply(x, norm.weight, norm.bias, norm.eps)  # type: ignore[no-untyped-call]
    if _frozen:
        return out
    count = x.numel() // x.shape[1]
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / max(count - 1, 1)), norm.momentum)
    return out


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Compute `F.prelu(x, slope)` of x [N, C, H, W] with one slope per channel, [C]."""
    return _image(_PReLU.apply(_rows(x), slope.repeat(x.shape[3])), x.shape)  # type: ignore[no-untyped-call]


def reuse_memory() -> None:
    """Make glibc keep freed memory for the next allocation of this process; no effect with other C libraries.

    By default, the memory of a freed tensor over 32 MB returns to the system, which clears it page by page at the next
    allocation: this takes a quarter of a training step on a CPU. A program that trains or extracts features calls this
    once.
    """
    allocator = getattr(ctypes.CDLL(None), "mallopt", None)
    if allocator is not None:
        allocator(_M_MMAP_THRESHOLD, 1 << 30)
        allocator(_M_TRIM_THRESHOLD, (1 << 31) - 1)
