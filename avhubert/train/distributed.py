"""Devices, precision, and what several ranks (processes of torchrun) must agree on."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm

from avhubert.config.schema import TrainConfig
from avhubert.errors import ConfigError

FP16_FIRST_SCALE = 128.0  # losses are sums over frames: the usual 65536 would only be halved many times


def make_fabric(config: TrainConfig) -> Fabric:
    """Fabric on the device and precision asked for, over all processes that torchrun started (else one).

    Raises ConfigError for a device that is not there or a precision that it does not have.
    """
    cuda = torch.cuda.is_available()
    if config.accelerator == "cuda" and not cuda:
        raise ConfigError("train.accelerator=cuda, but torch finds no CUDA device here; give train.accelerator=cpu")
    accelerator = "cuda" if cuda and config.accelerator != "cpu" else "cpu"
    precision = config.precision
    if precision == "auto":
        good = accelerator == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16-mixed" if good else "16-mixed" if accelerator == "cuda" else "32-true"
    if precision == "16-mixed" and accelerator == "cpu":
        raise ConfigError("train.precision=16-mixed needs a CUDA device; give train.precision=32-true or bf16-mixed")
    scaling = precision == "16-mixed"
    scaler = torch.amp.GradScaler("cuda", init_scale=FP16_FIRST_SCALE) if scaling else None
    fabric = Fabric(
        accelerator=accelerator,
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", 1)),
        strategy="ddp" if int(os.environ.get("WORLD_SIZE", 1)) > 1 else "auto",
        precision=None if scaling else precision,  # type: ignore[arg-type]
        plugins=[MixedPrecision("16-mixed", "cuda", scaler)] if scaling else None,
    )
    first = not dist.is_initialized()
    fabric.launch()
    if first and dist.is_initialized():
        atexit.register(_leave)
    return fabric


def _leave() -> None:
    """Join gloo's threads while Python still stands: one that outlives it aborts the process (SIGABRT), after all its
    work is done, and torchrun then calls the whole job failed.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


def matrix_precision(fabric: Fabric) -> torch.dtype:
    """What matrix products are computed in."""
    dtypes = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    return dtypes.get(fabric.strategy.precision.precision, torch.float32)


def scaler(fabric: Fabric) -> torch.amp.GradScaler | None:
    """The loss scaler of fp16, None in every other precision."""
    return getattr(fabric.strategy.precision, "scaler", None)


def total(fabric: Fabric, *values: float) -> list[float]:
    """Each number summed over the ranks."""
    if fabric.world_size == 1:
        return list(values)
    summed = torch.tensor(values, dtype=torch.float64, device=fabric.device)
    dist.all_reduce(summed)
    return summed.tolist()


def gathered(fabric: Fabric, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Every rank's values, in the order of the ranks."""
    if fabric.world_size == 1:
        return [values]
    found: list[dict[str, Any]] = [{} for _ in range(fabric.world_size)]
    dist.all_gather_object(found, values)
    return found


def summed(fabric: Fabric, values: dict[str, Any]) -> dict[str, Any]:
    """Named numbers or arrays summed over the ranks, in the order of the ranks; not all ranks need have all names."""
    result: dict[str, Any] = {}
    for part in gathered(fabric, values):
        for name, value in part.items():
            result[name] = result.get(name, 0.0) + value
    return result


def summed_gradients(fabric: Fabric, module: nn.Module) -> list[Tensor]:
    """The gradients of all that learns, summed over the ranks in place; zeros where nothing reached a parameter."""
    learning = [p for p in module.parameters() if p.requires_grad]
    for p in learning:
        if p.grad is None:  # a dropped layer: its momentum goes on, whichever rank dropped it
            p.grad = torch.zeros_like(p)
    gradients = [p.grad for p in learning if p.grad is not None]
    if fabric.world_size > 1:
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
    return gradients


def norm(gradients: list[Tensor]) -> float:
    """Their common Euclidean norm, also where each rank holds a part of each."""
    found = torch.nn.utils.get_total_norm(gradients)
    return float(found.full_tensor() if isinstance(found, DTensor) else found)


class Statistics:
    """Batch-norm's running statistics over one optimizer step: undone with a step that is skipped, and, with several
    ranks, combined as if one device had gone through the list of micro-batches in order.

    A micro-batch moves them r ← (1 - m)·r + m·s. Ranks start each from r = 0, which leaves m·s, and add up the list.
    """

    def __init__(self, fabric: Fabric, module: nn.Module) -> None:
        self._fabric = fabric
        self._norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.training]
        self._before = [buffer.clone() for norm in self._norms for buffer in norm.buffers()]
        self._moves: dict[int, Tensor] = {}  # place in the list → m·s of all norms

    def _buffers(self) -> list[Tensor]:
        return [buffer for norm in self._norms for buffer in norm.buffers()]

    def _running(self) -> list[Tensor]:
        return [buffer for buffer in self._buffers() if buffer.is_floating_point()]

    @contextlib.contextmanager
    def of_micro_batch(self, place: int) -> Iterator[None]:
        """Around the forward pass of the micro-batch at `place` in the step's list."""
        if self._fabric.world_size == 1 or not self._norms:
            yield
            return
        self.undo()
        torch._foreach_zero_(self._running())
        counts = int(self._norms[0].num_batches_tracked)  # type: ignore[arg-type]
        yield
        if int(self._norms[0].num_batches_tracked) > counts:  # type: ignore[arg-type]
            self._moves[place] = torch.cat([buffer.flatten() for buffer in self._running()])

    def undo(self) -> None:
        """Back to the values before the step."""
        for buffer, before in zip(self._buffers(), self._before, strict=True):
            buffer.copy_(before)

    def combine(self) -> None:
        """At the end of the step, on all ranks."""
        if self._fabric.world_size == 1 or not self._norms:
            return
        self.undo()
        gathered: list[list[int]] = [[] for _ in range(self._fabric.world_size)]
        dist.all_gather_object(gathered, list(self._moves))
        places = sorted(place for part in gathered for place in part)
        keep = 1 - float(self._norms[0].momentum or 0)
        flat = torch.cat([buffer.flatten() for buffer in self._running()])
        moved = torch.zeros_like(flat)
        for place, move in self._moves.items():
            moved += keep ** (len(places) - 1 - places.index(place)) * move
        dist.all_reduce(moved)
        parts = (keep ** len(places) * flat + moved).split([buffer.numel() for buffer in self._running()])
        for buffer, part in zip(self._running(), parts, strict=True):
            buffer.copy_(part.view_as(buffer))
        for norm in self._norms:
            norm.num_batches_tracked += len(places)  # type: ignore[operator,assignment]
