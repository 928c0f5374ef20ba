"""Models without weights, which are then read from a file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DRAWS = (Tensor.normal_, Tensor.uniform_)


class _NoInitialisation(TorchFunctionMode):
    """Leaves tensors as they are where an initialisation would fill them.

    Random draws and norms on the meta device import torch's compiler, which takes longer than all other imports.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _DRAWS or getattr(function, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


@contextlib.contextmanager
def empty_weights() -> Iterator[None]:
    """A context in which models are made on the meta device: without memory, random draws and initialisation."""
    with torch.device("meta"), _NoInitialisation():
        yield


def fill_weights(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a model without weights copies of these tensors on the CPU, in the model's own dtypes and memory formats.

    Args:
        model: made in `empty_weights`.
        state: a tensor of the right shape for each of its parameters and buffers.
    """
    copies = {
        name: torch.empty_strided(empty.shape, empty.stride(), dtype=empty.dtype).copy_(state[name])
        for name, empty in model.state_dict().items()
    }
    model.load_state_dict(copies, assign=True)
