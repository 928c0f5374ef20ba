"""Every model call gets all its tensors on one device: each is run on a GPU that is not there.

Inputs are made on the CPU and moved as the package moves them; a tensor that stays behind raises.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from avhubert.cluster.lloyd import LloydStep
from avhubert.config.schema import (
    DecodeConfig,
    DecoderConfig,
    FinetuneObjectiveConfig,
    MaskingConfig,
    ModelConfig,
    ObjectiveConfig,
)
from avhubert.data.tokenizer import train_tokenizer
from avhubert.decode.alignment import align
from avhubert.decode.beam_search import beam_search
from avhubert.decode.ctc import ctc_best_path
from avhubert.decode.lm.base import Fusion, LanguageModel
from avhubert.devices import Compute, to_device
from avhubert.features.layer import LayerExtractor, make_example
from avhubert.model.encoder import AVHubert
from avhubert.model.inputs import ModelInputs
from avhubert.model.losses import TextTargets, recognizer_loss
from avhubert.model.masking import draw_masks, draw_modality_dropout
from avhubert.model.pretraining import masked_prediction, prepare
from avhubert.model.recognizer import Recognizer
from tests.fake_device import fake_gpu, move

SIZES = ModelConfig(
    visual_width=4, visual_blocks=[1, 1, 1, 1], encoder_layers=2, encoder_embed_dim=32, encoder_ffn_embed_dim=48,
    encoder_attention_heads=4, conv_pos=16, conv_pos_groups=4, final_dim=8,
)  # fmt: skip
LENGTHS = [20, 13, 16]


def real_inputs(missing: bool = False) -> ModelInputs:
    """A batch on the CPU; with `missing`, its first row has no video and its second no audio."""
    padding = torch.arange(20) >= torch.tensor(LENGTHS)[:, None]
    rows = (torch.tensor([True, False, True]), torch.tensor([False, True, True])) if missing else (None, None)
    return ModelInputs(torch.randn(3, 104, 20), torch.randn(3, 1, 20, 88, 88), padding, *rows)


def recognizer() -> Recognizer:
    """A small recognizer with both heads and a tokenizer."""
    tokenizer = train_tokenizer(["ba mo si lu", "mo ba lu si"], 16)
    decoder = DecoderConfig(
        layers=2, ffn_embed_dim=48, attention_heads=4, ctc=True, vocab_size=tokenizer.vocab_size
    )  # fmt: skip
    model = Recognizer.from_config(SIZES, decoder)
    model.tokenizer = tokenizer
    return model


Gpu = Callable[[], contextlib.AbstractContextManager[torch.device]]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """`with gpu() as device:` what runs inside computes on fake tensors."""
    return lambda: fake_gpu(monkeypatch)


def test_a_tensor_left_behind_raises(gpu: Gpu) -> None:
    """The test of these tests."""
    with gpu() as device, pytest.raises(RuntimeError, match="same device"):
        torch.randn(3, device=device) + torch.randn(3)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("layer", [None, 0, 1])
@pytest.mark.parametrize("training", [False, True])
def test_forward(gpu: Gpu, missing: bool, layer: int | None, training: bool) -> None:
    model, inputs = AVHubert(SIZES).train(training), real_inputs(missing)
    with gpu() as device:
        move(model, device)
        assert model(inputs.to(device), layer=layer).device == device
        if not training:
            assert model.extract_features(inputs.audio, inputs.video, inputs.padding_mask).device == device


@pytest.mark.parametrize("masking_type", ["input", "feature"])
@pytest.mark.parametrize("missing", [False, True])
def test_pretraining(gpu: Gpu, masking_type: str, missing: bool) -> None:
    model = AVHubert(replace(SIZES, num_classes=[14, 9], masking_type=masking_type)).train()
    masking = MaskingConfig(prob_video=0.8, length_video=10) if masking_type == "feature" else MaskingConfig()
    inputs, rng = real_inputs(missing), np.random.default_rng(0)
    assert inputs.padding_mask is not None
    masks = draw_masks(inputs.padding_mask, masking, masking_type, rng)
    labels = [torch.zeros(3, 18, dtype=torch.int64)] * 2
    objective = ObjectiveConfig(unmasked_weight=0.5)
    batch = prepare(inputs, labels, masks, objective, draw_modality_dropout(3, masking, rng))
    with gpu() as device:
        move(model, device)
        out = masked_prediction(model, to_device(batch, device), objective)
        assert {out.loss.device, *(value.device for value in out.metrics.values())} == {device}
        out.loss.backward()
        assert all(p.grad is None or p.grad.device == device for p in model.parameters())


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_finetuning(gpu: Gpu, weight: float) -> None:
    model = recognizer().train()
    targets = TextTargets.of(torch.tensor([[4, 5, 2], [4, 2, 1], [5, 6, 2]]))
    with gpu() as device:
        move(model, device)
        objective = FinetuneObjectiveConfig(ctc_weight=weight)
        loss, sentences, metrics = recognizer_loss(model, targets.to(device), real_inputs().to(device), objective)
        assert {loss.device, *(value.device for value in metrics.values())} == {device}
        assert sentences == 3
        loss.backward()


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("beam", [1, 4])
def test_beam_search(gpu: Gpu, weight: float, beam: int) -> None:
    """Greedy search, as in validation, and beams, with and without CTC."""
    model = recognizer().eval()
    with gpu() as device:
        move(model, device)
        inputs = real_inputs().to(device)
        settings = DecodeConfig(beam=beam, ctc_weight=weight, no_repeat_ngram=2, max_len_a=0.3)
        hypotheses = beam_search(model, model.encode(inputs), inputs.mask, settings)
        assert len(hypotheses) == 3


def test_greedy_ctc(gpu: Gpu) -> None:
    model = recognizer().eval()
    with gpu() as device:
        move(model, device)
        inputs = real_inputs().to(device)
        assert model.ctc is not None
        assert inputs.lengths is not None
        assert len(ctc_best_path(model.ctc(model.encode(inputs)), inputs.lengths)) == 3


@pytest.mark.parametrize("ctc", [True, False])
def test_alignment(gpu: Gpu, ctc: bool) -> None:
    model = recognizer().eval()
    if not ctc:
        model.ctc = None
    with gpu() as device:
        move(model, device)
        inputs = real_inputs().to(device)
        tokens = [4, 5, 6, 2]
        words = align(model, model.encode(inputs)[0], tokens, [-0.1] * 4)
        assert words


@pytest.mark.parametrize("modality", ["av", "a", "v"])
def test_features(gpu: Gpu, modality: str) -> None:
    examples = [
        make_example(f"clip{i}", np.zeros((9, 96, 96), np.uint8), np.zeros(9 * 640, np.int16)) for i in range(2)
    ]
    for example in examples:
        example.audio = example.audio if "a" in modality else None
        example.video = example.video if "v" in modality else None
    extractor = LayerExtractor(AVHubert(SIZES), 1, modality, device="cpu")
    with gpu() as device:
        move(extractor._encoder, device)
        extractor.compute = Compute(device, torch.float32)
        features = LayerExtractor.features.__wrapped__  # without inference mode, which fake tensors do not support
        assert features(extractor, examples).shape == (2, 9, SIZES.encoder_embed_dim)


class Uniform(LanguageModel):
    """All symbols are equally likely; computed on the device of the tokens, as the package's own models do."""

    def _fusion(self, utterances: int, beams: int, device: torch.device) -> Fusion:
        return _UniformFusion(self.tokenizer.vocab_size)

    def score(self, texts: Sequence[Sequence[int]]) -> list[float]:
        return [-len(text) * math.log(self.tokenizer.vocab_size) for text in texts]


class _UniformFusion(Fusion):
    def __init__(self, symbols: int) -> None:
        self.symbols = symbols

    def log_probabilities(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.full((*tokens.shape[:2], self.symbols), -math.log(self.symbols), device=tokens.device)


@pytest.mark.parametrize("use", ["fusion", "rescoring"])
def test_beam_search_with_a_language_model(gpu: Gpu, use: str) -> None:
    model = recognizer().eval()
    assert model.tokenizer is not None
    settings = DecodeConfig(beam=3, lm_weight=0.5, lm_use=use, max_len_a=0.3)
    inputs, lm = real_inputs(), Uniform("uniform", model.tokenizer, model.tokenizer.symbols)
    with gpu() as device:
        move(model, device)
        moved = inputs.to(device)
        assert len(beam_search(model, model.encode(moved), moved.mask, settings, lm)) == 3


def test_kmeans(gpu: Gpu) -> None:
    rows, centroids, rng = torch.randn(40, 6), torch.randn(4, 6), np.random.default_rng(0)
    with gpu() as device:
        x = to_device(rows, device)
        step = LloydStep(to_device(centroids, device))
        step.add(x)
        assert step.sums.device == device
        assert step.update(x, rng).device == device
