"""Speed on a GPU: pre-training, fine-tuning, features, decoding and k-means; one table and one JSON file.

    python benchmarks/bench_gpu.py [--out FOLDER] [--only pretrain] [--limit 400]
    python benchmarks/bench_gpu.py --device cpu --smoke       # tiny sizes, to test the script where there is no GPU

Each case runs in a process of its own, so that its peak memory is its own and one that fails does not end the rest.
Cases are started as long as `--limit` seconds are not over. Inputs are random and lie on the device; times are medians
of steps after a warm-up. `share of peak`: the operations of the model (a backward pass counts twice a forward pass,
recomputation is not counted) per second, over those of a large bf16 matrix product on the same device. The baseline is
a straightforward eager loop in fp16 with loss scaling and torch's own Adam over the independent
implementation of the published model (benchmarks/baseline).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from baseline.model import HubertModel, Masking
from baseline.weights import baseline_of
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from avhubert.cluster.kmeans import fit
from avhubert.config import compose
from avhubert.config.schema import DecodeConfig, FinetuneConfig, OptimizerConfig, PretrainConfig
from avhubert.constants import EOS, FRAME_RATE, NUM_SPECIALS
from avhubert.decode.beam_search import beam_search
from avhubert.devices import resolve, to_device
from avhubert.model.encoder import AVHubert
from avhubert.model.inputs import ModelInputs
from avhubert.model.losses import TextTargets, recognizer_loss
from avhubert.model.masking import draw_masks
from avhubert.model.pretraining import PretrainBatch, masked_prediction, prepare
from avhubert.model.recognizer import Recognizer
from avhubert.train import performance
from avhubert.train.optimizer import Adam

M = TypeVar("M", bound=nn.Module)
PRESETS = {
    "tiny": ("pretrain", "tiny_iter2"),
    "base": ("pretrain", "base_lrs3_iter5"),
    "large": ("pretrain", "large_vox_iter5"),
}
FINETUNE = {"tiny": "tiny", "base": "base_lrs3_433h", "large": "large_lrs3_433h"}
UNUSED = ["run_dir=unused", "data.dir=unused", "data.labels=unused", "model.masking_type=input"]
CLUSTERS, VOCABULARY = 2000, 1000
CLIP_FRAMES = 100
TOKENS = 20  # of the text of a clip of 4 s
WARM_UP, REPEATS = 3, 8
SMOKE = (1, 1)  # the same with `--smoke`
# case: its function, then its arguments: model, frames of a step, form; those that compile are last, they take longest
CASES: dict[str, tuple[str, ...]] = {
    "pretrain base, baseline (eager fp16), 1000 frames": ("pretrain", "base", "1000", "baseline"),
    "pretrain base, bf16, 1000 frames": ("pretrain", "base", "1000", "eager"),
    "pretrain base, baseline (eager fp16), 4000 frames": ("pretrain", "base", "4000", "baseline"),
    "pretrain base, bf16, 4000 frames": ("pretrain", "base", "4000", "eager"),
    "pretrain base, bf16, 16000 frames": ("pretrain", "base", "16000", "eager"),
    "pretrain large, bf16, 4000 frames": ("pretrain", "large", "4000", "eager"),
    "fine-tune base, bf16, 4000 frames": ("finetune", "base", "4000", "eager"),
    "features base, bf16, 8000 frames": ("features", "base", "8000", "eager"),
    "decode base, greedy, 64 clips": ("decode", "base", "6400", "1"),
    "decode base, beam 5, 64 clips": ("decode", "base", "6400", "5"),
    "decode base, beam 20, 64 clips": ("decode", "base", "6400", "20"),
    "k-means 200 000 × 768, K 500": ("kmeans", "200000", "768", "500"),
    "pretrain base, bf16 recomputed, 4000 frames": ("pretrain", "base", "4000", "recomputed"),
    "pretrain large, bf16 recomputed, 4000 frames": ("pretrain", "large", "4000", "recomputed"),
    "pretrain base, bf16 compiled, 4000 frames": ("pretrain", "base", "4000", "compiled"),
    "pretrain large, bf16 compiled, 4000 frames": ("pretrain", "large", "4000", "compiled"),
}


def smoke_arguments(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The same case with tiny sizes."""
    name, *rest = arguments
    return (name, "500", "16", "8") if name == "kmeans" else (name, "tiny", "200", rest[2])


