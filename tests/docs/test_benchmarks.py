"""benchmarks/baseline computes the same numbers as `avhubert`, so that the ratios of time compare the same work."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from avhubert.config.schema import DecodeConfig, DecoderConfig, MaskingConfig, ModelConfig, ObjectiveConfig
from avhubert.data.audio import write_wav
from avhubert.data.manifest import Clip
from avhubert.data.video import write_video
from avhubert.decode.beam_search import beam_search
from avhubert.features.layer import read_example
from avhubert.model.encoder import AVHubert
from avhubert.model.inputs import ModelInputs
from avhubert.model.masking import draw_masks
from avhubert.model.pretraining import pretrain_loss
from avhubert.model.recognizer import Recognizer
from avhubert.prepare.geometry import crop, stabilise

ROOT = Path(__file__).parents[2]
SMALL = ModelConfig(
    visual_width=16, visual_blocks=[1, 1, 1, 1], encoder_layers=2, encoder_embed_dim=64, encoder_ffn_embed_dim=128,
    encoder_attention_heads=4, conv_pos=16, conv_pos_groups=4, dropout=0, attention_dropout=0, dropout_input=0,
    encoder_layerdrop=0, num_classes=[24],
)  # fmt: skip
pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="the sources are not here")


def script(name: str) -> ModuleType:
    """A module of benchmarks/."""
    folder = str(ROOT / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def random_model(seed: int = 0) -> AVHubert:
    """Random weights, also of the batch norms, whose statistics would otherwise be 0 and 1."""
    torch.manual_seed(seed)
    model = AVHubert(SMALL)
    for name, tensor in model.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return model


def padded(lengths: list[int]) -> ModelInputs:
    torch.manual_seed(1)
    frames = max(lengths)
    padding = torch.arange(frames) >= torch.tensor(lengths)[:, None]
    audio = torch.randn(len(lengths), 104, frames).masked_fill(padding[:, None], 0)
    video = torch.randn(len(lengths), 1, frames, 88, 88).masked_fill(padding[:, None, :, None, None], 0)
    return ModelInputs(audio, video, padding)


# --------------------------------------------------------------------------- the model
@pytest.mark.parametrize("streams", ["av", "a", "v"])
def test_the_baseline_has_the_same_features(streams: str) -> None:
    ours = random_model().eval()
    theirs = script("baseline.weights").baseline_of(ours)
    inputs = padded([12, 9])
    audio = inputs.audio if "a" in streams else None
    video = inputs.video if "v" in streams else None
    with torch.inference_mode():
        expected = ours(ModelInputs(audio, video, inputs.padding_mask))
        features = theirs(audio, video, inputs.padding_mask)
    assert expected.std() > 0.1
    torch.testing.assert_close(features[0], expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(features[1, :9], expected[1, :9], atol=1e-5, rtol=0)


def test_the_baseline_has_the_same_pre_training_loss_and_gradient() -> None:
    ours = random_model().train()
    theirs = script("baseline.weights").baseline_of(ours)
    inputs = padded([40, 33])
    assert inputs.padding_mask is not None
    labels = torch.randint(4, 24, (2, 40)).masked_fill(inputs.padding_mask, -1)
    masks = draw_masks(inputs.padding_mask, MaskingConfig(), "input", np.random.default_rng(0))
    own = pretrain_loss(ours, inputs, [labels], masks, ObjectiveConfig())
    masking = script("baseline.model").Masking(masks.audio, masks.video, masks.video_source)
    loss = theirs.pretraining_loss(inputs.audio, inputs.video, inputs.padding_mask, labels, masking)
    assert loss.item() == pytest.approx(own.loss.item(), rel=1e-6)
    own.loss.backward()
    loss.backward()
    for mine, published in (
        (ours.audio.weight, theirs.feature_extractor_audio.proj.weight),
        (ours.encoder.layers[0].fc1.weight, theirs.encoder.layers[0].fc1.weight),
        (ours.mask_embedding, theirs.mask_emb),
    ):
        assert mine is not None
        torch.testing.assert_close(published.grad, mine.grad, rtol=1e-3, atol=1e-4 * mine.grad.abs().max().item())


@pytest.mark.parametrize("max_len", [None, 15])
def test_the_baseline_finds_the_same_texts(max_len: int | None) -> None:
    torch.manual_seed(0)
    ours = Recognizer.from_encoder(random_model(), DecoderConfig(2, 128, 4, vocab_size=60)).eval()
    theirs = script("baseline.weights").baseline_recognizer(ours)
    encoded = torch.randn(3, 14, 64)
    padding = torch.arange(14) >= torch.tensor([14, 14, 14])[:, None]
    limits = {"max_len_a": 0.0, "max_len_b": max_len} if max_len else {}
    settings = DecodeConfig(beam=6, min_len=1 if max_len is None else max_len, **limits)
    search = script("baseline.search")
    texts = search.beam_search(theirs, encoded, padding, search.Settings(6, 1.0, settings.min_len, max_len))
    expected = beam_search(ours, encoded, padding, settings)
    for found, hypotheses in zip(texts, expected, strict=True):
        assert [text.tokens for text in found] == [hypothesis.tokens for hypothesis in hypotheses]
        assert [text.score for text in found] == pytest.approx([h.score for h in hypotheses], abs=1e-5)


# --------------------------------------------------------------------------- files
@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    rng = np.random.default_rng(0)
    frames = np.full((12, 96, 96), 140, np.uint8)
    for number, frame in enumerate(frames):
        frame[40 : 44 + number, 30:70] = 40
    write_video(tmp_path / "clip.mp4", list(frames))
    samples = (3000 * rng.standard_normal(12 * 640 - 100)).astype(np.int16)
    write_wav(tmp_path / "clip.wav", samples)
    return Clip("clip", tmp_path / "clip.mp4", tmp_path / "clip.wav", 12, len(samples))


def test_the_baseline_reads_the_same_tensors(clip: Clip) -> None:
    pytest.importorskip("cv2", reason="OpenCV is a requirement of the benchmarks only")
    audio, video = script("baseline.data").item(clip.video, clip.audio)
    expected = read_example(clip, "av")
    assert expected.video is not None
    torch.testing.assert_close(audio, expected.audio, atol=1e-5, rtol=0)
    assert (video - expected.video).abs().max() <= 1.01 / 255 / 0.165  # one gray level: rounding of decoders


def test_the_baseline_cuts_the_same_crops() -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is a requirement of the benchmarks only")
    data = script("baseline.data")
    rng = np.random.default_rng(0)
    frames = [cv2.GaussianBlur(rng.integers(0, 256, (180, 240, 3), np.uint8), (0, 0), 4) for _ in range(20)]
    frames = [np.repeat(frame[..., :1], 3, 2) for frame in frames]  # gray: order of channels and luma play no part
    landmarks = rng.normal(0, 0.5, (20, 68, 2))
    landmarks[:, list(data.STABLE)] += 0.6 * data.MEAN_FACE + 20
    landmarks[:, 48:68] += 0.6 * np.array([129.3, 157.8]) + 20
    crops = list(data.mouth_crops(iter(frames), landmarks))
    transforms = stabilise(landmarks[:, list(data.STABLE)])
    centres = landmarks[:, 48:68].mean(1)
    assert len(crops) == 20
    for number, (cropped, frame, transform) in enumerate(zip(crops, frames, transforms, strict=True)):
        centre = transform[:, :2] @ centres[number] + transform[:, 2]
        difference = cropped[..., 0].astype(int) - crop(frame, transform, centre)
        assert abs(difference).max() <= 1
