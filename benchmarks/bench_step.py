"""A pre-training step of Base with both streams: forward and backward pass, clipping, and the optimizer's update."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from baseline.model import HubertModel, Masking
from baseline.weights import baseline_of
from forms import BASE, SMALL, floors, missing_precision
from measure import Case, Claim, Form

from avhubert.config.schema import MaskingConfig, ObjectiveConfig, OptimizerConfig
from avhubert.devices import resolve
from avhubert.model import kernels
from avhubert.model.encoder import AVHubert
from avhubert.model.inputs import ModelInputs
from avhubert.model.masking import Masks, draw_masks
from avhubert.model.pretraining import pretrain_loss
from avhubert.train import performance
from avhubert.train.optimizer import Adam

CLUSTERS = 2000
CLIPS, FRAMES = 2, 100
RATE, CLIP_NORM = 1e-4, 10.0
NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "dropout_input": 0.0, "encoder_layerdrop": 0.0}


def make_model(smoke: bool) -> AVHubert:
    torch.manual_seed(0)
    classes = (50 if smoke else CLUSTERS) + 4
    return AVHubert(dataclasses.replace(SMALL if smoke else BASE, num_classes=[classes], **NO_DROPOUT)).train()


def make_batch(smoke: bool) -> tuple[ModelInputs, torch.Tensor, Masks]:
    generator = torch.Generator().manual_seed(1)
    frames = 30 if smoke else FRAMES
    audio = torch.randn(CLIPS, 104, frames, generator=generator)
    video = torch.randn(CLIPS, 1, frames, 88, 88, generator=generator)
    padding = torch.zeros(CLIPS, frames, dtype=torch.bool)
    labels = torch.randint(4, (50 if smoke else CLUSTERS) + 4, (CLIPS, frames), generator=generator)
    masks = draw_masks(padding, MaskingConfig(), "input", np.random.default_rng(0))
    return ModelInputs(audio, video, padding), labels, masks


class EagerAdam:
    """Adam with decoupled weight decay, one parameter after the other, as a plain program has it."""

    def __init__(self, model: HubertModel) -> None:
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]
        self.updates = 0

    @torch.no_grad()
    def step(self) -> None:
        self.updates += 1
        size = RATE * math.sqrt(1 - 0.98**self.updates) / (1 - 0.9**self.updates)
        for parameter, (first, second) in zip(self.parameters, self.moments, strict=True):
            gradient = parameter.grad
            assert gradient is not None
            first.mul_(0.9).add_(gradient, alpha=0.1)
            second.mul_(0.98).addcmul_(gradient, gradient, value=0.02)
            parameter.add_(parameter, alpha=-0.01 * RATE)
            parameter.addcdiv_(first, second.sqrt().add_(1e-6), value=-size)
            parameter.grad = None


def published(smoke: bool) -> Callable[[], np.ndarray]:
    model = baseline_of(make_model(smoke))
    inputs, labels, masks = make_batch(smoke)
    assert masks.audio is not None
    assert masks.video is not None
    assert masks.video_source is not None
    masking = Masking(masks.audio, masks.video, masks.video_source)
    optimizer = EagerAdam(model)
    sample_size = int((masks.audio | masks.video).sum())

    def repeat() -> np.ndarray:
        loss = model.pretraining_loss(inputs.audio, inputs.video, inputs.padding_mask, labels, masking)
        loss.backward()
        for parameter in optimizer.parameters:
            parameter.grad.div_(sample_size)
        torch.nn.utils.clip_grad_norm_(optimizer.parameters, CLIP_NORM)
        optimizer.step()
        return np.array([float(loss.detach()) / sample_size])

    return repeat


def ours(smoke: bool, precision: str, recompute: bool = False) -> Callable[[], np.ndarray]:
    kernels.reuse_memory()  # as a training does
    model = make_model(smoke)
    if recompute:
        performance.checkpoint_blocks(model)
    inputs, labels, masks = make_batch(smoke)
    optimizer = Adam(model.parameters(), OptimizerConfig(lr=RATE))
    compute = resolve("cpu", precision)

    def repeat() -> np.ndarray:
        with compute.autocast():
            part = pretrain_loss(model, inputs, [labels], masks, ObjectiveConfig())
        part.loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients)) / part.sample_size
        torch._foreach_mul_(gradients, min(1.0, CLIP_NORM / (norm + 1e-6)) / part.sample_size)
        optimizer.step()
        optimizer.zero_grad()
        return np.array([float(part.loss.detach()) / part.sample_size])

    return repeat


def floor(smoke: bool) -> dict[str, float]:
    model = baseline_of(make_model(smoke)).eval().to("meta")  # operations are counted, not done
    inputs = make_batch(smoke)[0].to("meta")
    return floors(lambda: model(inputs.audio, inputs.video), 3.0)


def forms() -> list[Form]:
    found = [Form("baseline", published)]
    for precision in ("fp32", "bf16"):
        for recompute in (False, True):
            name = f"ours, {precision}{', recomputed' if recompute else ''}"
            build = functools.partial(ours, precision=precision, recompute=recompute)
            found.append(Form(name, build, 1e-4 if precision == "fp32" else None, missing=missing_precision(precision)))
    return found


CLAIM = Claim(
    "step",
    "Pre-training step",
    [
        Case(
            "step",
            "pre-training step, 2 × 100 frames",
            forms(),
            "≥ 3.3 × (fp32 ≥ 1.9 ×), ≤ 0.55 of the memory",
            seconds=90,
            floor=floor,
            before=4.95,
        )
    ],
    "Base sizes, 2000 clusters, no dropout, so that both have the same work and the same loss (compared per frame). "
    "Recomputed: activations are computed again in the backward pass (`train.checkpoint_activations`).",
)