# --------------------------------------------------------------------------- models and batches
def pretrain_config(size: str) -> PretrainConfig:
    config: PretrainConfig = compose(*PRESETS[size], UNUSED)
    return config


def encoder_of(size: str, classes: list[int]) -> AVHubert:
    return AVHubert(dataclasses.replace(pretrain_config(size).model, num_classes=classes))


def recognizer_of(size: str) -> tuple[Recognizer, FinetuneConfig]:
    """A recognizer of the sizes of a published one, with a CTC head, and the settings of its training."""
    given = ["run_dir=unused", "data.dir=unused", "model.pretrained=none", "model.decoder.ctc=true"]
    config: FinetuneConfig = compose("finetune", FINETUNE[size], given)
    decoder = dataclasses.replace(config.model.decoder, vocab_size=VOCABULARY)
    return Recognizer.from_encoder(encoder_of(size, []), decoder), config


def random_inputs(frames: int) -> ModelInputs:
    clips = frames // CLIP_FRAMES
    audio, video = torch.randn(clips, 104, CLIP_FRAMES), torch.randn(clips, 1, CLIP_FRAMES, 88, 88)
    return ModelInputs(audio, video, torch.zeros(clips, CLIP_FRAMES, dtype=torch.bool))


def random_pretrain_batch(config: PretrainConfig, frames: int) -> tuple[PretrainBatch, Tensor]:
    """The batch and its labels."""
    inputs = random_inputs(frames)
    assert inputs.padding_mask is not None
    masks = draw_masks(inputs.padding_mask, config.masking, config.model.masking_type, np.random.default_rng(0))
    labels = torch.randint(NUM_SPECIALS, CLUSTERS + NUM_SPECIALS, inputs.padding_mask.shape)
    return prepare(inputs, [labels], masks, config.objective), labels


