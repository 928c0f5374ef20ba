"""CTC prefix scores, compared with the enumeration of all alignments."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from avhubert.config.schema import DecodeConfig, DecoderConfig
from avhubert.constants import CTC_BLANK, EOS, PAD
from avhubert.decode.batch_decoder import BatchDecoder
from avhubert.decode.beam_search import beam_search
from avhubert.decode.ctc import PrefixScores
from avhubert.errors import ConfigError
from avhubert.model.recognizer import Recognizer

pytestmark = pytest.mark.quick

LABELS = (3, 4, 5)
SYMBOLS = 6


def draw(seed: int, frames: int) -> torch.Tensor:
    """Scores of one utterance; `<pad>` and `</s>` are almost impossible, as in a trained model."""
    scores = 2 * torch.randn(frames, SYMBOLS, generator=torch.Generator().manual_seed(seed))
    scores[:, [PAD, EOS]] = -60
    return scores


def texts_of(scores: torch.Tensor) -> dict[tuple[int, ...], float]:
    """The probability of every text: the sum over its alignments."""
    chances = scores.double().softmax(-1).tolist()
    probabilities: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product((CTC_BLANK, *LABELS), repeat=len(chances)):
        text = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != CTC_BLANK)
        probabilities[text] += math.prod(frame[symbol] for frame, symbol in zip(chances, path, strict=True))
    return probabilities


def follow(scorer: PrefixScores, texts: list[tuple[int, ...]]) -> torch.Tensor:
    """Continuations [1, K, V] after one text per beam; all texts have the same length."""
    rows = torch.arange(len(texts))[None]
    for position in range(len(texts[0])):
        scorer.continuations()
        scorer.follow(rows, torch.tensor([[text[position] for text in texts]]))
    return scorer.continuations()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(0, 4), st.integers(0, 3))
def test_prefix_scores_equal_sums_over_alignments(seed: int, frames: int, length: int, padding: int) -> None:
    scores = draw(seed, frames)
    truth = texts_of(scores)
    prefixes = list(itertools.product(LABELS, repeat=length))
    padded = torch.cat([scores, torch.full((padding, SYMBOLS), 7.0)])
    scorer = PrefixScores(padded[None], [frames], len(prefixes))
    computed = (follow(scorer, prefixes) + scorer.prefix.masked_fill(scorer.prefix.isinf(), 0)[..., None])[0].exp()
    for row, prefix in enumerate(prefixes):
        assert float(computed[row, EOS]) == pytest.approx(truth.get(prefix, 0.0), rel=1e-9, abs=1e-15)
        for symbol in LABELS:
            begins = (*prefix, symbol)
            expected = sum(p for text, p in truth.items() if text[: len(begins)] == begins)
            assert float(computed[row, symbol]) == pytest.approx(expected, rel=1e-9, abs=1e-15)
        assert float(computed[row, CTC_BLANK]) == float(computed[row, PAD]) == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 300), min_size=1, max_size=4), st.integers(1, 30))
def test_the_score_of_a_whole_text_equals_the_loss_at_any_length(seed: int, lengths: list[int], tokens: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = 6 * torch.randn(len(lengths), max(lengths), SYMBOLS, generator=generator)
    text = torch.randint(3, SYMBOLS, (len(lengths), tokens), generator=generator)
    scorer = PrefixScores(scores, lengths, 1)
    for position in range(tokens):
        scorer.continuations()
        scorer.follow(torch.zeros(len(lengths), 1, dtype=torch.long), text[:, position : position + 1])
    scorer.continuations()
    computed = -scorer.continued[:, 0, EOS]
    expected = F.ctc_loss(
        scores.double().log_softmax(-1).transpose(0, 1), text, torch.tensor(lengths),
        torch.full((len(lengths),), tokens), blank=CTC_BLANK, reduction="none",
    )  # fmt: skip
    for value, expected_value in zip(computed.tolist(), expected.tolist(), strict=True):
        assert value == pytest.approx(expected_value, rel=1e-6, abs=1e-6)


def test_impossible_beams_stay_impossible_without_nan() -> None:
    scorer = PrefixScores(draw(0, 2)[None], [2], 3)
    log_probabilities = follow(scorer, [(3, 3, 3), (3, 4, 5), (PAD, PAD, PAD)])  # none fits two frames
    assert not log_probabilities.isnan().any()
    assert (log_probabilities == float("-inf")).all()


def test_ctc_weight_without_a_ctc_head_is_an_error(tiny: Recognizer) -> None:
    decoder = DecoderConfig(layers=1, ffn_embed_dim=16, attention_heads=2, vocab_size=7, ctc=False)
    headless = Recognizer.from_encoder(tiny.encoder, decoder).eval()
    with pytest.raises(ConfigError, match=r"ctc_weight=0\.3 needs a CTC head"):
        beam_search(headless, torch.zeros(1, 4, 16), None, DecodeConfig(ctc_weight=0.3))
    with pytest.raises(ConfigError, match=r"ctc_weight=0\.3 needs a CTC head"):  # before any file is read
        BatchDecoder(headless, "cpu", "fp32", {"ctc_weight": 0.3})
