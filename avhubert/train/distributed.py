"""Device and precision of a training, and communication between ranks (processes of torchrun)."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm

from avhubert.config.schema import TrainConfig
from avhubert.devices import resolve_device, training_precision
from avhubert.errors import AvhubertError, ConfigError
from avhubert.platforms import has_nccl

FP16_FIRST_SCALE = 128.0  # losses are sums over frames, for which the usual 65536 is far too large


def make_fabric(config: TrainConfig) -> Fabric:
    """Fabric on the device and in the precision of `config`, over all processes that torchrun started (else one).

    Raises:
        ConfigError: the device is not on this machine, does not have the precision, or cannot be used by several
            processes on this system.
    """
    try:
        accelerator = resolve_device(config.accelerator).type
    except ConfigError as error:
        raise ConfigError(f"train.accelerator={config.accelerator}: {error}") from error
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if world_size > 1:
        _check_communication(accelerator, config.sharding)
    precision = training_precision(config.precision, accelerator)
    scaling = precision == "16-mixed"
    scaler = torch.amp.GradScaler("cuda", init_scale=FP16_FIRST_SCALE) if scaling else None
    fabric = Fabric(
        accelerator=accelerator,
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", 1)),
        strategy="ddp" if world_size > 1 else "auto",
        precision=None if scaling else precision,  # type: ignore[arg-type]
        plugins=[MixedPrecision("16-mixed", "cuda", scaler)] if scaling else None,
    )
    first = not dist.is_initialized()
    fabric.launch()
    if first and dist.is_initialized():
        atexit.register(_leave)
    return fabric


def _check_communication(accelerator: str, sharding: str) -> None:
    """ConfigError if PyTorch cannot exchange tensors between processes on this device and system."""
    if accelerator == "mps":
        raise ConfigError(
            "several processes cannot train on Apple's GPU, whose tensors PyTorch cannot exchange between processes; "
            "give train.accelerator=cpu, or start one process"
        )
    if has_nccl():
        return
    if accelerator == "cuda":
        raise ConfigError(
            "several GPUs need NCCL, which PyTorch has on Linux only; start one process, or train on Linux (WSL)"
        )
    if sharding == "fsdp":
        raise ConfigError(
            "train.sharding=fsdp works on Linux only, where PyTorch has NCCL; give train.sharding=none, or train on "
            "Linux (WSL)"
        )


def _leave() -> None:
    """Join gloo's threads before interpreter shutdown.

    A thread that outlives the interpreter aborts the process (SIGABRT) after all work is done, and torchrun then
    reports the whole job as failed.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


LOST = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "timed out waiting",
    "nccl",
    "heartbeat",
)


@contextlib.contextmanager
def lost_ranks_reported(fabric: Fabric, run_dir: Path) -> Iterator[None]:
    """A context in which the failure of a collective call because another rank has ended is an AvhubertError."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        lost = isinstance(error, dist.DistError) or any(words in text.lower() for words in LOST)
        if fabric.world_size == 1 or isinstance(error, NotImplementedError) or not lost:
            raise
        first = " ".join(text.split())[:160]
        raise AvhubertError(
            f"{run_dir}: rank {fabric.global_rank} stops: another rank has ended or cannot be reached ({first}); "
            "its own message says why; run the same command again to resume from the last saved state"
        ) from error


def matrix_precision(fabric: Fabric) -> torch.dtype:
    """The number format of matrix products."""
    dtypes = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    return dtypes.get(fabric.strategy.precision.precision, torch.float32)


def scaler(fabric: Fabric) -> torch.amp.GradScaler | None:
    """The loss scaler of fp16; None in every other precision."""
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
    results: list[dict[str, Any]] = [{} for _ in range(fabric.world_size)]
    dist.all_gather_object(results, values)
    return results


def summed(fabric: Fabric, values: dict[str, Any]) -> dict[str, Any]:
    """Named numbers or arrays summed over the ranks, in rank order; a rank may lack names."""
    result: dict[str, Any] = {}
    for part in gathered(fabric, values):
        for name, value in part.items():
            result[name] = result.get(name, 0.0) + value
    return result


def summed_gradients(fabric: Fabric, module: nn.Module) -> list[Tensor]:
    """The gradients of all trainable parameters, summed over the ranks in place; zeros where a parameter has none."""
    learning = [p for p in module.parameters() if p.requires_grad]
    for p in learning:
        if p.grad is None:  # a dropped layer: its momentum is updated, whichever rank dropped it
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
    """The Euclidean norm of all gradients together, also if they are sharded."""
    total_norm = torch.nn.utils.get_total_norm(gradients)
    return float(total_norm.full_tensor() if isinstance(total_norm, DTensor) else total_norm)


class Statistics:
    """Batch norm's running statistics during one optimizer step.

    They are restored if the step is skipped. With several ranks they are combined as if one device had processed the
    list of micro-batches in order: a micro-batch updates r ← (1 - m)·r + m·s; ranks start each from r = 0, which gives
    m·s, and sum up the list.
    """

    def __init__(self, fabric: Fabric, module: nn.Module) -> None:
        self._fabric = fabric
        self._norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.training]
        self._before = [buffer.clone() for norm in self._norms for buffer in norm.buffers()]
        self._moves: dict[int, Tensor] = {}  # position in the list → m·s of all norms

    def _buffers(self) -> list[Tensor]:
        return [buffer for norm in self._norms for buffer in norm.buffers()]

    def _running(self) -> list[Tensor]:
        return [buffer for buffer in self._buffers() if buffer.is_floating_point()]

    @contextlib.contextmanager
    def of_micro_batch(self, position: int) -> Iterator[None]:
        """The context of the forward pass of the micro-batch at `position` in the step's list."""
        if self._fabric.world_size == 1 or not self._norms:
            yield
            return
        self.undo()
        torch._foreach_zero_(self._running())
        counts = int(self._norms[0].num_batches_tracked)  # type: ignore[arg-type]
        yield
        if int(self._norms[0].num_batches_tracked) > counts:  # type: ignore[arg-type]
            self._moves[position] = torch.cat([buffer.flatten() for buffer in self._running()])

    def undo(self) -> None:
        """Restore the values before the step."""
        for buffer, before in zip(self._buffers(), self._before, strict=True):
            buffer.copy_(before)

    def combine(self) -> None:
        """Combine the ranks' statistics at the end of the step; a collective call of all ranks."""
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