# --------------------------------------------------------------------------- cases
class Measurement:
    """The device, and the figures of one case."""

    def __init__(self, device: str, repeats: tuple[int, int]) -> None:
        self.warm_up, self.repeats = repeats
        self.compute = resolve(device, "bf16")
        self.device = self.compute.device
        self.figures: dict[str, float] = {}

    def time(self, run: Callable[[], object], frames: int) -> float:
        """Median seconds of `run`; notes the rate in seconds of video per second, and the peak memory."""
        seconds = []
        for number in range(self.warm_up + self.repeats):
            self.wait()
            started = time.perf_counter()
            run()
            self.wait()
            seconds += [time.perf_counter() - started] if number >= self.warm_up else []
        median = statistics.median(seconds)
        self.figures |= {"seconds": median, "fastest": min(seconds), "slowest": max(seconds)}
        self.figures["video s/s"] = frames / FRAME_RATE / median
        if self.device.type == "cuda":
            self.figures["GB"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        return median

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def share_of_peak(self, operations: float, seconds: float) -> None:
        self.figures["operations"] = operations
        self.figures["share of peak"] = operations / seconds / performance.matrix_rate(self.device, torch.bfloat16)


def train(measured: Measurement, module: nn.Module, loss: Callable[[], Tensor], frames: int, form: str) -> None:
    """Steps of a training: forward and backward pass, clipping, Adam."""
    if form == "recomputed":
        performance.checkpoint_blocks(module)
    optimizer = Adam(module.parameters(), OptimizerConfig())
    parameters = list(module.parameters())

    def forward() -> Tensor:
        with measured.compute.autocast():
            return loss()

    operations = 3 * performance.forward_operations(forward)
    if form == "compiled":
        performance.compile_blocks(module)

    def step() -> None:
        forward().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    measured.share_of_peak(operations, measured.time(step, frames))


def train_baseline(measured: Measurement, model: HubertModel, loss: Callable[[], Tensor], frames: int) -> None:
    """Steps of a plain program: fp16 with loss scaling, one parameter after the other."""
    half = torch.float16 if measured.device.type == "cuda" else torch.bfloat16
    scaler = torch.amp.GradScaler(measured.device.type, enabled=half == torch.float16)
    optimizer = torch.optim.Adam(model.parameters(), foreach=False)

    def forward() -> Tensor:
        with torch.autocast(measured.device.type, half):
            return loss()

    def step() -> None:
        scaler.scale(forward()).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    measured.time(step, frames)


def pretrain(measured: Measurement, size: str, frames: str, form: str) -> None:
    """Steps of pre-training."""
    config = pretrain_config(size)
    model = encoder_of(size, [CLUSTERS + NUM_SPECIALS])
    if form == "baseline":
        pretrain_baseline(measured, model, config, int(frames))
        return
    on_device(model, measured)
    batch = to_device(random_pretrain_batch(config, int(frames))[0], measured.device)
    train(measured, model, lambda: masked_prediction(model, batch, config.objective).loss, int(frames), form)


def pretrain_baseline(measured: Measurement, ours: AVHubert, config: PretrainConfig, frames: int) -> None:
    """Steps of the published model with the same weights and masks."""
    model = on_device(baseline_of(ours), measured)
    prepared, labels = random_pretrain_batch(config, frames)
    masks = prepared.masks
    assert masks.audio is not None
    assert masks.video is not None
    assert masks.video_source is not None
    masking = Masking(masks.audio, masks.video, masks.video_source)
    inputs, moved_labels, masking = to_device((prepared.inputs, labels, masking), measured.device)

    def loss() -> Tensor:
        return model.pretraining_loss(inputs.audio, inputs.video, inputs.padding_mask, moved_labels, masking)

    train_baseline(measured, model, loss, frames)


def finetune(measured: Measurement, size: str, frames: str, form: str) -> None:
    """Steps of fine-tuning with attention and CTC."""
    recognizer, config = recognizer_of(size)
    on_device(recognizer, measured)
    objective = dataclasses.replace(config.objective, ctc_weight=0.3)
    inputs = random_inputs(int(frames))
    tokens = torch.randint(NUM_SPECIALS, VOCABULARY, (inputs.batch_size, TOKENS))
    targets = TextTargets.of(torch.cat([tokens, torch.full((inputs.batch_size, 1), EOS)], 1))
    moved_targets, moved = to_device((targets, inputs), measured.device)
    train(
        measured, recognizer, lambda: recognizer_loss(recognizer, moved_targets, moved, objective)[0], int(frames), form
    )


def features(measured: Measurement, size: str, frames: str, form: str) -> None:
    """Forward passes without gradients."""
    model = on_device(encoder_of(size, []), measured).eval()
    inputs = to_device(random_inputs(int(frames)), measured.device)

    def run() -> None:
        with torch.inference_mode(), measured.compute.autocast():
            model(inputs)

    operations = performance.forward_operations(run)
    measured.share_of_peak(operations, measured.time(run, int(frames)))


def decode(measured: Measurement, size: str, frames: str, beam: str) -> None:
    """Encoding and beam search of a batch; the weights are random, so all texts are made TOKENS long."""
    recognizer = on_device(recognizer_of(size)[0], measured).eval()
    inputs = to_device(random_inputs(int(frames)), measured.device)
    settings = DecodeConfig(beam=int(beam), max_len_a=0, max_len_b=TOKENS, min_len=TOKENS, nbest=1)

    def run() -> None:
        with torch.inference_mode(), measured.compute.autocast():
            beam_search(recognizer, recognizer.encode(inputs), inputs.mask, settings)

    measured.time(run, int(frames))


def kmeans(measured: Measurement, rows: str, width: str, clusters: str) -> None:
    """K-means with its seeding, as `avhubert cluster` runs it."""
    x = np.random.default_rng(0).normal(size=(int(rows), int(width))).astype(np.float32)
    started = time.perf_counter()
    result = fit(lambda: [x], int(clusters), device=measured.device)
    measured.figures |= {"seconds": time.perf_counter() - started, "passes": result.passes}


def on_device(module: M, measured: Measurement) -> M:
    """The module in training mode on the device, in the memory layout that the package gives it."""
    return module.to(measured.device).train()


def run_case(arguments: Sequence[str], device: str, repeats: tuple[int, int]) -> dict[str, float]:
    """The figures of a case, in this process."""
    torch.manual_seed(0)
    measured = Measurement(device, repeats)
    functions = {function.__name__: function for function in (pretrain, finetune, features, decode, kmeans)}
    functions[arguments[0]](measured, *arguments[1:])
    return measured.figures


# --------------------------------------------------------------------------- all cases
def measure_in_process(arguments: Sequence[str], given: argparse.Namespace, limit: float) -> dict[str, Any]:
    """The figures of a case, from a process of its own; {"error": ...} if it fails or takes longer than `limit`."""
    smoke = ["--smoke"] if given.smoke else []
    command = [sys.executable, __file__, "--device", given.device, *smoke, "--case", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"not finished after {limit:.0f} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1][:300], "log": done.stderr[-3000:]}
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def ceilings(device: torch.device) -> dict[str, float]:
    """Operations per second of a large bf16 matrix product; bytes per second that a copy reads and writes."""
    x = torch.empty(2**30 if device.type == "cuda" else 2**24, dtype=torch.uint8, device=device)
    best = 0.0
    for _ in range(10):
        started = time.perf_counter()
        y = x.clone()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * x.numel() / (time.perf_counter() - started))
        del y
    return {"bf16 product": performance.matrix_rate(device, torch.bfloat16), "copy": best}


def table(results: dict[str, dict[str, Any]]) -> Table:
    """Cases down, figures across."""
    columns = ("seconds", "video s/s", "share of peak", "GB", "passes")
    shown = Table("case", *columns)
    for name, figures in results.items():
        if "error" in figures:
            shown.add_row(name, figures["error"])
            continue
        shown.add_row(name, *(f"{figures[column]:.4g}" if column in figures else "" for column in columns))
    return shown


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", default="cuda")
    options.add_argument("--out", type=Path, default=Path("runs/bench_gpu"))
    options.add_argument("--only", default="", help="cases whose name contains this")
    options.add_argument("--limit", type=float, default=400, help="seconds after which no case is started")
    options.add_argument("--case-limit", type=float, default=100, help="seconds of a case")
    options.add_argument("--smoke", action="store_true", help="tiny sizes")
    options.add_argument("--case", nargs="+", help=argparse.SUPPRESS)  # in a process of its own
    given = options.parse_args()
    if given.case:
        print(json.dumps(run_case(given.case, given.device, SMOKE if given.smoke else (WARM_UP, REPEATS))))
        return
    device = resolve(given.device, "fp32").device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    report: dict[str, Any] = {"device": name, "torch": torch.__version__, "ceilings": ceilings(device), "cases": {}}
    if device.type == "cuda":
        torch.cuda.empty_cache()
    given.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    for case, arguments in CASES.items():
        left = given.limit - (time.monotonic() - started)
        if given.only not in case:
            continue
        if left <= 0:
            report["cases"][case] = {"error": f"not started: {given.limit:.0f} s are over"}
            continue
        chosen = smoke_arguments(arguments) if given.smoke else arguments
        figures = measure_in_process(chosen, given, min(given.case_limit, left))
        report["cases"][case] = figures
        print(f"{time.monotonic() - started:5.0f} s  {case}: {figures.get('error') or figures}", flush=True)
        (given.out / "gpu.json").write_text(json.dumps(report, indent=1), encoding="utf-8", newline="\n")
    console = Console(width=140)
    console.print(f"{name}, torch {torch.__version__}, {report['ceilings']}")
    console.print(table(report["cases"]))
    failed = [case for case, figures in report["cases"].items() if "error" in figures]
    if failed:
        sys.exit(f"{len(failed)} of {len(report['cases'])} cases were not measured: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
