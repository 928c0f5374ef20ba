"""Trainings and decoding on a real GPU give what the CPU gives; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import avhubert
from avhubert.cluster.kmeans import fit
from avhubert.config import compose
from avhubert.config.schema import DecodeConfig
from avhubert.decode.beam_search import beam_search
from avhubert.model.inputs import ModelInputs
from avhubert.model.recognizer import Recognizer
from avhubert.train import finetune, pretrain

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

STEPS = 3
TOLERANCE = 1e-3


def settings(accelerator: str, run: Path, data: Path, *more: str) -> list[str]:
    sizes = ("train.frames_per_step=80", "train.frames_per_batch=80", "train.precision=32-true", "data.augment=false")
    own = (f"run_dir={run}", f"data.dir={data}", f"train.accelerator={accelerator}", f"train.max_steps={STEPS}")
    return [*own, *sizes, "train.validate_every=3", "train.save_every=3", *more]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return avhubert.load(run).state_dict()


def same(first: Path, second: Path) -> None:
    """Weights of two runs are equal within TOLERANCE."""
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(
            tensor, theirs[name], atol=TOLERANCE, rtol=TOLERANCE, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.fixture(scope="module")
def no_tf32() -> None:
    """Products in full fp32, to be comparable."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


NO_DROPOUT = [f"model.{name}=0" for name in ("dropout", "attention_dropout", "activation_dropout", "dropout_input")]


def test_pretraining_equals_the_cpus(
    data_dir: Path, labels_dir: Path, small_model: list[str], tmp_path: Path, no_tf32: None
) -> None:
    for accelerator in ("cpu", "cuda"):
        more = [f"data.labels={labels_dir}", *small_model, *NO_DROPOUT, "model.encoder_layerdrop=0"]
        pretrain.run(compose("pretrain", "tiny_iter2", settings(accelerator, tmp_path / accelerator, data_dir, *more)))
    same(tmp_path / "cpu", tmp_path / "cuda")


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_finetuning_equals_the_cpus(
    data_dir: Path, small_scratch: list[str], tmp_path: Path, weight: float, no_tf32: None
) -> None:
    """With the attention decoder, both losses, and CTC alone."""
    for accelerator in ("cpu", "cuda"):
        more = [
            *small_scratch, *NO_DROPOUT, "model.encoder_layerdrop=0", "model.decoder.ctc=true",
            "model.decoder.dropout=0", "model.decoder.activation_dropout=0",
            f"objective.ctc_weight={weight}", "train.best_by=wer",
        ]  # fmt: skip
        finetune.run(compose("finetune", "tiny", settings(accelerator, tmp_path / accelerator, data_dir, *more)))
    same(tmp_path / "cpu", tmp_path / "cuda")


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_trainings_in_half_precision(
    data_dir: Path, labels_dir: Path, small_model: list[str], tmp_path: Path, precision: str
) -> None:
    more = [f"data.labels={labels_dir}", *small_model, f"train.precision={precision}"]
    pretrain.run(compose("pretrain", "tiny_iter2", settings("cuda", tmp_path / "run", data_dir, *more)))
    assert all(x.isfinite().all() for x in weights(tmp_path / "run").values() if x.is_floating_point())


@pytest.fixture
def recognizer(data_dir: Path, small_scratch: list[str], tmp_path: Path) -> Path:
    """A recognizer with both heads, a few steps old."""
    more = [*small_scratch, "model.decoder.ctc=true", "objective.ctc_weight=0.3"]
    return finetune.run(compose("finetune", "tiny", settings("cuda", tmp_path / "run", data_dir, *more)))


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_beams_equal_the_cpus(recognizer: Path, batch: tuple[torch.Tensor, ...], weight: float, no_tf32: None) -> None:
    search = DecodeConfig(beam=8, ctc_weight=weight)
    results = []
    for device in ("cpu", "cuda"):
        model = avhubert.load(recognizer, device=device)
        assert isinstance(model, Recognizer)
        inputs = ModelInputs(*batch).to(device)
        with torch.inference_mode():
            encoded = model.encode(inputs)
        results.append((encoded.cpu(), beam_search(model, encoded, inputs.mask, search)))
    torch.testing.assert_close(results[0][0], results[1][0], atol=TOLERANCE, rtol=TOLERANCE)
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        assert [beam.tokens for beam in ours] == [beam.tokens for beam in theirs]
        assert [beam.score for beam in ours] == pytest.approx([beam.score for beam in theirs], abs=TOLERANCE)


def test_evaluation_and_transcription_equal_the_cpus(recognizer: Path, data_dir: Path, no_tf32: None) -> None:
    from avhubert.evaluation.evaluate import evaluate

    results = [evaluate(str(recognizer), data_dir, device=device, precision="fp32") for device in ("cpu", "cuda")]
    texts = [[utterance.hypothesis for utterance in result[0].utterances] for result in results]
    assert texts[0] == texts[1]
    clip = next(data_dir.glob("test*.wav"))
    transcripts = [
        avhubert.transcribe(clip, recognizer, "a", device=device, precision="fp32").text for device in ("cpu", "cuda")
    ]
    assert transcripts[0] == transcripts[1]


def test_kmeans_equals_the_cpus(no_tf32: None) -> None:
    x = np.random.default_rng(0).normal(size=(4000, 16)).astype(np.float32)
    results = [fit(lambda: [x], 8, seed=0, device=device) for device in ("cpu", "cuda")]
    assert results[0].inertia == pytest.approx(results[1].inertia, rel=1e-2)
