"""What several measurements share: models with the same weights, number formats, rates of this machine."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from measure import Form
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from avhubert.config.schema import DecoderConfig, ModelConfig
from avhubert.devices import resolve
from avhubert.errors import ConfigError
from avhubert.model.inputs import ModelInputs
from avhubert.model.recognizer import Recognizer

BASE = ModelConfig()
SMALL = ModelConfig(
    visual_width=8, visual_blocks=[1, 1, 1, 1], encoder_layers=2, encoder_embed_dim=64, encoder_ffn_embed_dim=128,
    encoder_attention_heads=4, conv_pos=16, conv_pos_groups=4,
)  # fmt: skip
PRECISIONS = ("fp32", "bf16", "int8")  # of ours on a CPU, as far as this version has them


def missing_precision(name: str) -> str | None:
    """Why ours does not compute in a number format on this CPU; None: it does."""
    try:
        resolve("cpu", name)
    except ConfigError as error:
        return str(error)
    return None


def our_forms(
    build: Callable[[bool, str], Callable[[], np.ndarray | None]], tolerance: float, names: Iterable[str] = PRECISIONS
) -> list[Form]:
    """A form of ours for each number format; fp32 must have the baseline's numbers."""
    return [
        Form(
            f"ours, {name}",
            functools.partial(build, precision=name),
            tolerance if name == "fp32" else None,
            missing=missing_precision(name),
        )
        for name in names
    ]


def make_recognizer(smoke: bool, ctc: bool = False) -> Recognizer:
    """A recognizer in evaluation mode with random weights, the same in every process; Base sizes."""
    torch.manual_seed(0)
    sizes = SMALL if smoke else BASE
    decoder = DecoderConfig(2, 128, 4, vocab_size=100, ctc=ctc) if smoke else DecoderConfig(vocab_size=1000, ctc=ctc)
    return Recognizer.from_config(sizes, decoder).eval()


def make_inputs(lengths: list[int], streams: str = "av") -> ModelInputs:
    """Random clips, 0 where they are padded."""
    generator = torch.Generator().manual_seed(1)
    count, frames = len(lengths), max(lengths)
    padding = torch.arange(frames) >= torch.tensor(lengths)[:, None]
    audio = torch.randn(count, 104, frames, generator=generator).masked_fill(padding[:, None], 0)
    video = torch.randn(count, 1, frames, 88, 88, generator=generator).masked_fill(padding[:, None, :, None, None], 0)
    mask = padding if padding.any() else None
    return ModelInputs(audio if "a" in streams else None, video if "v" in streams else None, mask)


def real_frames(features: Tensor, inputs: ModelInputs) -> np.ndarray:
    """Features float32 of the frames that are no padding."""
    if inputs.padding_mask is not None:
        features = features[~inputs.padding_mask]
    return features.float().numpy()


# --------------------------------------------------------------------------- floors
def floors(run: Callable[[], object], share: float = 1.0) -> dict[str, float]:
    """Seconds that the operations of `run` take at this machine's rates of matrix products and convolutions.

    Args:
        run: a forward pass.
        share: the operations are multiplied by it (frames without padding; 3 for a training step).
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    counts = counter.get_flop_counts()["Global"]
    convolution = sum(count for operation, count in counts.items() if "conv" in str(operation))
    other = sum(counts.values()) - convolution
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if missing_precision(name) is None:
            matrix, conv = rates(dtype)
            found[name] = share * (other / matrix + convolution / conv)
    return found


@functools.cache
def rates(dtype: torch.dtype) -> tuple[float, float]:
    """Operations a second of a large matrix product, and of a 3×3 convolution of channels-last images."""
    x = torch.randn(1024, 1024, dtype=dtype)
    images = torch.randn(64, 64, 22, 22, dtype=dtype).to(memory_format=torch.channels_last)
    kernel = torch.randn(64, 64, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    with torch.no_grad():
        matrix = 2 * 1024**3 / _best(lambda: x @ x)
        operations = 2 * 64 * 22 * 22 * 64 * 64 * 9
        convolution = operations / _best(lambda: F.conv2d(images, kernel, padding=1))
    return matrix, convolution


def _best(run: Callable[[], object], seconds: float = 1.0) -> float:
    """The shortest of many calls, as processor time of each thread, which other work of the machine hardly changes."""
    times = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.process_time()
        run()
        times.append((time.process_time() - start) / torch.get_num_threads())
    return min(times)
