"""Beam search, compared with exhaustive search, with teacher forcing and with itself in other batches."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from avhubert.config import compose
from avhubert.config.schema import DecodeConfig
from avhubert.constants import CTC_BLANK, EOS, PAD
from avhubert.data.tokenizer import Tokenizer
from avhubert.decode.beam_search import MAX_FRAMES, Hypothesis, beam_search, check_lengths
from avhubert.decode.lm.base import LanguageModel
from avhubert.decode.lm.load import load_language_model
from avhubert.errors import ConfigError, DataError
from avhubert.model.recognizer import Recognizer

SYMBOLS = 7


def frames(seed: int, count: int) -> torch.Tensor:
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))


def forced(tiny: Recognizer, encoded: torch.Tensor, tokens: list[int]) -> list[float]:
    """Log-probability of each token, by teacher forcing."""
    seen = torch.tensor([[EOS, *tokens[:-1]]])
    logs = tiny.decoder(seen, encoded[None]).log_softmax(-1)[0]
    return [float(logs[i, token]) for i, token in enumerate(tokens)]


def by_ctc(tiny: Recognizer, encoded: torch.Tensor, tokens: list[int]) -> float:
    """Log-probability of a text (with `</s>`) by the CTC head, which has no symbol `<s>`."""
    if CTC_BLANK in tokens:
        return float("-inf")
    assert tiny.ctc is not None
    logs = tiny.ctc(encoded[:, None]).log_softmax(-1)
    body = torch.tensor([tokens[:-1]])
    return -float(F.ctc_loss(logs, body, [len(encoded)], [len(tokens) - 1], blank=CTC_BLANK, reduction="sum"))


def summed(
    tiny: Recognizer, encoded: torch.Tensor, tokens: list[int], search: DecodeConfig, lm: LanguageModel | None
) -> float:
    """The score of a text by its definition."""
    if CTC_BLANK in tokens and (search.ctc_weight > 0 or lm is not None):
        return float("-inf")  # CTC and language models have no such symbol
    weight = search.ctc_weight
    total = (1 - weight) * sum(forced(tiny, encoded, tokens)) if weight < 1 else 0.0
    if weight > 0:
        total += weight * by_ctc(tiny, encoded, tokens)
    if lm is not None:
        total += search.lm_weight * lm.score([tokens])[0]
    return total / len(tokens) ** search.lenpen


@pytest.fixture(params=["none", "ngram", "causal"])
def lm(request, letters: Tokenizer) -> LanguageModel | None:
    if request.param == "none":
        return None
    return load_language_model(request.getfixturevalue(request.param), letters)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("frames_", [2, 5])
@torch.no_grad()
def test_the_widest_beam_equals_exhaustive_search_with_ctc_and_a_language_model(
    tiny: Recognizer, weight: float, frames_: int, lm: LanguageModel | None
) -> None:
    encoded = frames(2, frames_)
    search = DecodeConfig(
        beam=200, max_len_a=0, max_len_b=3, ctc_weight=weight, lm_weight=0.0 if lm is None else 0.7, lenpen=0.5
    )
    others = [symbol for symbol in range(SYMBOLS) if symbol not in (PAD, EOS)]
    every = [[*body, EOS] for length in (1, 2, 3) for body in itertools.product(others, repeat=length)]
    expected = {tuple(tokens): summed(tiny, encoded, tokens, search, lm) for tokens in every}
    expected = {tokens: score for tokens, score in expected.items() if score > float("-inf")}
    hypotheses = beam_search(tiny, encoded[None], None, search, lm)[0]
    assert {tuple(hypothesis.tokens) for hypothesis in hypotheses} == set(expected)
    assert tuple(hypotheses[0].tokens) == max(expected, key=lambda tokens: expected[tokens])
    for hypothesis in hypotheses:
        assert hypothesis.score == pytest.approx(expected[tuple(hypothesis.tokens)], abs=1e-3)
        assert sum(hypothesis.positional_scores) == pytest.approx(
            hypothesis.score * len(hypothesis.tokens) ** 0.5, abs=1e-3
        )
        if lm is not None:
            assert hypothesis.lm_score == pytest.approx(lm.score([hypothesis.tokens])[0], abs=1e-3)
        if weight < 1:
            assert hypothesis.posteriors == pytest.approx(forced(tiny, encoded, hypothesis.tokens), abs=1e-3)
        else:
            assert sum(hypothesis.posteriors) == pytest.approx(by_ctc(tiny, encoded, hypothesis.tokens), abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 6), st.sampled_from([0.0, 0.2, 0.7, 1.0]))
@torch.no_grad()
def test_a_joint_score_equals_the_score_of_the_whole_text(
    tiny: Recognizer, letters: Tokenizer, ngram: str, seed: int, count: int, beam: int, weight: float
) -> None:
    model = load_language_model(ngram, letters)
    encoded = frames(seed, count)
    search = DecodeConfig(beam=beam, ctc_weight=weight, lm_weight=0.4)
    hypotheses = beam_search(tiny, encoded[None], None, search, model)[0]
    assert hypotheses
    for hypothesis in hypotheses:
        assert hypothesis.score == pytest.approx(summed(tiny, encoded, hypothesis.tokens, search, model), abs=2e-3)


@torch.no_grad()
def test_rescoring_adds_the_language_model_to_the_scores(
    tiny: Recognizer, letters: Tokenizer, ngram: str, causal_of_words: str
) -> None:
    encoded = frames(4, 9)
    plain = beam_search(tiny, encoded[None], None, DecodeConfig(beam=8))[0]
    with_tokenizer = Recognizer(tiny.encoder, tiny.decoder, tiny.decoder_config, tiny.ctc).eval()
    with_tokenizer.tokenizer = letters
    for source in (ngram, causal_of_words):
        search = DecodeConfig(beam=8, lm=source, lm_weight=2.0, lm_use="rescoring")
        hypotheses = beam_search(with_tokenizer, encoded[None], None, search)[0]
        model = load_language_model(source, letters)
        assert {tuple(hypothesis.tokens) for hypothesis in hypotheses} == {
            tuple(hypothesis.tokens) for hypothesis in plain
        }
        assert [hypothesis.score for hypothesis in hypotheses] == sorted(
            (hypothesis.score for hypothesis in hypotheses), reverse=True
        )
        before = {tuple(hypothesis.tokens): hypothesis.score for hypothesis in plain}
        for hypothesis in hypotheses:
            log_p = model.score([hypothesis.tokens])[0]
            assert hypothesis.lm_score == pytest.approx(log_p, abs=1e-4)
            assert hypothesis.score == pytest.approx(
                before[tuple(hypothesis.tokens)] + 2 * log_p / len(hypothesis.tokens), abs=1e-4
            )
    assert [hypothesis.tokens for hypothesis in hypotheses] != [hypothesis.tokens for hypothesis in plain]


@pytest.mark.parametrize("n", [1, 2, 3])
@torch.no_grad()
def test_no_n_gram_is_repeated(tiny: Recognizer, n: int) -> None:
    repeats = 0
    for seed in range(6):
        encoded = frames(seed, 14)[None]
        for blocked in (0, n):
            for hypothesis in beam_search(
                tiny, encoded, None, DecodeConfig(beam=4, no_repeat_ngram=blocked, min_len=12)
            )[0]:
                body = hypothesis.tokens[:-1]
                grams = [tuple(body[i : i + n]) for i in range(len(body) - n + 1)]
                if blocked:
                    assert len(grams) == len(set(grams))
                repeats += len(grams) - len(set(grams))
    assert repeats > 0  # without blocking there were some


@torch.no_grad()
def test_blocking_finds_the_best_of_the_allowed_texts(tiny: Recognizer) -> None:
    encoded = frames(1, 6)
    search = DecodeConfig(beam=200, max_len_a=0, max_len_b=3, no_repeat_ngram=1)
    expected = [
        hypothesis
        for hypothesis in exhaustive(tiny, encoded, 3, 1.0, 1)
        if len(set(hypothesis.tokens)) == len(hypothesis.tokens)
    ]
    hypotheses = beam_search(tiny, encoded[None], None, search)[0]
    assert {tuple(hypothesis.tokens) for hypothesis in hypotheses} == {
        tuple(hypothesis.tokens) for hypothesis in expected
    }
    assert hypotheses[0].tokens == expected[0].tokens


@torch.no_grad()
def test_a_text_ends_where_no_symbol_is_allowed(tiny: Recognizer) -> None:
    one_frame = frames(3, 1)[None]
    for search in (
        DecodeConfig(beam=3, ctc_weight=0.5, min_len=4),  # CTC has room for one symbol
        DecodeConfig(beam=3, ctc_weight=1.0, min_len=4),
        DecodeConfig(beam=3, no_repeat_ngram=1, min_len=9),  # there are five symbols
    ):
        hypotheses = beam_search(tiny, one_frame, None, search)[0]
        assert hypotheses
        assert all(abs(hypothesis.score) < 1e3 and hypothesis.tokens[-1] == EOS for hypothesis in hypotheses)


@torch.no_grad()
def test_nbest_returns_the_first_hypotheses(tiny: Recognizer) -> None:
    encoded = frames(8, 10)[None]
    every = beam_search(tiny, encoded, None, DecodeConfig(beam=6))[0]
    assert beam_search(tiny, encoded, None, DecodeConfig(beam=6, nbest=2))[0] == every[:2]


@torch.no_grad()
def test_errors_name_what_cannot_be_decoded(tiny: Recognizer) -> None:
    encoded = torch.zeros(2, 5, 16)
    mask = torch.tensor([[False] * 5, [True] * 5])
    with pytest.raises(DataError, match="utterance 1 of the batch has no frames"):
        beam_search(tiny, encoded, mask, DecodeConfig())
    with pytest.raises(DataError, match=r"15000 frames \(600 s\), too many .* `avhubert transcribe`"):
        beam_search(tiny, torch.zeros(1, 15_000, 16), None, DecodeConfig())
    with pytest.raises(DataError, match="clip 'long' has 3001 frames"):
        check_lengths([MAX_FRAMES, MAX_FRAMES + 1], ["short", "long"])
    with pytest.raises(ConfigError, match=r"lm_weight=0.5 needs a language model; name one in decode\.lm"):
        beam_search(tiny, encoded, None, DecodeConfig(lm_weight=0.5))


def differing_transcripts(
    tiny: Recognizer, utterances: list[tuple[int, int]], search: DecodeConfig, lm: LanguageModel | None
) -> int:
    """Decode utterances (seed, frames) together and one by one; returns how many best transcripts differ."""
    singles = [frames(seed, count) for seed, count in utterances]
    encoded = torch.full((len(singles), max(map(len, singles)), 16), 9.0)
    mask = torch.ones(encoded.shape[:2], dtype=torch.bool)
    for row, utterance in enumerate(singles):
        encoded[row, : len(utterance)] = utterance
        mask[row, : len(utterance)] = False
    together = beam_search(tiny, encoded, mask, search, lm)
    alone = [beam_search(tiny, utterance[None], None, search, lm)[0] for utterance in singles]
    for hypotheses, single in zip(together, alone, strict=True):
        assert hypotheses[0].score == pytest.approx(single[0].score, abs=1e-3)
    return sum(hypotheses[0].tokens != single[0].tokens for hypotheses, single in zip(together, alone, strict=True))


@pytest.mark.parametrize("batches", [100, pytest.param(1000, marks=pytest.mark.slow)])
@torch.no_grad()
def test_transcripts_do_not_depend_on_the_batch(
    tiny: Recognizer, letters: Tokenizer, ngram: str, causal: str, batches: int
) -> None:
    generator = torch.Generator().manual_seed(batches)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    changed = 0
    for _ in range(batches):
        utterances = [(number(0, 10**6), number(1, 20)) for _ in range(number(2, 6))]
        search = DecodeConfig(
            beam=number(1, 6), ctc_weight=(0.0, 0.0, 0.3, 1.0)[number(0, 3)], no_repeat_ngram=(0, 0, 3)[number(0, 2)]
        )
        source = (None, ngram, causal)[number(0, 2)]
        model = None if source is None else load_language_model(source, letters)
        changed += differing_transcripts(
            tiny, utterances, replace(search, lm_weight=0.0 if model is None else 0.5), model
        )
    assert changed == 0


def exhaustive(tiny: Recognizer, encoded: torch.Tensor, limit: int, lenpen: float, least: int) -> list[Hypothesis]:
    """Every sentence of `least` … `limit` tokens before `</s>`, best first."""
    others = [symbol for symbol in range(SYMBOLS) if symbol not in (PAD, EOS)]
    hypotheses = []
    for length in range(least, limit + 1):
        for body in itertools.product(others, repeat=length):
            tokens = [*body, EOS]
            each = forced(tiny, encoded, tokens)
            hypotheses.append(Hypothesis(tokens, sum(each) / len(tokens) ** lenpen, each))
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)


@pytest.mark.parametrize("lenpen", [0.0, 1.0])
@pytest.mark.parametrize("least", [0, 1, 2])
@torch.no_grad()
def test_a_beam_of_all_sentences_equals_exhaustive_search(tiny: Recognizer, lenpen: float, least: int) -> None:
    encoded = frames(1, 6)
    expected = exhaustive(tiny, encoded, 3, lenpen, least)
    search = DecodeConfig(beam=200, lenpen=lenpen, max_len_a=0, max_len_b=3, min_len=least)
    hypotheses = beam_search(tiny, encoded[None], None, search)[0]
    assert len(hypotheses) == len(expected)
    assert hypotheses[0].tokens == expected[0].tokens
    best = {tuple(hypothesis.tokens): hypothesis.score for hypothesis in expected}
    assert {tuple(hypothesis.tokens) for hypothesis in hypotheses} == set(best)
    assert all(hypothesis.score == pytest.approx(best[tuple(hypothesis.tokens)], abs=1e-3) for hypothesis in hypotheses)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 6), st.floats(0, 2))
@torch.no_grad()
def test_scores_equal_those_of_teacher_forcing(
    tiny: Recognizer, seed: int, count: int, beam: int, lenpen: float
) -> None:
    encoded = frames(seed, count)
    for hypothesis in beam_search(tiny, encoded[None], None, DecodeConfig(beam=beam, lenpen=lenpen))[0]:
        each = forced(tiny, encoded, hypothesis.tokens)
        assert hypothesis.tokens[-1] == EOS
        assert PAD not in hypothesis.tokens
        assert len(hypothesis.tokens) - 1 <= count  # the length limit
        assert hypothesis.positional_scores == pytest.approx(each, abs=1e-3)
        assert hypothesis.score == pytest.approx(sum(each) / len(each) ** lenpen, abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 999), st.integers(1, 12)), min_size=2, max_size=5), st.integers(1, 6))
@torch.no_grad()
def test_scores_do_not_depend_on_the_batch(tiny: Recognizer, utterances: list[tuple[int, int]], beam: int) -> None:
    search = DecodeConfig(beam=beam)
    singles = [frames(seed, count) for seed, count in utterances]
    longest = max(len(utterance) for utterance in singles)
    encoded = torch.full((len(singles), longest, 16), 9.0)  # the values of padding must not matter
    mask = torch.ones(len(singles), longest, dtype=torch.bool)
    for row, utterance in enumerate(singles):
        encoded[row, : len(utterance)] = utterance
        mask[row, : len(utterance)] = False
    together = beam_search(tiny, encoded, mask, search)
    for utterance, hypotheses in zip(singles, together, strict=True):
        alone = beam_search(tiny, utterance[None], None, search)[0]
        assert [h.tokens for h in hypotheses] == [h.tokens for h in alone]
        assert [h.score for h in hypotheses] == pytest.approx([h.score for h in alone], abs=1e-3)


@torch.no_grad()
def test_limits(tiny: Recognizer) -> None:
    encoded = frames(5, 8)[None]

    def lengths(**changes: float) -> set[int]:
        search = DecodeConfig(beam=4, **changes)  # type: ignore[arg-type]
        return {len(hypothesis.tokens) - 1 for hypothesis in beam_search(tiny, encoded, None, search)[0]}

    assert max(lengths(max_len_a=0.5)) <= 4
    assert max(lengths(max_len_a=0, max_len_b=2)) <= 2
    assert min(lengths(min_len=5)) >= 5
    assert lengths(max_len_a=0, max_len_b=0, min_len=3) == {3}  # the smallest length takes precedence over the limit


@torch.no_grad()
def test_hypotheses_are_sorted_and_differ(tiny: Recognizer) -> None:
    hypotheses = beam_search(tiny, frames(8, 10)[None], None, DecodeConfig(beam=6))[0]
    assert len(hypotheses) == 6
    assert [hypothesis.score for hypothesis in hypotheses] == sorted(
        (hypothesis.score for hypothesis in hypotheses), reverse=True
    )
    assert len({tuple(hypothesis.tokens) for hypothesis in hypotheses}) == 6


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("ctc_weight=1.5", "ctc_weight=1.5 must be between 0 and 1"),
        ("lm_weight=-1", "lm_weight=-1 must be at least 0"),
        ("lm_use=both", "lm_use=both is not one of: fusion, rescoring"),
        ("nbest=0", "nbest=0 must be greater than 0"),
        ("no_repeat_ngram=-1", "no_repeat_ngram=-1 must be at least 0"),
    ],
)
def test_errors_name_a_wrong_setting(override: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        compose("decode", "s2s_decode", [override])


# --------------------------------------------------------------------------- where the search stops
def searched(tiny: Recognizer, encoded: torch.Tensor, beams: int, longest: int, lenpen: float) -> list[Hypothesis]:
    """The search that stops where no unfinished text can become better, token by token without a cache."""
    running = [([], 0.0)]  # texts and sums of their log-probabilities
    kept: list[tuple[list[int], float]] = []
    for length in range(1, longest + 2):
        candidates = []
        for text, total in running:
            logs = tiny.decoder(torch.tensor([[EOS, *text]]), encoded[None]).log_softmax(-1)[0, -1]
            candidates += [([*text, token], total + float(logs[token])) for token in range(SYMBOLS)]
        candidates.sort(key=lambda pair: -pair[1])
        last = length > longest
        ended = [pair for pair in candidates[:beams] if last or pair[0][-1] == EOS]
        kept = sorted([*kept, *((text, total / length**lenpen) for text, total in ended)], key=lambda pair: -pair[1])
        kept = kept[:beams]
        running = [pair for pair in candidates[: 2 * beams] if pair[0][-1] != EOS][:beams]
        if last or (len(kept) == beams and running[0][1] / length**lenpen <= kept[-1][1]):
            break
    return [Hypothesis(text, score, []) for text, score in kept]


@pytest.mark.parametrize("lenpen", [0.0, 1.0, 2.0])
@torch.no_grad()
def test_search_for_the_best_goes_on_while_an_unfinished_text_can_win(tiny: Recognizer, lenpen: float) -> None:
    longer = 0
    for seed in range(6):
        encoded = frames(seed, 5)
        settings_ = DecodeConfig(beam=3, max_len_a=0, max_len_b=7, min_len=0, lenpen=lenpen, stop="best")
        found = beam_search(tiny, encoded[None], None, settings_)[0]
        expected = searched(tiny, encoded, 3, 7, lenpen)
        assert [hypothesis.tokens for hypothesis in found] == [hypothesis.tokens for hypothesis in expected]
        assert [hypothesis.score for hypothesis in found] == pytest.approx([one.score for one in expected], abs=1e-5)
        first = beam_search(tiny, encoded[None], None, replace(settings_, stop="first"))[0]
        longer += found[0].score > first[0].score + 1e-6
    assert longer or lenpen == 0


@torch.no_grad()
def test_search_for_the_best_is_the_same_in_a_batch(tiny: Recognizer) -> None:
    counts = (3, 9, 6)
    rows = [frames(seed, count) for seed, count in enumerate(counts)]
    mask = torch.arange(9) >= torch.tensor(counts)[:, None]
    batch = torch.stack([F.pad(row, (0, 0, 0, 9 - len(row))) for row in rows])
    settings_ = DecodeConfig(beam=3, max_len_a=0, max_len_b=9, stop="best")
    for row, found in zip(rows, beam_search(tiny, batch, mask, settings_), strict=True):
        alone = beam_search(tiny, row[None], None, settings_)[0]
        assert [hypothesis.tokens for hypothesis in found] == [hypothesis.tokens for hypothesis in alone]
