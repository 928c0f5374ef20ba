"""Tokenizer and text normalisation: published ids, reproducible bytes, messages of errors."""

from __future__ import annotations

import json
import random
import sys

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from avhubert.constants import BOS, EOS, PAD, SPECIAL_SYMBOLS, UNK
from avhubert.data.text import is_unspaced, normalise_text, normaliser
from avhubert.data.tokenizer import Tokenizer, list_characters, train_tokenizer, unknown_characters
from avhubert.errors import ConfigError, DataError

pytestmark = pytest.mark.quick

WORDS = [
    "bin",
    "lay",
    "place",
    "set",
    "blue",
    "green",
    "red",
    "white",
    "at",
    "by",
    "in",
    "with",
    "a",
    "b",
    "c",
    "zero",
    "one",
    "two",
    "three",
    "again",
    "now",
    "please",
    "soon",
]


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=6)) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(sentences(200), 80)


def test_golden_ids_and_texts(golden) -> None:
    tokenizer = Tokenizer(golden("spm_unigram200.model"))
    expected = json.loads(golden("tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer.symbols == expected["symbols"]
    assert tokenizer.vocab_size == 200
    assert [expected[name] for name in ("bos", "pad", "eos", "unk")] == [BOS, PAD, EOS, UNK]
    for example in expected["examples"]:
        assert [*tokenizer.encode(example["text"]), EOS] == example["ids"]
        assert tokenizer.decode(example["ids"]) == example["decoded"]


def test_golden_symbols_equal_the_published_dictionary(golden) -> None:
    from avhubert.data.labels import read_dictionary

    assert Tokenizer(golden("spm_unigram200.model")).symbols == [
        *SPECIAL_SYMBOLS,
        *read_dictionary(golden("dict.wrd.txt")),
    ]


def test_equal_text_gives_equal_bytes(tokenizer: Tokenizer) -> None:
    again = train_tokenizer(texts := sentences(200), 80)
    assert again.serialized == tokenizer.serialized
    assert train_tokenizer([text.upper() for text in texts], 80).serialized == tokenizer.serialized
    assert train_tokenizer(sentences(200, seed=1), 80).serialized != tokenizer.serialized


def test_tokenizer_is_restored_from_its_file(tokenizer: Tokenizer, tmp_path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(tokenizer.serialized)
    again = Tokenizer(path)
    assert again.symbols == tokenizer.symbols
    assert again.symbols[:4] == list(SPECIAL_SYMBOLS)
    assert again.encode(sentences(1)[0]) == tokenizer.encode(sentences(1)[0])


def test_ids_do_not_depend_on_the_special_symbols_of_the_model() -> None:
    import io

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(sentences(200)), model_writer=model, vocab_size=45, hard_vocab_limit=False,
        num_threads=1, minloglevel=2, model_type="unigram",  # SentencePiece's own ids: <unk> 0, <s> 1, </s> 2, no pad
    )  # fmt: skip
    tokenizer = Tokenizer(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    assert tokenizer.symbols[4:] == [processor.IdToPiece(i) for i in range(3, len(processor))]
    assert tokenizer.encode("bin é blue").count(UNK) == 1
    assert tokenizer.decode(tokenizer.encode("bin blue")) == "bin blue"


def test_vocabulary_is_limited_by_the_text(tokenizer: Tokenizer) -> None:
    assert train_tokenizer(sentences(200), 5000).vocab_size < 80 * 3
    assert tokenizer.vocab_size <= 80


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12))
def test_round_trip(tokenizer: Tokenizer, words: list[str]) -> None:
    text = " ".join(words)
    ids = tokenizer.encode(text)
    assert not {BOS, PAD, EOS, UNK} & set(ids)
    assert tokenizer.decode([BOS, *ids, EOS, PAD]) == text


@given(st.text())
def test_normalised_text_has_single_spaces_and_lower_case(text: str) -> None:
    normalised = normalise_text(text)
    assert normalised == " ".join(normalised.split())
    assert normalise_text("  Hello\tWORLD \n") == "hello world"


def test_long_transcript_is_used() -> None:
    long = " ".join(sentences(200)) + " zyx" * 3
    assert len(long) > 4192
    tokenizer = train_tokenizer([long], 60)
    assert UNK not in tokenizer.encode("zyx")


def test_empty_text_is_an_error() -> None:
    with pytest.raises(DataError, match="every transcript is empty"):
        train_tokenizer(["", "  "], 100)


def test_too_few_symbols_for_the_characters_is_an_error() -> None:
    with pytest.raises(DataError, match=r"no tokenizer of 10 symbols .* set a larger number"):
        train_tokenizer(sentences(50), 10)


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_file_that_is_not_a_tokenizer_is_an_error(content: bytes, tmp_path) -> None:
    with pytest.raises(DataError, match="the tokenizer is not a SentencePiece model"):
        Tokenizer(content)
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path} is not a SentencePiece model"):
        Tokenizer(path)


