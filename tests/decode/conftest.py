"""A recognizer small enough for exhaustive search, and language models for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from avhubert.config.schema import DecoderConfig, ModelConfig
from avhubert.data.tokenizer import Tokenizer, train_tokenizer
from avhubert.decode.lm.train_ngram import estimate, write_arpa
from avhubert.model.recognizer import Recognizer


@pytest.fixture(scope="session")
def tiny() -> Recognizer:
    """A recognizer with seven symbols and weights so large that the scores of hypotheses differ clearly."""
    torch.manual_seed(3)
    model = ModelConfig(
        visual_width=8, visual_blocks=[1, 1, 1, 1], encoder_layers=1, encoder_embed_dim=16, encoder_ffn_embed_dim=32,
        encoder_attention_heads=2, conv_pos=4, conv_pos_groups=2,
    )  # fmt: skip
    decoder = DecoderConfig(layers=2, ffn_embed_dim=32, attention_heads=2, vocab_size=7, ctc=True)
    recognizer = Recognizer.from_config(model, decoder).eval()
    with torch.no_grad():
        for parameter in recognizer.decoder.parameters():
            parameter.mul_(2.5)
    return recognizer


TEXTS = ["a b", "ab ba", "b a b", "aa bb", "abba", "b", "a", "ab ab a"]


@pytest.fixture(scope="session")
def letters() -> Tokenizer:
    """The seven symbols of `tiny`: four specials, b, a, ▁."""
    tokenizer = train_tokenizer(TEXTS, 7)
    assert tokenizer.vocab_size == 7
    return tokenizer


@pytest.fixture(scope="session")
def ngram(letters: Tokenizer, tmp_path_factory) -> str:
    """A trigram over the recognizer's symbols."""
    pytest.importorskip("kenlm")
    path = tmp_path_factory.mktemp("lm") / "letters.arpa"
    texts = [[letters.symbols[token] for token in letters.encode(text)] for text in TEXTS]
    write_arpa(estimate(texts, letters.symbols[4:], 3), path)
    return str(path)


def save_causal(folder: Path, vocabulary: list[str], positions: int, words: bool) -> str:
    """A tiny random GPT-2 over `vocabulary`; `words`: its tokenizer splits at white space."""
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    own = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({symbol: i for i, symbol in enumerate(vocabulary)}, unk_token="<unk>")
    )
    if words:
        own.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=own, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(5)
    config = transformers.GPT2Config(
        vocab_size=len(vocabulary), n_positions=positions, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=vocabulary.index("<s>"), eos_token_id=vocabulary.index("</s>"), initializer_range=0.5,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def causal(letters: Tokenizer, tmp_path_factory) -> str:
    """A causal model over the recognizer's symbols and one more, in another order."""
    folder = tmp_path_factory.mktemp("causal")
    return save_causal(folder, ["more", *reversed(letters.symbols)], 32, words=False)


@pytest.fixture(scope="session")
def causal_of_words(tmp_path_factory) -> str:
    """A causal model over words, for at most four tokens."""
    return save_causal(tmp_path_factory.mktemp("words"), ["<unk>", "<s>", "</s>", "ab", "ba", "a"], 4, words=True)
