"""Every model call gets all its tensors on one device: each is run on a CUDA device that is not there.

Torch's FakeTensorMode computes shapes and devices without data, and raises where a call mixes devices. Parameters and
buffers are replaced by fake ones on the device, inputs are made on the CPU and moved as the package moves them. Results
are read through `avhubert.devices.to_host` alone, so that is where values come from here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from avhubert.config.schema import (
    ModelConfig,
)

CUDA = torch.device("cuda", 0)
SIZES = ModelConfig(
    visual_width=4, visual_blocks=[1, 1, 1, 1], encoder_layers=2, encoder_embed_dim=32, encoder_ffn_embed_dim=48,
    encoder_attention_heads=4, conv_pos=16, conv_pos_groups=4, final_dim=8,
)  # fmt: skip


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """A mode in which CUDA tensors are fake; what is read back from them is noise of the right shape and type."""
    from avhubert import devices

    random = torch.Generator().manual_seed(0)

    def to_host(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, FakeTensor):
            return tensor.detach().cpu()
        with torch._subclasses.fake_tensor.unset_fake_temporarily():
            shape = tuple(tensor.shape)
            if tensor.dtype == torch.bool:
                return torch.ones(shape, dtype=torch.bool)
            if tensor.is_floating_point():
                return -torch.rand(shape, generator=random, dtype=torch.float64).to(tensor.dtype)
            return torch.randint(0, 3, shape, generator=random, dtype=tensor.dtype)

    for name, module in list(sys.modules.items()):  # a name imported from there is a name of its own
        if name.startswith("avhubert.") and getattr(module, "to_host", None) is devices.to_host:
            monkeypatch.setattr(module, "to_host", to_host)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        yield mode


def on_fake_cuda(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy whose parameters and buffers are fake tensors on the device (`.to` cannot swap them)."""
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None:
                fake = torch.empty(parameter.shape, dtype=parameter.dtype, device=CUDA)
                part._parameters[name] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
        for name, buffer in list(part._buffers.items()):
            if buffer is not None:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=CUDA)
    return module
