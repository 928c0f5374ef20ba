"""Adam of the published system, and the two learning-rate schedules.

Updates are counted from 0: update n uses `learning_rate(config, n, max_steps)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from avhubert.config.schema import OptimizerConfig


class Adam(torch.optim.AdamW):
    """Adam with decoupled weight decay whose `eps` is added before the second moment's bias correction.

    p ← p - lr·wd·p;  p ← p - lr · (m / (1 - β₁ᵗ)) · √(1 - β₂ᵗ) / (√v + eps)

    torch's AdamW adds its eps to √v / √(1 - β₂ᵗ) instead, so it equals this one with eps / √(1 - β₂ᵗ), and its
    fused kernel is used. Parameters with the same number of updates share a group (frozen ones have fewer).
    """

    def __init__(self, parameters: Iterable[Any], config: OptimizerConfig) -> None:
        self._eps = config.eps
        betas = (config.betas[0], config.betas[1])
        super().__init__(
            parameters, lr=config.lr, betas=betas, eps=config.eps, weight_decay=config.weight_decay, fused=True
        )
        # the loop unscales fp16 gradients itself, to see and clip them
        self._step_supports_amp_scaling = False

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As usual, with the moments in the memory layout of their parameters, which the fused kernel requires."""
        super().load_state_dict(state_dict)
        for parameter, state in self.state.items():
            for name, value in state.items():
                if value.shape == parameter.shape and value.stride() != parameter.stride():
                    state[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)

    def step(self, closure: Any = None) -> Any:
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            done = [self.state[p]["step"] for p in group["params"] if p.grad is not None and p in self.state]
            updates = int(done[0]) + 1 if done else 1
            group["eps"] = self._eps / math.sqrt(1 - group["betas"][1] ** updates)
        result = super().step(closure)
        # the fused kernel does not count its changes, and `model.inference` keeps values that follow from the weights
        changed = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        torch.autograd.graph.increment_version(changed)
        return result


def learning_rate(config: OptimizerConfig, update: int, max_steps: int) -> float:
    """The rate of update `update` (counted from 0) in a run of `max_steps` updates.

    polynomial: linear from 0 to `lr` over `warmup_steps`, then linear to 0 at `max_steps`.
    tri_stage: linear from `init_lr_scale`·lr to lr, then exponential to `final_lr_scale`·lr over `decay_steps`
    (None: the rest of the run), then constant.
    """
    warmup = config.warmup_steps
    if config.schedule == "polynomial":
        if update < warmup:
            return config.lr * update / warmup
        if update >= max_steps:
            return 0.0
        return config.lr * (max_steps - update) / (max_steps - warmup)
    if update < warmup:
        return config.lr * (config.init_lr_scale + (1 - config.init_lr_scale) * update / warmup)
    decay = max_steps - warmup if config.decay_steps is None else config.decay_steps
    share = min(1.0, (update - warmup) / decay) if decay > 0 else 1.0
    return config.lr * math.exp(math.log(config.final_lr_scale) * share)
