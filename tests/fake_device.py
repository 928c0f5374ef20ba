"""A GPU that is not there, for tests: shapes and devices are computed, values are not (torch's FakeTensorMode).

A call that mixes devices raises. With a PyTorch that is built for CUDA the device is `cuda:0`; a build for the CPU has
no device guard for it, so a device of the kind that PyTorch keeps for out-of-tree back ends takes its place.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from avhubert import devices


@functools.cache
def gpu() -> torch.device:
    """The device; the test is skipped where this PyTorch can have none.

    The first call must come before the first `backward` of the process: autograd counts the devices then, once.
    """
    if torch.backends.cuda.is_built():
        return torch.device("cuda", 0)
    if not hasattr(torch._C, "_acc"):
        pytest.skip("this PyTorch, built for the CPU, cannot pretend to have a GPU")

    class Guard(torch._C._acc.DeviceGuard):
        def type_(self) -> Any:
            return torch._C._autograd.DeviceType.PrivateUse1

    class Hooks(torch._C._acc.PrivateUse1Hooks):
        def is_available(self) -> bool:
            return True

        def has_primary_context(self, index: int) -> bool:
            return True

        def is_built(self) -> bool:
            return True

    torch.utils.rename_privateuse1_backend("fakegpu")
    amp = types.SimpleNamespace(
        get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
        _is_in_bad_fork=lambda: False,
        manual_seed_all=lambda seed: None,
        is_available=lambda: False,  # other tests of this process must not take it for a device of the machine
        is_initialized=lambda: False,
        device_count=lambda: 0,
        current_device=lambda: 0,
    )
    torch._register_device_module("fakegpu", amp)
    torch._C._acc.register_python_privateuseone_device_guard(Guard())
    torch._C._acc.register_python_privateuseone_hook(Hooks())
    return torch.device("fakegpu", 0)


class _Host(TorchFunctionMode):
    """Computes on real tensors as ever, and replaces what cannot be done without values."""

    def __torch_function__(self, func: Callable, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.ctc_loss and isinstance(args[0], FakeTensor):
            used = {x.device for x in (*args, *(kwargs or {}).values()) if isinstance(x, Tensor)}
            assert len(used) == 1, f"ctc_loss mixes {used}"
            return args[0].sum()
        if func is Tensor.__setitem__ and isinstance(args[0], FakeTensor) and not isinstance(args[2], Tensor):
            args[0][args[1]].fill_(args[2])  # torch would make a tensor of the number outside of the mode
            return None
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if tensors and func is not Tensor.to and not any(isinstance(x, FakeTensor) for x in tensors):
            with unset_fake_temporarily():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def fake_gpu(patch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The device, while the mode is on; what `to_host` reads from it is noise of the tensor's shape and type."""
    device = gpu()
    random = torch.Generator().manual_seed(0)
    real = devices.to_host

    def to_host(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, FakeTensor):
            return real(tensor)
        with unset_fake_temporarily():
            shape = tuple(tensor.shape)
            if tensor.dtype == torch.bool:
                return torch.ones(shape, dtype=torch.bool)
            if tensor.is_floating_point():
                return torch.rand(shape, generator=random, dtype=torch.float64).to(tensor.dtype)
            # numbers of frames or tokens, else indices
            return torch.full(shape, 1 if tensor.dim() <= 1 else 0, dtype=tensor.dtype)

    for name, module in list(sys.modules.items()):  # a name imported from `devices` is a name of its own
        if name.startswith("avhubert.") and getattr(module, "to_host", None) is real:
            patch.setattr(module, "to_host", to_host)
    with FakeTensorMode(allow_non_fake_inputs=True), _Host():
        yield device


def move(module: nn.Module, device: torch.device) -> None:
    """Replace parameters and buffers by fake ones on the device: `.to` cannot swap them."""
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                part._parameters[name] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
