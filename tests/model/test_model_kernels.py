"""CPU kernels of batch norm and PReLU: equal to PyTorch's, with accurate statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from avhubert.model import kernels


def image(dtype=torch.double):
    return (torch.randn(6, 5, 4, 7, dtype=dtype) * 2 + 1).contiguous(memory_format=torch.channels_last).requires_grad_()


def test_gradients_equal_finite_differences():
    norm = nn.BatchNorm2d(5).double()
    slope = torch.rand(5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: kernels.batch_norm(x, norm), image())
    assert torch.autograd.gradcheck(kernels.prelu, (image(), slope))


def test_batch_norm_equals_pytorchs():
    ours, theirs = nn.BatchNorm2d(5).double(), nn.BatchNorm2d(5).double()
    x = image()
    torch.testing.assert_close(kernels.batch_norm(x, ours), theirs(x))
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name])


def test_statistics_are_accurate_in_single_precision():
    """PyTorch's have an error of 1e-5 here."""
    torch.manual_seed(0)
    x = (torch.randn(40, 16, 44, 44) * 2 + 1).contiguous(memory_format=torch.channels_last)
    ours, exact = nn.BatchNorm2d(16), nn.BatchNorm2d(16).double()
    kernels.batch_norm(x, ours)
    exact(x.double())
    assert (ours.running_mean - exact.running_mean).abs().max() < 1e-7
    assert (ours.running_var - exact.running_var).abs().max() < 1e-6


def test_prelu_equals_pytorchs():
    slope = torch.rand(5, dtype=torch.double)
    x = image()
    torch.testing.assert_close(kernels.prelu(x, slope), nn.functional.prelu(x, slope))


def test_prelu_in_bfloat16_has_accurate_gradients():
    torch.manual_seed(0)
    x, gradient = image(torch.bfloat16), torch.randn(6, 5, 4, 7).bfloat16()
    slope = torch.rand(5, requires_grad=True)
    assert kernels.prelu_applies(x)
    kernels.prelu(x, slope).backward(gradient)
    exact, exact_slope = x.detach().double().requires_grad_(), slope.detach().double().requires_grad_()
    nn.functional.prelu(exact, exact_slope).backward(gradient.double())
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(slope.grad.double(), exact_slope.grad, rtol=1e-2, atol=5e-2)


@pytest.mark.parametrize(("dtype", "expected"), [(torch.float32, True), (torch.bfloat16, False)])
def test_kernels_apply_to_full_precision_only(dtype, expected):
    assert kernels.applies(torch.zeros(1, 1, 1, 1, dtype=dtype)) is expected