def test_missing_tokenizer_is_an_error(tmp_path) -> None:
    with pytest.raises(DataError, match=r"cannot read tokenizer .*No such file"):
        Tokenizer(tmp_path / "tokenizer.model")


LANGUAGES = {
    "Russian": "привет мир съешь ещё этих мягких французских булок",
    "Greek": "καλημέρα κόσμε ξεσκεπάζω την ψυχοφθόρα",
    "Arabic": "مرحبا بالعالم نص حكيم له سر قاطع",
    "Persian": "می‌خواهم کتاب‌ها را بخوانم",  # with zero-width non-joiners
    "Hindi": "नमस्ते दुनिया क्‍या हाल है",  # and a joiner
    "Turkish": "İstanbul ışık çağrı",
    "Vietnamese": "tiếng việt rất hay",
    "Chinese": "你好世界天地玄黄宇宙洪荒",
    "Japanese": "いろはにほへと カタカナー 漢字々",
    "Thai": "สวัสดีชาวโลกเป็นมนุษย์",
    "Korean": "안녕하세요 세계",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_character_of_any_language_round_trips(language: str) -> None:
    text = LANGUAGES[language]
    texts = [*text.split(), text]
    tokenizer = train_tokenizer(texts, 200)
    for sentence in texts:
        assert tokenizer.decode(tokenizer.encode(sentence)) == normalise_text(sentence)
    assert not unknown_characters(texts, tokenizer, "x")
    assert train_tokenizer(texts, 200).serialized == tokenizer.serialized


def test_equivalent_characters_have_one_form() -> None:
    assert normalise_text("e\u0301té") == normalise_text("ÉTÉ") == "été"
    assert normalise_text("ＡＢＣ１") == "abc1"
    assert normalise_text("ｶﾞ") == "ガ"


@given(st.text())
def test_normalisation_is_idempotent(text: str) -> None:
    assert normalise_text(normalise_text(text)) == normalise_text(text)


def test_unknown_characters_are_counted_and_too_many_are_an_error(tokenizer: Tokenizer) -> None:
    known = ["bin blue at"] * 1000  # 9 characters each
    few = unknown_characters([*known, "Ж é Ж"], tokenizer, "train.wrd")
    assert few == {"ж": 2, "é": 1}
    assert list_characters(few) == "'ж' (U+0436, 2 times), 'é' (U+00E9, 1 times)"
    with pytest.raises(
        DataError, match=r"^train\.wrd: 0\.1\d+ % of the characters are unknown .*'ж' \(U\+0436, 11 tim"
    ):
        unknown_characters([*known, "ж" * 11], tokenizer, "train.wrd")
    with pytest.raises(DataError, match="x: 100 % of"):
        unknown_characters([LANGUAGES["Chinese"]], tokenizer, "x")
    with pytest.raises(DataError, match="and 2 more; make a tokenizer from text of this language"):
        unknown_characters([LANGUAGES["Chinese"]], tokenizer, "x")
    assert not unknown_characters(["", "  "], tokenizer, "x")


@pytest.mark.parametrize("language", LANGUAGES)
def test_unspaced_languages_are_recognised(language: str) -> None:
    assert is_unspaced([LANGUAGES[language]]) == (language in ("Chinese", "Japanese", "Thai"))


def test_spacing_depends_on_most_letters() -> None:
    assert is_unspaced(["我用 wifi 上网看书写字吃饭"])
    assert not is_unspaced(["the word 世界 means world"])
    assert not is_unspaced(["", "12 34"])


@pytest.mark.parametrize(
    ("name", "text", "normalised"),
    [
        ("basic", "It’s  “Well-known”, OK?", "it’s “well-known”, ok?"),
        ("plain", "It’s  “Well-known”, OK? 'quoted' -- 5 % …", "it's well-known ok quoted 5"),
        ("plain", "«Привет», мир!", "привет мир"),
        ("plain", "'-'", ""),
        ("english", "Mr. Smith's colour isn't twenty-one, um.", "mister smith is color is not 21"),
    ],
)
def test_normalisers_by_name(name: str, text: str, normalised: str) -> None:
    if name == "english":
        pytest.importorskip("whisper_normalizer")
    assert normaliser(name)(text) == normalised


@given(st.text(), st.sampled_from(["basic", "plain"]))
def test_every_normaliser_is_idempotent(text: str, name: str) -> None:
    normalise = normaliser(name)
    assert normalise(normalise(text)) == normalise(text)


def test_unknown_or_missing_normaliser_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no text normaliser 'latin'; choose one of basic, plain, english"):
        normaliser("latin")
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    with pytest.raises(ConfigError, match=r"pip install 'avhubert\[english\]'"):
        normaliser("english")("a")
