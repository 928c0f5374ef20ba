"""Adam and the schedules against the published trajectories; eps and freezing by hand."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avhubert.config.schema import OptimizerConfig
from avhubert.train.optimizer import Adam, learning_rate

pytestmark = pytest.mark.quick

PRETRAIN = OptimizerConfig(lr=5e-4, schedule="polynomial", warmup_steps=32_000)
FINETUNE = OptimizerConfig(lr=1e-3, schedule="tri_stage", warmup_steps=10_000, decay_steps=20_000)


@pytest.fixture
def recorded(golden) -> dict:
    return json.loads(golden("optim_lr.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", ["adam_pretrain_eps1e-6_wd0.01", "adam_finetune_eps1e-8_wd0", "adam_bigwd"])
def test_adam_follows_the_published_trajectory(recorded, case) -> None:
    case = recorded[case]
    optimizer_config = dataclasses.replace(PRETRAIN, **case["kw"])
    parameter = torch.tensor(case["start"], requires_grad=True)
    optimizer = Adam([parameter], optimizer_config)
    for gradient, expected in zip(case["grads"], case["trajectory"], strict=True):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), torch.tensor(expected), rtol=0, atol=1e-6)


def test_adam_adds_eps_before_the_bias_correction() -> None:
    """With a large eps the two places differ by far; the recipe by hand over three updates."""
    config = dataclasses.replace(PRETRAIN, lr=0.1, eps=0.5, weight_decay=0.2)
    parameter = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer = Adam([parameter], config)
    p, m, v = 1.0, 0.0, 0.0
    for t, g in enumerate([0.3, -0.7, 0.2], start=1):
        parameter.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g * g
        p -= 0.1 * 0.2 * p
        p -= 0.1 * math.sqrt(1 - 0.98**t) / (1 - 0.9**t) * m / (math.sqrt(v) + 0.5)
        assert parameter.item() == pytest.approx(p, abs=1e-12)


def test_a_group_thawed_late_counts_its_own_updates() -> None:
    late, early = (torch.zeros(3, requires_grad=True) for _ in range(2))
    optimizer = Adam([{"params": [late]}, {"params": [early]}], dataclasses.replace(PRETRAIN, weight_decay=0.0))
    for step in range(4):
        early.grad = torch.ones(3)
        late.grad = torch.ones(3) if step >= 3 else None
        optimizer.step()
    fresh = torch.zeros(3, requires_grad=True)
    fresh.grad = torch.ones(3)
    Adam([fresh], dataclasses.replace(PRETRAIN, weight_decay=0.0)).step()
    assert torch.equal(late, fresh)
    assert optimizer.state[early]["step"].item() == 4


def test_adam_goes_on_from_its_state_exactly() -> None:
    def run(steps, optimizer, parameter):
        for step in steps:
            parameter.grad = torch.sin(torch.arange(5.0) + step)
            optimizer.step()

    whole = torch.ones(5, requires_grad=True)
    run(range(6), Adam([whole], PRETRAIN), whole)
    first = torch.ones(5, requires_grad=True)
    optimizer = Adam([first], PRETRAIN)
    run(range(3), optimizer, first)
    second = first.detach().clone().requires_grad_()
    resumed = Adam([second], PRETRAIN)
    resumed.load_state_dict(optimizer.state_dict())
    run(range(3, 6), resumed, second)
    assert torch.equal(whole, second)


def test_polynomial_schedule_is_the_published_one(recorded) -> None:
    for update, rate in recorded["polynomial_decay_lrs3"].items():
        if update.isdigit():
            assert learning_rate(PRETRAIN, int(update), 400_000) == pytest.approx(rate, rel=1e-9, abs=1e-18), update


def test_tri_stage_schedule_is_the_published_one(recorded) -> None:
    for update, rate in recorded["tri_stage_30h"].items():
        if update.isdigit():
            assert learning_rate(FINETUNE, int(update), 30_000) == pytest.approx(rate, rel=1e-9), update


def test_tri_stage_decays_over_the_rest_of_the_run_by_default() -> None:
    config = dataclasses.replace(FINETUNE, warmup_steps=10, decay_steps=None)
    assert learning_rate(config, 110, 110) == pytest.approx(0.05 * config.lr)
    assert learning_rate(config, 60, 110) == pytest.approx(config.lr * math.sqrt(0.05))


@given(
    schedule=st.sampled_from(["polynomial", "tri_stage"]),
    warmup=st.integers(0, 30),
    length=st.integers(1, 40),
    decay=st.none() | st.integers(1, 40),
)
def test_a_rate_rises_then_falls_and_never_leaves_its_range(schedule, warmup, length, decay) -> None:
    config = OptimizerConfig(lr=1.0, schedule=schedule, warmup_steps=warmup, decay_steps=decay)
    rates = [learning_rate(config, n, length) for n in range(length + 3)]
    assert all(0 <= rate <= 1 for rate in rates)
    for n in range(1, length + 3):
        if n <= warmup and n < length:
            assert rates[n] >= rates[n - 1]
        if n > warmup:
            assert rates[n] <= rates[n - 1]


def test_adam_takes_moments_of_another_memory_layout() -> None:
    """States are saved channels-last or not, as the parameters were; the fused kernel walks through both alike."""
    torch.manual_seed(0)
    start, gradient = torch.randn(4, 3, 3, 3), torch.randn(4, 3, 3, 3)
    results = []
    for saved in (torch.channels_last, torch.contiguous_format):
        first = torch.nn.Parameter(start.clone(memory_format=saved))
        optimizer = Adam([first], OptimizerConfig())
        first.grad = gradient.clone(memory_format=saved)
        optimizer.step()
        second = torch.nn.Parameter(start.clone(memory_format=torch.channels_last))
        again = Adam([second], OptimizerConfig())
        again.load_state_dict(optimizer.state_dict())
        second.grad = gradient.clone(memory_format=torch.channels_last)
        again.step()
        results.append(second.detach())
    assert torch.equal(*results)
