"""The visual front end equals its definition with PyTorch's modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from avhubert.model.frontends import VisualFrontEnd

pytestmark = pytest.mark.quick


def reference(visual: VisualFrontEnd, video: torch.Tensor) -> torch.Tensor:
    """The same layers with PyTorch's modules, without folding or rearranging."""

    def prelu(x, activation):
        return nn.functional.prelu(x, activation.weight)

    norm = visual.stem_norm
    statistics = (norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training, norm.momentum, norm.eps)
    x = prelu(nn.functional.batch_norm(visual.stem_conv(video), *statistics), visual.stem_activation)
    x = nn.functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)).transpose(1, 2).flatten(0, 1).contiguous()
    for stage in visual.stages:
        for block in stage:
            out = prelu(block.norm1(block.conv1(x)), block.activation1)
            out = block.norm2(block.conv2(out))
            x = x if block.shortcut_conv is None else block.shortcut_norm(block.shortcut_conv(x))
            x = prelu(out + x, block.activation2)
    return visual.projection(x.mean((2, 3)).view(video.shape[0], video.shape[2], -1))


@pytest.fixture
def visual(small):
    return small(visual_blocks=[2, 1, 1]).visual.double()


@pytest.mark.parametrize("training", [False, True])
def test_output_equals_the_definition(visual, training):
    visual.train(training)
    video = torch.randn(2, 1, 5, 24, 24, dtype=torch.double)
    torch.testing.assert_close(visual(video), reference(visual, video))


def test_gradients_and_running_statistics_equal_the_definition(visual, small):
    twin = small(visual_blocks=[2, 1, 1]).visual.double()
    video = torch.randn(2, 1, 5, 24, 24, dtype=torch.double)
    weights = torch.randn(2, 5, 32, dtype=torch.double)
    (visual.train()(video) * weights).sum().backward()
    (reference(twin.train(), video) * weights).sum().backward()
    for (name, ours), theirs in zip(visual.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=lambda text, name=name: f"{name}: {text}")
    ours, theirs = visual.state_dict(), twin.state_dict()
    for name in ours:
        if name != "stem_norm.num_batches_tracked":
            torch.testing.assert_close(ours[name], theirs[name])


def test_sizes_come_from_the_configuration():
    visual = VisualFrontEnd(7, width=3, blocks=[1, 2], kind="relu")
    assert [len(stage) for stage in visual.stages] == [1, 2]
    assert visual.encode(torch.randn(1, 1, 4, 20, 20)).shape == (1, 4, 6)
    assert visual(torch.randn(1, 1, 4, 20, 20)).shape == (1, 4, 7)
    assert not any(isinstance(module, nn.PReLU) for module in visual.modules())


@torch.no_grad()
def test_trunk_processes_one_padding_frame(visual):
    visual.eval()
    lengths = torch.tensor([9, 2, 5])
    video = torch.randn(3, 1, 9, 24, 24, dtype=torch.double)
    video[torch.arange(9)[None].expand(3, 9).ge(lengths[:, None])[:, None]] = 0
    frame_counts = []
    visual.stages[0].register_forward_hook(lambda module, inputs, output: frame_counts.append(len(inputs[0])))
    torch.testing.assert_close(visual(video, lengths), visual(video))
    assert frame_counts == [9 + 4 + 7 + 1, 27]  # each clip, two frames that depend on it, one blank frame for all


def test_gradients_are_finite_in_bfloat16_on_a_cpu(small):
    visual = small().visual.train()
    with torch.autocast("cpu", torch.bfloat16):
        out = visual(torch.randn(1, 1, 4, 24, 24))
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in visual.parameters())
