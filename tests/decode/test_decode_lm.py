"""N-grams and causal language models: scores, fusion and errors."""

from __future__ import annotations

import itertools
import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avhubert.constants import EOS, PAD
from avhubert.data.manifest import Clip, write_manifest
from avhubert.data.tokenizer import Tokenizer
from avhubert.data.transcripts import write_transcripts
from avhubert.decode.lm.causal import CausalModel
from avhubert.decode.lm.load import load_language_model
from avhubert.decode.lm.ngram import NGramModel
from avhubert.decode.lm.train_ngram import estimate, train_ngram, write_arpa
from avhubert.errors import ConfigError, DataError

SYMBOLS = ("a", "b", "c")
words = st.lists(st.lists(st.sampled_from(SYMBOLS), max_size=6), min_size=1, max_size=8)


@settings(max_examples=30, deadline=None)
@given(words, st.integers(1, 4))
def test_an_estimated_n_gram_sums_to_one_after_any_context(texts: list[list[str]], order: int) -> None:
    tables = estimate(texts, SYMBOLS, order)

    def p(context: tuple[str, ...], word: str) -> float:
        gram = (*context, word)
        if len(gram) <= len(tables) and gram in tables[len(gram) - 1]:
            return tables[len(gram) - 1][gram].probability
        assert context
        entry = tables[len(context) - 1].get(context) if len(context) <= len(tables) else None
        weight = 1.0 if entry is None else entry.backoff
        return weight * p(context[1:], word)

    for length in range(order):
        for context in itertools.product(SYMBOLS, repeat=length):
            for begin in ((), ("<s>",)) if length < order - 1 else ((),):
                total = sum(p((*begin, *context), word) for word in (*SYMBOLS, "</s>", "<unk>"))
                assert total == pytest.approx(1, abs=1e-9)


def test_seen_texts_are_more_likely_than_shuffled_ones(letters: Tokenizer, ngram: str) -> None:
    model = NGramModel(ngram, letters)
    seen, shuffled = model.score([letters.encode("ab ba"), letters.encode("b b b a a a")])
    assert seen > shuffled


@pytest.mark.parametrize("kind", ["ngram", "causal"])
@torch.no_grad()
def test_fusion_adds_up_to_the_score_of_the_text(letters: Tokenizer, kind: str, request) -> None:
    model = load_language_model(request.getfixturevalue(kind), letters)
    text = letters.encode("ab ba a")
    fused = model.fusion(2, 3, torch.device("cpu"))
    total, tokens = 0.0, torch.full((2, 3, 1), EOS)
    for step, token in enumerate([*text, EOS]):
        logs = fused.log_probabilities(tokens)
        assert logs.shape == (2, 3, 7)
        assert logs[..., PAD].max() == float("-inf")
        # the text is followed by beam 1 of the first utterance; the others take what beam 0 had
        total += float(logs[0, 1, token])
        tokens = torch.cat([tokens, torch.full((2, 3, 1), token)], 2)
        tokens[0, 0, -1] = 4 + step % 3
        fused.reorder(torch.tensor([0, 1, 2, 3, 4, 5]))
    assert total == pytest.approx(model.score([text])[0], abs=1e-4)


