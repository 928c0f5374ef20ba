"""What a training (pre-training, fine-tuning) provides to the training loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from avhubert.data.collate import Batch
from avhubert.devices import to_host
from avhubert.train import distributed


@dataclass
class StepOutput:
    """One micro-batch: summed `loss` with gradient, its divisor, and sums for the log."""

    loss: Tensor
    sample_size: int
    metrics: dict[str, Tensor] = field(default_factory=dict)


class MetricSums:
    """Sums of the micro-batches' losses and metrics, kept on the device until they are read."""

    def __init__(self, values: dict[str, Tensor] | None = None) -> None:
        self.values = values or {}

    def add(self, part: StepOutput) -> None:
        """Add a micro-batch."""
        device = part.loss.device
        dtype = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPU has no float64
        values = {"loss": part.loss.detach(), "sample_size": part.sample_size, "micro_batches": 1, **part.metrics}
        self.merge(
            MetricSums({name: torch.as_tensor(value, dtype=dtype, device=device) for name, value in values.items()})
        )

    def merge(self, other: MetricSums) -> None:
        """Add other sums."""
        for name, value in other.values.items():
            self.values[name] = self.values[name] + value if name in self.values else value

    def over_ranks(self, fabric: Fabric) -> dict[str, Any]:
        """The sums over all ranks: numbers, or arrays for metrics with several values."""
        here = {
            name: to_host(value).numpy() if value.dim() else float(to_host(value))
            for name, value in self.values.items()
        }
        return distributed.summed(fabric, here)


class Task(Protocol):
    """What differs between trainings. `module` holds everything that is trained."""

    name: str
    module: nn.Module
    selection: str | None  # the validation metric whose highest value selects RUN/best; None: no best model is kept

    def parameter_groups(self) -> Sequence[list[nn.Parameter] | dict[str, Any]]:
        """Parameters, grouped by when they start to be trained; torch's dicts if a `factor` scales a group's rate."""

    def begin_step(self, step: int) -> None:
        """Set training mode and freeze what is not trained in step `step`."""

    def prepare(self, batch: Batch, rng: np.random.Generator) -> Any:
        """All that `loss` and `evaluate` need of a batch, on the CPU; `to_device` can move it.

        The task's own random choices, such as masks, are made here.
        """

    def loss(self, prepared: Any) -> StepOutput:
        """The training loss of what `prepare` returned, on the module's device."""

    def evaluate(self, prepared: Any) -> StepOutput:
        """The validation sums of what `prepare` returned; the module is in evaluation mode, gradients are off."""

    def metrics(self, sums: dict[str, Any]) -> dict[str, float]:
        """The logged metrics, from the sums (`loss` and `sample_size` among them)."""

    def warnings(self, step: int, metrics: dict[str, float]) -> list[str]:
        """Warnings about the validation metrics after `step` steps."""

    def save(self, directory: Path, step: int, weights: dict[str, Tensor]) -> None:
        """Write the model directory with `weights`, the whole state of the (possibly sharded) module."""


class Steps(Protocol):
    """The training data: for each optimizer step from `first` on, this rank's (position in the step's list, batch)."""

    def __call__(self, first: int, rank: int, world_size: int) -> Iterable[Sequence[tuple[int, Batch]]]:
        """The steps, without end."""
