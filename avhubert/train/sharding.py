"""Strategies for several devices: replicated parameters, or parameters sharded over the devices (train.sharding=fsdp).

With FSDP2 each device keeps a share of parameters, gradients and optimizer state. Both strategies give the same results
and save the same files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from avhubert.errors import ConfigError
from avhubert.train import distributed

T = TypeVar("T")


def make_strategy(fabric: Fabric, module: nn.Module, sharding: str) -> Strategy:
    """The strategy named `sharding` (none or fsdp) for `module`, which is on the device; one process never shards.

    Raises:
        ConfigError: fsdp with fp16 and loss scaling.
    """
    if sharding == "none" or fabric.world_size == 1:
        return Strategy(fabric, module)
    if distributed.scaler(fabric) is not None:
        raise ConfigError("train.sharding=fsdp does not go with train.precision=16-mixed; give bf16-mixed or 32-true")
    return ShardedStrategy(fabric, module)


class Strategy:
    """Replicated: every device has all parameters."""

    def __init__(self, fabric: Fabric, module: nn.Module) -> None:
        self.fabric, self.module = fabric, module

    def forward(self, run: Callable[[], tuple[Tensor, T]]) -> tuple[Tensor, T]:
        """Call `run`, which returns a loss and more, while the parameters are available."""
        return run()

    def passes(self, own: int) -> int:
        """Forward and backward passes of this rank in a step in which it has `own` micro-batches."""
        return own

    def dummy_step(self) -> None:
        """A forward and backward pass without a micro-batch."""

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """A context in which the parameters are available outside `forward`, without gradients."""
        yield

    def gradients(self) -> list[Tensor]:
        """The gradients of all trainable parameters, summed over the ranks."""
        return distributed.summed_gradients(self.fabric, self.module)

    def weights(self) -> dict[str, Tensor]:
        """The whole state of the module; a collective call of all ranks."""
        return self.module.state_dict()

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The whole state of the optimizer; a collective call of all ranks."""
        return optimizer.state_dict()

    def restore(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Load what `optimizer_state` returned on any number of ranks."""
        optimizer.load_state_dict(state)


class _Root(nn.Module):
    """The module that FSDP wraps: the parameters are unsharded while `run` runs.

    Every parameter takes part in every loss, if only with weight 0. All ranks then reduce the same gradients, whichever
    layers were dropped and streams were missing on each.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, run: Callable[[], tuple[Tensor, T]] | None) -> tuple[Tensor, T | None]:
        zero = torch.stack([p.sum() for p in self.module.parameters() if p.requires_grad]).sum() * 0
        if run is None:
            return zero, None
        loss, more = run()
        return loss + zero, more


class ShardedStrategy(Strategy):
    """FSDP2 over all ranks. The model is one unit, since activations, not parameters, fill a device here."""

    def __init__(self, fabric: Fabric, module: nn.Module) -> None:
        super().__init__(fabric, module)
        for parameter in module.parameters():  # FSDP2 knows no channels-last kernels
            parameter.data = parameter.data.contiguous()
        self._root: Any = _Root(module)
        mesh = init_device_mesh(fabric.device.type, (fabric.world_size,))
        self._fsdp: FSDPModule = fully_shard(self._root, mesh=mesh, reshard_after_forward=False)
        self._fsdp.set_gradient_divide_factor(1.0)  # the loop divides by what the whole step counts
        self._fsdp.set_force_sum_reduction_for_comms(True)

    def forward(self, run: Callable[[], tuple[Tensor, T]]) -> tuple[Tensor, T]:
        """Call `run` while the parameters are unsharded."""
        output: tuple[Tensor, T] = self._root(run)
        return output

    def passes(self, own: int) -> int:
        """The largest number of micro-batches of any rank: all ranks must reduce together."""
        most = torch.tensor(own, device=self.fabric.device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return int(most)

    def dummy_step(self) -> None:
        """Forward and backward pass of a zero loss."""
        self._root(None)[0].backward()

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """A context with unsharded parameters."""
        self._fsdp.unshard()
        yield
        self._fsdp.reshard()

    def gradients(self) -> list[Tensor]:
        """This rank's shards of the gradients, which FSDP has summed."""
        gradients: Sequence[Tensor | None] = [p.grad for p in self.module.parameters()]
        return [gradient for gradient in gradients if gradient is not None]

    def weights(self) -> dict[str, Tensor]:
        """The whole state of the module, gathered from all ranks."""
        return {name: _full(value) for name, value in self.module.state_dict().items()}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The whole state of the optimizer, gathered from all ranks."""
        own = optimizer.state_dict()
        state = {
            number: {name: _full(value) for name, value in values.items()} for number, values in own["state"].items()
        }
        return {**own, "state": state}

    def restore(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Load this rank's shards of a whole state."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        shared = {
            number: {name: _like(value, parameters[number]) for name, value in values.items()}
            for number, values in state["state"].items()
        }
        optimizer.load_state_dict({**state, "state": shared})


def _full(value: Any) -> Any:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _like(value: Any, parameter: Tensor) -> Any:
    """A parameter's moment, sharded like the parameter; any other value (the number of steps) unchanged."""
    if not (isinstance(value, Tensor) and isinstance(parameter, DTensor) and value.shape == parameter.shape):
        return value
    whole = value.to(parameter.device).contiguous()  # as the parameter is
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements)
