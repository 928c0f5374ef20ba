"""Beam search against exhaustive search, teacher forcing and itself in other batches."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avhubert.config import DecodeConfig
from avhubert.decode.beam import Hypothesis, beam_search
from avhubert.model.decoder import PAD
from avhubert.model.recognizer import EOS, Recognizer

SYMBOLS = 7


def frames(seed: int, count: int) -> torch.Tensor:
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))


def forced(tiny: Recognizer, encoded: torch.Tensor, tokens: list[int]) -> list[float]:
    """log p of each token, all of them given at once."""
    seen = torch.tensor([[EOS, *tokens[:-1]]])
    logs = tiny.decoder(seen, encoded[None]).log_softmax(-1)[0]
    return [float(logs[i, token]) for i, token in enumerate(tokens)]


def exhaustive(tiny: Recognizer, encoded: torch.Tensor, limit: int, lenpen: float, least: int) -> list[Hypothesis]:
    """Every sentence of `least` … `limit` tokens before `</s>`, best first."""
    others = [symbol for symbol in range(SYMBOLS) if symbol not in (PAD, EOS)]
    found = []
    for length in range(least, limit + 1):
        for body in itertools.product(others, repeat=length):
            tokens = [*body, EOS]
            each = forced(tiny, encoded, tokens)
            found.append(Hypothesis(tokens, sum(each) / len(tokens) ** lenpen, each))
    return sorted(found, key=lambda one: -one.score)


@pytest.mark.parametrize("lenpen", [0.0, 1.0])
@pytest.mark.parametrize("least", [0, 1, 2])
@torch.no_grad()
def test_a_beam_as_wide_as_all_sentences_finds_what_exhaustive_search_finds(
    tiny: Recognizer, lenpen: float, least: int
) -> None:
    encoded = frames(1, 6)
    expected = exhaustive(tiny, encoded, 3, lenpen, least)
    search = DecodeConfig(beam=200, lenpen=lenpen, max_len_a=0, max_len_b=3, min_len=least)
    found = beam_search(tiny, encoded[None], None, search)[0]
    assert len(found) == len(expected)
    assert found[0].tokens == expected[0].tokens
    best = {tuple(one.tokens): one.score for one in expected}
    assert {tuple(one.tokens) for one in found} == set(best)
    assert all(one.score == pytest.approx(best[tuple(one.tokens)], abs=1e-3) for one in found)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 6), st.floats(0, 2))
@torch.no_grad()
def test_a_score_is_that_of_teacher_forcing(tiny: Recognizer, seed: int, count: int, beam: int, lenpen: float) -> None:
    encoded = frames(seed, count)
    for one in beam_search(tiny, encoded[None], None, DecodeConfig(beam=beam, lenpen=lenpen))[0]:
        each = forced(tiny, encoded, one.tokens)
        assert one.tokens[-1] == EOS
        assert PAD not in one.tokens
        assert len(one.tokens) - 1 <= count  # the length limit
        assert one.positional_scores == pytest.approx(each, abs=1e-3)
        assert one.score == pytest.approx(sum(each) / len(each) ** lenpen, abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 999), st.integers(1, 12)), min_size=2, max_size=5), st.integers(1, 6))
@torch.no_grad()
def test_an_utterance_does_not_feel_its_batch(tiny: Recognizer, utterances: list[tuple[int, int]], beam: int) -> None:
    search = DecodeConfig(beam=beam)
    singles = [frames(seed, count) for seed, count in utterances]
    longest = max(len(one) for one in singles)
    encoded = torch.full((len(singles), longest, 16), 9.0)  # what lies in the padding must not be seen
    mask = torch.ones(len(singles), longest, dtype=torch.bool)
    for row, one in enumerate(singles):
        encoded[row, : len(one)] = one
        mask[row, : len(one)] = False
    together = beam_search(tiny, encoded, mask, search)
    for one, found in zip(singles, together, strict=True):
        alone = beam_search(tiny, one[None], None, search)[0]
        assert [h.tokens for h in found] == [h.tokens for h in alone]
        assert [h.score for h in found] == pytest.approx([h.score for h in alone], abs=1e-3)


@torch.no_grad()
def test_limits(tiny: Recognizer) -> None:
    encoded = frames(5, 8)[None]

    def lengths(**changes: float) -> set[int]:
        search = DecodeConfig(beam=4, **changes)  # type: ignore[arg-type]
        return {len(one.tokens) - 1 for one in beam_search(tiny, encoded, None, search)[0]}

    assert max(lengths(max_len_a=0.5)) <= 4
    assert max(lengths(max_len_a=0, max_len_b=2)) <= 2
    assert min(lengths(min_len=5)) >= 5
    assert lengths(max_len_a=0, max_len_b=0, min_len=3) == {3}  # the least length wins over the limit


@torch.no_grad()
def test_best_first_and_no_hypothesis_twice(tiny: Recognizer) -> None:
    found = beam_search(tiny, frames(8, 10)[None], None, DecodeConfig(beam=6))[0]
    assert len(found) == 6
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert len({tuple(one.tokens) for one in found}) == 6
