"""Word times, compared with the enumeration of all alignments and with unambiguous scores."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avhubert.config.schema import DecodeConfig
from avhubert.constants import EOS
from avhubert.data.tokenizer import Tokenizer
from avhubert.decode.alignment import align, ctc_spans, monotonic_spans
from avhubert.decode.beam_search import beam_search
from avhubert.errors import ConfigError, DataError
from avhubert.model.recognizer import Recognizer

pytestmark = pytest.mark.quick


@pytest.fixture
def reader(tiny: Recognizer, letters: Tokenizer) -> Recognizer:
    """`tiny` with its tokenizer."""
    recognizer = Recognizer(tiny.encoder, tiny.decoder, tiny.decoder_config, tiny.ctc).eval()
    recognizer.tokenizer = letters
    return recognizer


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_spans_are_those_of_the_most_likely_alignment(seed: int, frames: int, tokens: list[int]) -> None:
    logs = np.log(np.random.default_rng(seed).dirichlet(np.ones(4), frames))
    paths = [
        path
        for path in itertools.product(range(4), repeat=frames)
        if [symbol for symbol, _ in itertools.groupby(path) if symbol] == tokens
    ]
    if not paths:
        with pytest.raises(DataError, match=f"cannot be aligned with {frames} frames"):
            ctc_spans(logs, tokens)
        return
    best = max(paths, key=lambda path: sum(logs[t, symbol] for t, symbol in enumerate(path)))
    runs, at = [], 0
    for symbol, run in itertools.groupby(best):
        length = len(list(run))
        if symbol:
            runs.append((at, at + length))
        at += length
    assert ctc_spans(logs, tokens) == runs


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(0, 4))
def test_monotonic_spans_have_the_greatest_sum(seed: int, count: int, more: int) -> None:
    frames = count + more
    logs = np.log(np.random.default_rng(seed).dirichlet(np.ones(frames), count))
    cuts = itertools.combinations(range(1, frames), count - 1)

    def total(spans) -> float:
        return sum(logs[row, first:after].sum() for row, (first, after) in enumerate(spans))

    every = [list(itertools.pairwise((0, *cut, frames))) for cut in cuts]
    assert total(monotonic_spans(logs)) == pytest.approx(max(map(total, every)))


@torch.no_grad()
def test_word_times_follow_the_ctc_head(reader: Recognizer) -> None:
    """The CTC scores of the frames spell the text; a frame is 40 ms."""
    a, b, space, blank = (reader.tokenizer.symbols.index(symbol) for symbol in ("a", "b", "▁", "<s>"))
    spelled = [blank, space, a, a, b, blank, blank, space, b, b, blank, b, blank]
    assert reader.ctc is not None
    reader.ctc = torch.nn.Linear(7, 7)
    reader.ctc.weight.copy_(20 * torch.eye(7))
    reader.ctc.bias.zero_()
    encoded = torch.nn.functional.one_hot(torch.tensor(spelled), 7).float()
    posteriors = [-0.1, -0.2, -0.3, -1.0, -1.0, -0.5, -9.0]
    words = align(reader, encoded, [space, a, b, space, b, b, EOS], posteriors)
    assert [word.word for word in words] == ["ab", "bb"]
    assert [(word.start_seconds, word.end_seconds) for word in words] == [(1 / 25, 5 / 25), (7 / 25, 12 / 25)]
    assert [word.confidence for word in words] == pytest.approx([np.exp(-0.6), np.exp(-2.5)])


@pytest.mark.parametrize("ctc", [True, False])
@torch.no_grad()
def test_a_hypothesis_and_its_text_have_the_same_alignment(reader: Recognizer, ctc: bool) -> None:
    if not ctc:
        reader.ctc = None
    encoded = torch.randn(20, 16, generator=torch.Generator().manual_seed(1))
    hypothesis = beam_search(reader, encoded[None], None, DecodeConfig(beam=3, max_len_a=0, max_len_b=6, min_len=5))[0][
        0
    ]
    words = align(reader, encoded, hypothesis.tokens, hypothesis.posteriors)
    assert " ".join(word.word for word in words) == " ".join(reader.tokenizer.decode(hypothesis.tokens).split())
    times = [time for word in words for time in (word.start_seconds, word.end_seconds)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= 20 / 25
    again = align(reader, encoded, hypothesis.tokens[:-1])
    assert [(w.word, w.start_seconds, w.end_seconds) for w in again] == [
        (w.word, w.start_seconds, w.end_seconds) for w in words
    ]
    assert [w.confidence for w in again] == pytest.approx([w.confidence for w in words], abs=1e-4)


@pytest.mark.parametrize("ctc", [True, False])
@torch.no_grad()
def test_texts_that_do_not_fit_are_an_error(reader: Recognizer, ctc: bool) -> None:
    if not ctc:
        reader.ctc = None
    tokens = reader.tokenizer.encode("ab ba")
    with pytest.raises(DataError, match=r"a text of 6 symbols cannot be aligned with 3 frames .*belongs to the clip"):
        align(reader, torch.zeros(3, 16), tokens)
    assert align(reader, torch.zeros(3, 16), [EOS]) == []
    reader.tokenizer = None
    with pytest.raises(ConfigError, match="this recognizer has none"):
        align(reader, torch.zeros(9, 16), tokens)


@torch.no_grad()
def test_cross_attention_is_that_of_the_forward_pass(tiny: Recognizer) -> None:
    """Each row is a distribution over the real frames, and does not depend on padding."""
    encoded = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(2))
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[1, 5:] = True
    looks = tiny.decoder.cross_attention(torch.tensor([[2, 4, 5], [2, 3, 3]]), encoded, mask)
    assert looks.shape == (2, 3, 9)
    torch.testing.assert_close(looks.sum(-1), torch.ones(2, 3))
    assert looks[1, :, 5:].abs().max() == 0
    alone = tiny.decoder.cross_attention(torch.tensor([[2, 3, 3]]), encoded[1:, :5])
    torch.testing.assert_close(looks[1:, :, :5], alone)
