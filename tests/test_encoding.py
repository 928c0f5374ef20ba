"""Text in any encoding: marks, UTF-16 without mark, older encodings, damage, and what is not text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from avhubert.encoding import decode, placeholder_message, read_text
from avhubert.errors import DataError

pytestmark = pytest.mark.quick

CUE = "1\n00:00:01,000 --> 00:00:02,000\n{}\n"
TEXTS = {
    "english": "He said “it’s fine” – and left…",
    "french": "Où est le café ? L'été dernier, nous étions à la plage.",
    "german": "Schöne Grüße aus München, für alle Mädchen.",
    "polish": "Zażółć gęślą jaźń. Cześć, co słychać?",
    "russian": "Привет, как дела? Сегодня хорошая погода.",
    "greek": "Καλημέρα, τι κάνεις; Είμαι πολύ καλά.",
    "chinese": "你好,今天天气很好。我们去公园吧,谢谢你。",
    "japanese": "こんにちは、お元気ですか。今日は天気がいいですね。",
    "hebrew": "שלום, מה שלומך?",
    "arabic": "صباح الخير، كيف حالك؟",
    "thai": "ขอบคุณ ผมสบายดี",
    "turkish": "Günaydın, nasılsınız?",
    "lithuanian": "Ačiū, viskas gerai, žąsys.",
    "latvian": "Paldies, man iet labi šķiņķis.",
    "ukrainian": "Дякую, їжак їсть яблуко.",
    "korean": "안녕하세요, 잘 지내세요?",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("language", TEXTS)
def test_unicode_with_and_without_mark(encoding: str, language: str) -> None:
    text = CUE.format(TEXTS[language])
    mark = "\ufeff" if encoding == "utf-32-be" else ""
    decoded = decode((mark + text).encode(encoding))
    assert decoded.text == text
    assert not decoded.is_guess


@pytest.mark.parametrize(
    ("language", "encoding"),
    [
        *[(language, "cp1252") for language in ("english", "french", "german")],
        *[("polish", "cp1250"), ("russian", "cp1251"), ("russian", "koi8_r"), ("greek", "cp1253")],
        *[("chinese", "gb18030"), ("japanese", "cp932"), ("japanese", "euc_jp"), ("japanese", "iso2022_jp")],
        *[("hebrew", "cp1255"), ("arabic", "cp1256"), ("arabic", "iso8859_6"), ("thai", "cp874"), ("korean", "cp949")],
        *[("turkish", "cp1254"), ("lithuanian", "cp1257"), ("latvian", "cp1257"), ("ukrainian", "koi8_u")],
        *[("russian", "cp866"), ("german", "cp850"), ("polish", "iso8859_2")],
    ],
)
def test_older_encodings_are_guessed(language: str, encoding: str) -> None:
    text = CUE.format(TEXTS[language])
    decoded = decode(text.encode(encoding))
    assert decoded.text == text
    assert decoded.is_guess
    if encoding != "iso2022_jp":  # its bytes are ASCII
        with pytest.raises(UnicodeError):
            decode(text.encode(encoding), guess=False)


@pytest.mark.parametrize("text", ["café", "It’s over", "Größe", "Où ?", "São Paulo", "£5 please", "¿Qué?", "Malmö"])
def test_a_western_text_of_a_few_letters(text: str) -> None:
    assert decode(CUE.format(text).encode("cp1252")).text == CUE.format(text)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_to_which_a_tool_appended_ascii_is_refused(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_bytes(CUE.format(TEXTS["english"]).encode(encoding) + b"\r\nhe said it in the evening\r\n")
    with pytest.raises(DataError, match=r"a\.srt is not text in a known encoding; convert it to UTF-8"):
        read_text(path)


def test_damaged_utf8_keeps_its_text() -> None:
    decoded = decode("Zoë, café, déjà vu, naïve, über – ".encode() + b"caf\xe9")
    assert decoded.text == "Zoë, café, déjà vu, naïve, über – café"
    assert decoded.is_guess


@pytest.mark.parametrize(
    "data", [bytes(range(256)), b"\xff\xfe\x00", b"ab\0cd", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\0" * 64]
)
def test_what_is_not_text(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.txt is not text in a known encoding; convert it to UTF-8"):
        read_text(tmp_path / "a.txt")


def test_missing_files_and_pointers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the list: No such file") as raised:
        read_text(tmp_path / "a.txt", "the list")
    assert raised.value.kind == "missing"
    (tmp_path / "a.txt").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", encoding="utf-8"
    )
    with pytest.raises(DataError, match="is a Git LFS pointer, not the file itself; run `git lfs pull`"):
        read_text(tmp_path / "a.txt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_place_of_a_file_is_not_opened(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to would wait for ever."""
    os.mkfifo(tmp_path / "centroids.npy")
    assert placeholder_message(tmp_path / "centroids.npy") is None


def test_empty_text() -> None:
    assert decode(b"").text == decode(b"\xef\xbb\xbf").text == ""


def test_a_file_that_starts_with_zero_bytes_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "zeros.tsv"
    with open(path, "wb") as handle:
        handle.truncate(10 << 30)
    with pytest.raises(DataError, match=r"zeros\.tsv is not text: it starts with zero bytes"):
        read_text(path)
