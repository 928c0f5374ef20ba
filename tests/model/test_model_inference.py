"""Inference on a CPU: derived tensors follow their sources, packed products equal plain ones, padding is left out."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from avhubert.config.schema import OptimizerConfig
from avhubert.model.inference import Derived, Linear
from avhubert.train.optimizer import Adam


def weight_of(value: float) -> nn.Parameter:
    return nn.Parameter(torch.full((2, 3), float(value)))


def test_derived_value_is_kept_until_a_source_changes():
    weight, kept, computed = weight_of(1), Derived(), []

    def get(dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return kept.get((weight,), dtype, lambda: computed.append(dtype) or (weight.detach() * 2).to(dtype))

    assert torch.equal(get(), get())
    assert len(computed) == 1
    with torch.no_grad():
        weight.fill_(5)
    assert get().unique().tolist() == [10]
    assert get(torch.bfloat16).dtype == torch.bfloat16
    weight = weight_of(7)
    assert get().unique().tolist() == [14]
    assert len(computed) == 4


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda kept: pickle.loads(pickle.dumps(kept))])
def test_copies_of_a_derived_value_are_empty(copied):
    weight, kept = weight_of(1), Derived()
    kept.get((weight,), torch.float32, lambda: 1)
    assert copied(kept).get((weight,), torch.float32, lambda: 2) == 2


@pytest.mark.parametrize("rows", [(1,), (3, 5), (2, 1, 4)])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_packed_product_equals_the_plain_one(rows, bias):
    torch.manual_seed(0)
    linear = Linear(24, 40, bias, pack_fp32=True).eval()
    x = torch.randn(*rows, 24)
    torch.testing.assert_close(linear(x), F.linear(x, linear.weight, linear.bias), atol=1e-6, rtol=1e-5)
    linear.weight.mul_(3)  # the packed weights follow
    torch.testing.assert_close(linear(x), F.linear(x, linear.weight, linear.bias), atol=1e-6, rtol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = linear(x)
        expected = F.linear(x, linear.weight, linear.bias)
    assert reduced.dtype == torch.bfloat16
    torch.testing.assert_close(reduced, expected, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("optimizer", ["ours", "fused"])
def test_a_training_step_changes_what_is_computed_next(small, optimizer):
    """Fused kernels change weights without counting it; what was kept from them must not be used again."""
    torch.manual_seed(0)
    model = small().eval()
    audio, video = torch.randn(1, 104, 9), torch.randn(1, 1, 9, 88, 88)

    def features(module):
        with torch.no_grad():
            return module.extract_features(audio, video)

    before = features(model)
    if optimizer == "ours":  # in evaluation mode, which nothing resets
        step = Adam(model.parameters(), OptimizerConfig(lr=0.1, warmup_steps=1))
    else:
        model.train()
        step = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    step.step()
    after = features(model.eval())
    assert not torch.allclose(before, after)
    fresh = small()
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(after, features(fresh.eval()), atol=1e-6, rtol=1e-6)


def test_gradients_use_the_plain_product():
    linear = Linear(24, 40, pack_fp32=True).eval()
    x = torch.randn(3, 24, requires_grad=True)
    linear(x).sum().backward()
    torch.testing.assert_close(x.grad, linear.weight.sum(0).expand(3, -1))


@torch.no_grad()
def test_leaving_padding_out_changes_no_real_frame(small):
    torch.manual_seed(0)
    lengths = torch.tensor([9, 3, 70, 1])  # more frames than one part of the front end
    padding = torch.arange(72) >= lengths[:, None]
    audio, video = torch.randn(4, 104, 72), torch.randn(4, 1, 72, 88, 88)
    for norm_first in (True, False):
        model = small(layer_norm_first=norm_first).eval()
        for layer in (None, 1):
            whole = model.extract_features(audio, video, padding, layer)
            fast = model.extract_features(audio, video, padding, layer, padding=False)
            torch.testing.assert_close(fast[~padding], whole[~padding], atol=1e-5, rtol=1e-5)
            assert not fast[padding].any()
