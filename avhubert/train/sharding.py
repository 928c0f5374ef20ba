"""Where parameters live: whole on every device, or (train.sharding=fsdp) each device keeps its share of parameters,
gradients and optimizer state (FSDP2). Both train alike, and what they save is the same.
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
from avhubert.train import distributed as ranks

T = TypeVar("T")


def placed(fabric: Fabric, module: nn.Module, sharding: str) -> Whole:
    """`module`, which is on the device, as `sharding` has it: none or fsdp (one process has nothing to share).

    Raises ConfigError for fsdp in half precision with loss scaling.
    """
    if sharding == "none" or fabric.world_size == 1:
        return Whole(fabric, module)
    if ranks.scaler(fabric) is not None:
        raise ConfigError("train.sharding=fsdp does not go with train.precision=16-mixed; give bf16-mixed or 32-true")
    return Sharded(fabric, module)


class Whole:
    """All parameters on every device."""

    def __init__(self, fabric: Fabric, module: nn.Module) -> None:
        self.fabric, self.module = fabric, module

    def forward(self, run: Callable[[], tuple[Tensor, T]]) -> tuple[Tensor, T]:
        """`run()`, which gives a loss and more, where the parameters can be used."""
        return run()

    def turns(self, own: int) -> int:
        """How often this rank goes forward and back in a step in which it has `own` micro-batches."""
        return own

    def idle(self) -> None:
        """A turn without a micro-batch."""

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """While it is open, the parameters can be used outside `forward`, without gradients."""
        yield

    def gradients(self) -> list[Tensor]:
        """The gradients of all that learns, summed over the ranks."""
        return ranks.summed_gradients(self.fabric, self.module)

    def weights(self) -> dict[str, Tensor]:
        """The whole state of the module; all ranks ask together."""
        return self.module.state_dict()

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The whole state of the optimizer; all ranks ask together."""
        return optimizer.state_dict()

    def restore(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Load what `optimizer_state` gave, on any number of ranks."""
        optimizer.load_state_dict(state)


class _Root(nn.Module):
    """What FSDP wraps: the parameters are whole while `run` runs.

    All take part in every loss, if only with weight 0: all ranks then share out equally many gradients, whichever
    layers were dropped and streams were missing on each.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, run: Callable[[], tuple[Tensor, T]] | None) -> tuple[Tensor, T | None]:
        nothing = torch.stack([p.sum() for p in self.module.parameters() if p.requires_grad]).sum() * 0
        if run is None:
            return nothing, None
        loss, more = run()
        return loss + nothing, more


class Sharded(Whole):
    """FSDP2 over all ranks. The model is one unit: activations, not parameters, are what fills a device here."""

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
        return self._root(run)

    def turns(self, own: int) -> int:
        most = torch.tensor(own, device=self.fabric.device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return int(most)

    def idle(self) -> None:
        self._root(None)[0].backward()

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        self._fsdp.unshard()
        yield
        self._fsdp.reshard()

    def gradients(self) -> list[Tensor]:
        found: Sequence[Tensor | None] = [p.grad for p in self.module.parameters()]
        return [gradient for gradient in found if gradient is not None]

    def weights(self) -> dict[str, Tensor]:
        return {name: _full(value) for name, value in self.module.state_dict().items()}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        kept = optimizer.state_dict()
        state = {
            number: {name: _full(value) for name, value in values.items()} for number, values in kept["state"].items()
        }
        return {**kept, "state": state}

    def restore(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        shared = {
            number: {name: _like(value, parameters[number]) for name, value in values.items()}
            for number, values in state["state"].items()
        }
        optimizer.load_state_dict({**state, "state": shared})


def _full(value: Any) -> Any:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _like(value: Any, parameter: Tensor) -> Any:
    """A moment of a parameter, shared out as the parameter is; anything else (the count of steps) as it is."""
    if not (isinstance(value, Tensor) and isinstance(parameter, DTensor) and value.shape == parameter.shape):
        return value
    whole = value.to(parameter.device).contiguous()  # as the parameter is
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements)