@pytest.mark.parametrize("kind", ["ngram", "causal"])
@torch.no_grad()
def test_fusion_follows_beams_and_utterances(letters: Tokenizer, kind: str, request) -> None:
    """After reordering beams and dropping utterances, the next scores are those of the remaining texts."""
    model = load_language_model(request.getfixturevalue(kind), letters)
    fused = model.fusion(2, 2, torch.device("cpu"))
    tokens = torch.full((2, 2, 1), EOS)
    fused.log_probabilities(tokens)
    tokens = torch.tensor([[[EOS, 4], [EOS, 5]], [[EOS, 6], [EOS, 3]]])
    fused.log_probabilities(tokens)
    rows = torch.tensor([1, 1, 3, 2])
    fused.reorder(rows)
    tokens = torch.cat([tokens.view(4, -1)[rows], torch.tensor([[4], [5], [6], [4]])], 1).view(2, 2, -1)
    fused.keep(torch.tensor([1]))
    log_probabilities = fused.log_probabilities(tokens[1:])
    fresh = model.fusion(1, 1, torch.device("cpu"))
    for beam in range(2):
        for length in range(1, 4):
            expected = fresh.log_probabilities(tokens[1:, beam : beam + 1, :length])
        fresh = model.fusion(1, 1, torch.device("cpu"))
        torch.testing.assert_close(log_probabilities[0, beam], expected[0, 0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_causal_model_continues_after_its_last_position(letters: Tokenizer, causal: str) -> None:
    model = CausalModel(causal, letters)
    fused = model.fusion(1, 2, torch.device("cpu"))
    tokens = torch.full((1, 2, 1), EOS)
    for step in range(80):  # it has 32
        logs = fused.log_probabilities(tokens)
        assert logs.exp().sum(-1).max() <= 1 + 1e-5
        tokens = torch.cat([tokens, torch.full((1, 2, 1), 3 + step % 4)], 2)
    assert math.isfinite(model.score([tokens[0, 0].tolist()])[0])


def test_another_vocabulary_allows_rescoring_only(letters: Tokenizer, causal_of_words: str, tmp_path) -> None:
    write_arpa(estimate([["ab", "ba"], ["ab", "a"]], ["ab", "ba", "a"], 2), tmp_path / "words.arpa")
    for source in (causal_of_words, str(tmp_path / "words.arpa")):
        model = load_language_model(source, letters)
        with pytest.raises(ConfigError, match=r"another vocabulary.* lacks . of 3 symbols.*lm_use=rescoring"):
            model.fusion(1, 1, torch.device("cpu"))
        short, long, longer = model.score([letters.encode(text) for text in ("ab", "ab ba", "ab ba a ab ba a ab ba")])
        assert 0 > short > longer
        assert 0 > long > longer


@torch.no_grad()
def test_the_score_of_a_causal_model_is_that_of_its_softmax(letters: Tokenizer, causal: str) -> None:
    model = CausalModel(causal, letters)
    text = letters.encode("ab ba")
    ids = torch.tensor([[model.start, *model.ids[text].tolist(), model.end]])
    logs = model.model(ids[:, :-1]).logits[0].log_softmax(-1)
    assert model.score([text])[0] == pytest.approx(float(logs.gather(1, ids[0, 1:, None]).sum()), abs=1e-4)


def test_errors_name_what_is_no_language_model(letters: Tokenizer, ngram: str, tmp_path, monkeypatch) -> None:
    (tmp_path / "rubbish.arpa").write_text("nothing", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for source, sentence in (
        ("rubbish.arpa", "neither an ARPA file nor a KenLM binary"),
        ("empty", "neither an n-gram file nor a causal language model"),
        ("absent/model", "neither an n-gram file nor a causal language model"),
    ):
        with pytest.raises(ConfigError, match=sentence) as raised:
            load_language_model(str(tmp_path / source), letters)
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="needs the recognizer's tokenizer"):
        load_language_model(ngram, None)
    for library, source in (("kenlm", ngram), ("transformers", str(tmp_path / "empty"))):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ConfigError, match=r"pip install 'avhubert\[lm\]'"):
            (NGramModel if library == "kenlm" else CausalModel)(source, letters)


def test_training_an_n_gram_on_a_data_directory(letters: Tokenizer, tmp_path) -> None:
    pytest.importorskip("kenlm")
    clips = [Clip(f"c{i}", tmp_path / "v.mp4", tmp_path / "a.wav", 25, 16000) for i in range(3)]
    write_manifest(tmp_path / "train.tsv", clips, tmp_path)
    write_transcripts(tmp_path / "train.wrd", ["AB ba", "ab", ""])
    (tmp_path / "tokenizer.model").write_bytes(letters.serialized)
    trained = train_ngram(tmp_path, tmp_path / "new" / "lm.arpa", order=3)
    assert trained.texts == 2
    assert not NGramModel(str(tmp_path / "new" / "lm.arpa"), letters).missing
    write_transcripts(tmp_path / "train.wrd", ["", "", ""])
    with pytest.raises(DataError, match="holds no text"):
        train_ngram(tmp_path, tmp_path / "lm.arpa")
