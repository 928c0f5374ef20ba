"""The decoder, the recognizer and the fine-tuning loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from avhubert.config.schema import DecoderConfig, FinetuneObjectiveConfig, ModelConfig
from avhubert.constants import CTC_BLANK, EOS, PAD
from avhubert.decode.ctc import ctc_best_path
from avhubert.errors import ConfigError
from avhubert.model.decoder import sinusoid
from avhubert.model.encoder import AVHubert
from avhubert.model.losses import TextTargets, ctc_loss, label_smoothed, recognizer_loss, shift
from avhubert.model.recognizer import Recognizer

pytestmark = pytest.mark.quick

SMALL = ModelConfig(
    visual_width=8, visual_blocks=[1, 1, 1, 1], encoder_layers=2, encoder_embed_dim=32, encoder_ffn_embed_dim=64,
    encoder_attention_heads=2, conv_pos=8, conv_pos_groups=4,
)  # fmt: skip
HEADS = DecoderConfig(layers=2, ffn_embed_dim=64, attention_heads=4, vocab_size=12, ctc=True)


@pytest.fixture
def recognizer() -> Recognizer:
    torch.manual_seed(0)
    return Recognizer.from_config(SMALL, HEADS)


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens [2, 5], audio, video and padding mask of two utterances of 9 and 6 frames."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.tensor([[4, 5, 6, 7, EOS], [8, 9, EOS, PAD, PAD]])
    mask = torch.arange(9) >= torch.tensor([9, 6])[:, None]
    audio = torch.randn(2, 104, 9, generator=generator).masked_fill(mask[:, None], 0)
    video = torch.randn(2, 1, 9, 88, 88, generator=generator).masked_fill(mask[:, None, :, None, None], 0)
    return tokens, audio, video, mask


def test_shift_starts_with_eos_and_keeps_padding() -> None:
    tokens = torch.tensor([[4, 5, EOS], [6, EOS, PAD]])
    assert shift(tokens).tolist() == [[EOS, 4, 5], [EOS, 6, PAD]]


def test_positions_are_sines_then_cosines_of_decreasing_frequencies() -> None:
    positions = sinusoid(torch.tensor([0, 2, 7]), 6)
    rates = torch.tensor([1.0, 10_000**-0.5, 10_000**-1.0])
    angles = torch.tensor([0.0, 2.0, 7.0])[:, None] * rates
    assert torch.allclose(positions, torch.cat([angles.sin(), angles.cos()], 1), atol=1e-6)
    assert sinusoid(torch.tensor([3]), 5).shape == (1, 5)


@torch.no_grad()
def test_steps_equal_the_forward_pass(recognizer: Recognizer) -> None:
    decoder = recognizer.eval().decoder
    tokens, audio, video, mask = inputs()
    encoded = recognizer.encode(audio, video, mask)
    inputs_of_beams = shift(tokens)[:, :, None].expand(-1, -1, 3)  # three equal beams
    together = decoder(shift(tokens), encoded, mask)
    cache = decoder.start(encoded, mask, 3)
    for position in range(tokens.shape[1]):
        scores = decoder.step(inputs_of_beams[:, position], cache)
        assert torch.allclose(scores, together[:, position, None].expand(-1, 3, -1), atol=1e-5)


@torch.no_grad()
def test_later_tokens_and_padding_frames_have_no_effect(recognizer: Recognizer) -> None:
    recognizer.eval()
    tokens, audio, video, mask = inputs()
    scores = recognizer(shift(tokens), audio, video, mask)
    changed = shift(tokens).clone()
    changed[:, 3:] = 10
    assert torch.allclose(recognizer(changed, audio, video, mask)[:, :3], scores[:, :3], atol=1e-6)
    alone = recognizer(shift(tokens[1:, :3]), audio[1:, :, :6], video[1:, :, :6], None)
    assert torch.allclose(alone[0], scores[1, :3], atol=1e-5)


def test_label_smoothing_is_cross_entropy_against_the_smoothed_target() -> None:
    scores = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[4, 5, EOS], [6, EOS, PAD]])
    loss, nll = label_smoothed(scores, tokens, 0.1)
    real = tokens != PAD
    target = torch.full((2, 3, 8), 0.1 / 7).scatter(-1, tokens[..., None], 1 - 0.1 - 0.1 / 7 + 0.1 / 7)
    logs = scores.log_softmax(-1)
    assert loss == pytest.approx(float(-(target * logs).sum(-1)[real].sum()), rel=1e-5)
    assert nll == pytest.approx(float(F.cross_entropy(scores[real], tokens[real], reduction="sum")), rel=1e-5)


def test_the_loss_mixes_attention_and_ctc_and_counts_sentences(recognizer: Recognizer) -> None:
    recognizer.eval()
    tokens, audio, video, mask = inputs()
    present = torch.tensor([True, True])

    def loss(weight: float) -> tuple[float, int, dict[str, torch.Tensor]]:
        objective = FinetuneObjectiveConfig(ctc_weight=weight)
        value, count, sums = recognizer_loss(recognizer, tokens, audio, video, mask, present, present, objective)
        return float(value.detach()), count, sums

    attention, ctc = loss(0.0)[0], loss(1.0)[0]
    mixed, count, sums = loss(0.3)
    assert mixed == pytest.approx(0.7 * attention + 0.3 * ctc, rel=1e-5)
    assert count == 2
    assert int(sums["total"]) == 8
    assert 0 <= int(sums["correct"]) <= 8
    assert float(sums["ctc"]) == pytest.approx(ctc, rel=1e-5)


def test_ctc_is_the_sum_over_alignments() -> None:
    """Two frames, target [4]: the alignments are 44, 4-, -4."""
    scores = torch.randn(1, 3, 6, generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([[False, False, True]])
    p = scores[0].softmax(-1)
    expected = -(p[0, 4] * p[1, 4] + p[0, 4] * p[1, CTC_BLANK] + p[0, CTC_BLANK] * p[1, 4]).log()
    assert float(
        ctc_loss(scores, TextTargets.of(torch.tensor([[4, EOS, PAD]])), (~mask).sum(1).tolist())
    ) == pytest.approx(float(expected), rel=1e-5)


def test_target_too_long_for_its_frames_has_loss_zero() -> None:
    scores = torch.randn(1, 2, 6, requires_grad=True)
    loss = ctc_loss(scores, TextTargets.of(torch.tensor([[4, 5, 4, EOS]])), [2])
    loss.backward()
    assert float(loss) == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_frozen_encoder_gets_no_gradient_and_no_update(recognizer: Recognizer) -> None:
    tokens, audio, video, mask = inputs()
    present = torch.tensor([True, True])
    recognizer.train()
    recognizer.freeze_encoder(True)
    before = {name: tensor.clone() for name, tensor in recognizer.encoder.state_dict().items()}
    arguments = (tokens, audio, video, mask, present, present, FinetuneObjectiveConfig(ctc_weight=0.3))
    recognizer_loss(recognizer, *arguments)[0].backward()
    assert all(parameter.grad is None for parameter in recognizer.encoder.parameters())
    assert all(p.grad is not None for name, p in recognizer.named_parameters() if not name.startswith("encoder."))
    assert all(torch.equal(before[name], after) for name, after in recognizer.encoder.state_dict().items())
    assert not recognizer.encoder.training
    assert recognizer.decoder.training
    recognizer.freeze_encoder(False)
    assert recognizer.encoder.training
    recognizer_loss(recognizer, *arguments)[0].backward()
    assert any(parameter.grad is not None for parameter in recognizer.encoder.parameters())


def test_sizes_that_do_not_match_are_an_error() -> None:
    encoder = AVHubert(SMALL)
    with pytest.raises(ConfigError, match=r"attention_heads=5 must divide the encoder's width 32"):
        Recognizer.from_encoder(encoder, DecoderConfig(attention_heads=5, vocab_size=12))
    with pytest.raises(ConfigError, match="vocab_size=2 leaves no room"):
        Recognizer.from_encoder(encoder, DecoderConfig(vocab_size=2))
    plain = Recognizer.from_encoder(encoder, DecoderConfig(layers=1, ffn_embed_dim=8, vocab_size=12)).eval()
    tokens, audio, video, mask = inputs()
    with pytest.raises(ConfigError, match=r"ctc=false leaves no CTC head"):
        recognizer_loss(plain, tokens, audio, video, mask, None, None, FinetuneObjectiveConfig(ctc_weight=0.3))


def test_ctc_only_gives_the_decoder_no_gradient(recognizer: Recognizer) -> None:
    tokens, audio, video, mask = inputs()
    recognizer.eval()
    both = FinetuneObjectiveConfig(ctc_weight=0.25)
    weighted, _, parts = recognizer_loss(recognizer, tokens, audio, video, mask, None, None, both)
    alone = FinetuneObjectiveConfig(ctc_weight=1)
    loss, sentences, metrics = recognizer_loss(recognizer, tokens, audio, video, mask, None, None, alone)
    loss.backward()
    assert sentences == 2
    assert metrics.keys() == {"ctc"}
    assert all(parameter.grad is None for parameter in recognizer.decoder.parameters())
    assert recognizer.ctc is not None
    assert recognizer.ctc.weight.grad is not None
    attention, _, _ = recognizer_loss(recognizer, tokens, audio, video, mask, None, None, FinetuneObjectiveConfig())
    torch.testing.assert_close(metrics["ctc"], loss.detach())
    torch.testing.assert_close(weighted, 0.75 * attention + 0.25 * loss)
    assert parts.keys() == {"nll", "correct", "total", "ctc"}


def test_ctc_best_path_removes_repeats_then_blanks() -> None:
    path = torch.tensor([[5, 5, 0, 5, 6, 0, 7], [0, 8, 8, 0, 9, 9, 9]])
    mask = torch.arange(7) >= torch.tensor([7, 4])[:, None]
    assert ctc_best_path(F.one_hot(path, 10).float(), (~mask).sum(1).tolist()) == [[5, 5, 6, 7], [8]]
