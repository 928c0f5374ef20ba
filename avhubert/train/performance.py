"""Compilation, activation checkpointing, and how much of a device's speed a training uses."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from avhubert.errors import ConfigError
from avhubert.model import kernels
from avhubert.model.decoder import DecoderLayer
from avhubert.model.encoder import EncoderLayer
from avhubert.model.frontends import ResidualBlock, VisualFrontEnd

MATRIX_SIZE = {"cpu": 1024, "cuda": 8192, "mps": 2048}  # of the matrices whose product measures a device
REPEATS = 5


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Layers and residual blocks."""
    return (part for part in module.modules() if isinstance(part, (EncoderLayer, DecoderLayer, ResidualBlock)))


def compile_blocks(module: nn.Module) -> None:
    """Compile every layer and residual block in place (torch.compile, dynamic shapes); parameter names do not change.

    Raises:
        ConfigError: there is no working compiler.
    """
    from torch._inductor.exc import InvalidCxxCompiler

    probe = torch.compile(lambda x: x.sin() + 1)
    device = next(module.parameters()).device
    try:
        probe(torch.ones(8, device=device))
    except (InvalidCxxCompiler, RuntimeError) as error:  # torch wraps the errors of its back ends
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"train.compile=true does not work here ({first}); leave it out, or install g++") from error
    for block in _blocks(module):
        block.forward = torch.compile(block.forward, dynamic=True)


def checkpoint_blocks(module: nn.Module) -> None:
    """Keep only the inputs of layers, residual blocks and stem, and recompute the rest in the backward pass.

    This takes a fraction of the memory and a third more work; results do not change.
    """
    again: Callable[..., Tensor] = functools.partial(
        checkpoint, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), kernels.statistics_frozen())
    )

    def recomputed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*inputs: object) -> Tensor:
            return again(forward, *inputs) if torch.is_grad_enabled() else forward(*inputs)

        return run

    for block in _blocks(module):
        block.forward = recomputed(block.forward)
    for part in module.modules():
        if isinstance(part, VisualFrontEnd):
            part.stem = recomputed(part.stem)  # type: ignore[method-assign]


def forward_operations(run: Callable[[], object]) -> int:
    """Floating-point operations of matrix products, convolutions and attention in `run`, a forward pass."""
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        run()
    operations: int = counter.get_total_flops()
    return operations


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product on `device`, the reference for `utilisation`."""
    side = MATRIX_SIZE[device.type]
    x = torch.randn(side, side, device=device, dtype=dtype)
    seconds = []
    for _ in range(REPEATS):
        _wait(device)
        started = time.perf_counter()
        torch.mm(x, x)
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
