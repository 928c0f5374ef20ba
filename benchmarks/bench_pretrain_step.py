"""A pre-training step (forward and backward pass) of Base, against a straightforward implementation of the facts.

    python benchmarks/bench_pretrain_step.py [--clips 4] [--frames 50] [--clusters 2000] [--rounds 5] [--threads 2]

Straightforward: a 3-D stem and images in channels-first memory with torch's own batch norm and PReLU, attention that
lays out its scores, logits of masked and unmasked frames that lay out [frames, classes, 256]. It has the same weights
and must give the same loss. Time: median over rounds in which all take turns in this process. Peak memory: of a process
for each, beyond what it holds before the step. The floor: counted operations over the measured rate of a large matrix
product, which convolutions do not reach.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from record import record
from torch import Tensor

from avhubert.config.schema import MaskingConfig, ModelConfig, ObjectiveConfig
from avhubert.model import kernels
from avhubert.model import pretraining as objective
from avhubert.model.attention import MultiHeadAttention
from avhubert.model.encoder import AVHubert
from avhubert.model.frontends import VisualFrontEnd
from avhubert.model.inputs import ModelInputs
from avhubert.model.masking import draw_masks
from avhubert.model.pretraining import ClusterHead, Targets, pretrain_loss
from avhubert.train import performance as speed

FORMS = ("straightforward", "ours", "ours, activations recomputed")


# --------------------------------------------------------------------------- the straightforward form
def plain_stem(self: VisualFrontEnd, video: Tensor) -> Tensor:
    norm = self.stem_norm
    x = F.batch_norm(
        self.stem_conv(video), norm.running_mean, norm.running_var, norm.weight, norm.bias, True, 0.1, norm.eps
    )
    x = self.stem_activation(x)
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    return x.transpose(1, 2).flatten(0, 1).contiguous()


def plain_attention(self: MultiHeadAttention, x: Tensor, mask: Tensor | None = None) -> Tensor:
    b, t, d = x.shape
    q, k, v = (p(x).view(b, t, self.heads, -1).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
    scores = q @ k.transpose(2, 3) / math.sqrt(d // self.heads)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = F.dropout(scores.softmax(-1), self.dropout, self.training)
    return self.out_proj((weights @ v).transpose(1, 2).reshape(b, t, d))


def plain_head(self: ClusterHead, x: Tensor) -> list[Tensor]:
    projected = self.projection(x)[:, None].expand(-1, self.num_classes[0], -1)
    classes = self.class_embeddings[None].expand(len(x), -1, -1)
    return [F.cosine_similarity(projected, classes, dim=-1) / self.temperature]


@contextlib.contextmanager
def straightforward(model: AVHubert) -> Iterator[None]:
    """Within the context, `model` computes the straightforward way."""

    def all_logits(head: ClusterHead, x: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():  # of unmasked frames too, whatever they weigh
            return cross_entropy(head, x, targets)

    cross_entropy = objective._cross_entropy
    with contextlib.ExitStack() as stack:
        for patch in (
            mock.patch.object(VisualFrontEnd, "stem", plain_stem),
            mock.patch.object(MultiHeadAttention, "forward", plain_attention),
            mock.patch.object(ClusterHead, "forward", plain_head),
            mock.patch.object(kernels, "applies", return_value=False),
            mock.patch.object(objective, "_cross_entropy", all_logits),
        ):
            stack.enter_context(patch)
        model.visual.stages.to(memory_format=torch.contiguous_format)
        yield
        model.visual.stages.to(memory_format=torch.channels_last)


# --------------------------------------------------------------------------- one step
class Case:
    """A model and a batch."""

    def __init__(self, clips: int, frames: int, clusters: int, form: str) -> None:
        torch.manual_seed(0)
        none = dict.fromkeys(("dropout", "attention_dropout", "dropout_input", "encoder_layerdrop"), 0.0)
        self.model = AVHubert(ModelConfig(num_classes=[clusters + 4], feature_grad_mult=1.0, **none)).train()
        self.form = form
        if form == FORMS[2]:
            speed.checkpoint_blocks(self.model)
        self.audio, self.video = torch.randn(clips, 104, frames), torch.randn(clips, 1, frames, 88, 88)
        self.padding = torch.zeros(clips, frames, dtype=torch.bool)
        self.labels = torch.randint(4, clusters + 4, (clips, frames))
        self.masks = draw_masks(self.padding, MaskingConfig(), "input", np.random.default_rng(0))

    def loss(self) -> Tensor:
        inputs = ModelInputs(self.audio, self.video, self.padding)
        return pretrain_loss(self.model, inputs, [self.labels], self.masks, ObjectiveConfig()).loss

    def step(self) -> float:
        with straightforward(self.model) if self.form == FORMS[0] else contextlib.nullcontext():
            loss = self.loss()
            loss.backward()
        return float(loss.detach())


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--clips", type=int, default=4)
    options.add_argument("--frames", type=int, default=50)
    options.add_argument("--clusters", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)  # in a process of its own
    options.add_argument("--record", action="store_true", help="write the figures into docs/results.json")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    size = (given.clips, given.frames, given.clusters)
    if given.memory_of is not None:
        case = Case(*size, FORMS[given.memory_of])
        before = peak_bytes()
        case.step()
        print(peak_bytes() - before)
        return

    memory = [
        int(subprocess.run([sys.executable, *sys.argv, "--memory-of", str(n)], capture_output=True, check=True).stdout)
        for n in range(len(FORMS))
    ]
    kernels.reuse_memory()
    cases = [Case(*size, form) for form in FORMS]
    seconds: list[list[float]] = [[] for _ in FORMS]
    losses: list[float] = []
    for number in range(given.rounds + 1):
        losses = []
        for case, taken in zip(cases, seconds, strict=True):
            start = time.perf_counter()
            losses.append(case.step())
            taken += [time.perf_counter() - start] if number else []  # the first round warms up
            case.model.zero_grad()
    medians = [statistics.median(taken) for taken in seconds]
    print(f"Base, {size[0]} clips of {size[1]} frames, {size[2]} clusters, {given.threads} threads; losses {losses}")
    for form, time_, bytes_ in zip(FORMS, medians, memory, strict=True):
        print(
            f"{form}: {time_:.2f} s, {bytes_ / 2**20:.0f} MB; "
            f"{medians[0] / time_:.2f} times as fast, {bytes_ / memory[0]:.2f} of the memory"
        )
    operations = 3 * speed.forward_operations(cases[1].loss)
    rate = speed.matrix_rate(torch.device("cpu"), torch.float32)
    print(f"floor: {operations / 1e9:.0f} G operations / {rate / 1e9:.0f} G per second = {operations / rate:.2f} s")
    if given.record:
        rows = [
            [form, round(time_, 2), f"{medians[0] / time_:.2f} ×", round(size_ / 2**20), f"{size_ / memory[0]:.2f} ×"]
            for form, time_, size_ in zip(FORMS, medians, memory, strict=True)
        ]
        floor = f"floor: {operations / 1e9:.0f} G operations at the rate of a large matrix product"
        record("step-base", [*rows, [floor, round(operations / rate, 2), None, None, None]])


if __name__ == "__main__":
    main()
