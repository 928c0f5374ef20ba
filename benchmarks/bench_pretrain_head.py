"""The pre-training head and a training step of the demo's model.

    python benchmarks/bench_pretrain_head.py [--threads 2] [--repeats 15]

Claim 1: normalising both sides and multiplying gives the published logits and gradients in a fraction of the time of
the form that lays out [frames, classes, 256]. Both run in this process, in turns; the ratio is that of the medians.
Claim 2: the demo's model trains at 600 video frames a second or more on 2 cores (batches of 300 frames, float32).
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from record import record
from torch import Tensor

from avhubert.config.schema import MaskingConfig, ModelConfig, ObjectiveConfig
from avhubert.model import kernels
from avhubert.model.encoder import AVHubert
from avhubert.model.inputs import ModelInputs
from avhubert.model.masking import draw_masks
from avhubert.model.pretraining import ClusterHead, pretrain_loss

DEMO = ModelConfig(
    visual_width=16,
    visual_blocks=[1, 1, 1, 1],
    encoder_layers=4,
    encoder_embed_dim=192,
    encoder_attention_heads=4,
    encoder_ffn_embed_dim=768,
    conv_pos=32,
    num_classes=[54],
)


def laid_out(head: ClusterHead, x: Tensor) -> Tensor:
    """The same logits, every frame beside every class."""
    projected = head.projection(x)[:, None].expand(-1, head.num_classes[0], -1)
    classes = head.class_embeddings[None].expand(len(x), -1, -1)
    return F.cosine_similarity(projected, classes, dim=-1) / head.temperature


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare_heads(classes: int, frames: int, repeats: int) -> float:
    """How many times as fast as the form that is laid out."""
    torch.manual_seed(0)
    head = ClusterHead(dataclasses.replace(ModelConfig(), num_classes=[classes]))
    x = torch.randn(frames, 768, requires_grad=True)
    targets = torch.randint(classes, (frames,))

    def step(form: Callable[[Tensor], Tensor]) -> Tensor:
        head.zero_grad()
        x.grad = None
        loss = F.cross_entropy(form(x), targets, reduction="sum")
        loss.backward()
        assert x.grad is not None
        return x.grad

    forms = {"ours": lambda x: head(x)[0], "laid out": lambda x: laid_out(head, x)}
    ours, theirs = (step(form) for form in forms.values())
    difference = ((ours - theirs).norm() / theirs.norm()).item()
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(repeats):
        for name, form in forms.items():
            times[name].append(seconds(lambda form=form: step(form)))  # type: ignore[misc]
    median = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"head, {frames} frames x {classes} classes: ours {median['ours'] * 1e3:.1f} ms, laid out"
        f" {median['laid out'] * 1e3:.1f} ms, ratio {median['laid out'] / median['ours']:.1f}"
        f" (gradients differ by {difference:.0e})"
    )
    return median["laid out"] / median["ours"]


def training_step(repeats: int) -> list[float]:
    """Frames per second: at best, median."""
    kernels.reuse_memory()
    torch.manual_seed(0)
    model = AVHubert(DEMO).train()
    rows, frames = 5, 60
    audio, video = torch.randn(rows, 104, frames), torch.randn(rows, 1, frames, 88, 88)
    padding_mask = torch.arange(frames) >= torch.tensor([60, 58, 60, 55, 50])[:, None]
    labels = torch.randint(4, 54, (rows, frames)).masked_fill(padding_mask, -1)
    inputs = ModelInputs(audio, video, padding_mask)
    rng = np.random.default_rng(0)

    def step() -> None:
        masks = draw_masks(padding_mask, MaskingConfig(), "input", rng)
        loss = pretrain_loss(model, inputs, [labels], masks, ObjectiveConfig())
        model.zero_grad()
        loss.loss.backward()

    step()
    times = [seconds(step) for _ in range(repeats)]
    rates = [rows * frames / value for value in (min(times), statistics.median(times))]
    print(f"training step of the demo's model: {rates[0]:.0f} frames/s at best, median {rates[1]:.0f}")
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--record", action="store_true", help="write the figures into docs/results.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    ratios = {classes: compare_heads(classes, 200, args.repeats) for classes in (504, 2004)}
    best, median = training_step(args.repeats)
    if args.record:
        record("cosine-head", [[str(classes), f"{ratio:.0f} ×"] for classes, ratio in ratios.items()])
        record("demo-step", [["freed memory kept for the next step", f"{median:.0f} (at best {best:.0f})"]])


if __name__ == "__main__":
    main()
