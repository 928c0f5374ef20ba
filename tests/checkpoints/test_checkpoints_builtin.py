"""The model inside the package: found by its name, small, whole, and honest about what it knows."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import avhubert
from avhubert.checkpoints import builtin
from avhubert.checkpoints.directory import WEIGHTS, load_model, save_model
from avhubert.checkpoints.load import load_recognizer, weights_hash
from avhubert.cli.app import main
from avhubert.constants import MODALITIES
from avhubert.corpora.synthetic.text import GRID
from avhubert.data.video import probe
from avhubert.errors import CheckpointError

pytestmark = pytest.mark.quick


def test_the_name_gives_a_recognizer_of_all_modalities(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "avhubert")
    recognizer = avhubert.load("builtin")
    assert isinstance(recognizer, avhubert.Recognizer)
    assert set(recognizer.metadata.supported_modalities()) == set(MODALITIES)
    assert caplog.messages == [builtin.NOTE]


def test_it_is_small_on_disk_and_computes_in_fp32() -> None:
    assert (builtin.DIRECTORY / WEIGHTS).stat().st_size <= 8_000_000
    stored = load_file(builtin.DIRECTORY / WEIGHTS)
    assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.float16}
    loaded = load_recognizer("builtin").state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in loaded.values() if tensor.is_floating_point())
    assert all(torch.equal(tensor, stored[name].to(tensor.dtype)) for name, tensor in loaded.items())


def test_the_note_names_its_words() -> None:
    assert len({word for words in GRID for word in words}) == 51
    assert "knows 51 words" in builtin.NOTE
    commands, colours, prepositions, letters, digits, adverbs = GRID
    for words in (commands, colours, prepositions, adverbs):
        assert " ".join(words) in builtin.NOTE
    assert (len(letters), "w" in letters, len(digits)) == (25, False, 10)
    assert f"letters without w, {digits[0]} to {digits[-1]}" in builtin.NOTE
    page = Path(avhubert.__file__).parents[1] / "docs" / "how-to" / "built-in-model.md"
    assert f"docs/how-to/{page.name}" in builtin.NOTE
    assert page.is_file() or not page.parents[1].is_dir()  # the documents are not in an installed package


def test_the_name_is_not_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "builtin").mkdir()
    monkeypatch.chdir(tmp_path)
    assert weights_hash("builtin") == weights_hash(builtin.DIRECTORY) is not None
    load_recognizer("builtin")
    with pytest.raises(CheckpointError, match=r"builtin is a folder without a config\.json"):
        load_recognizer("./builtin")


def test_other_names_give_no_note(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "avhubert")
    load_recognizer(builtin.DIRECTORY)
    assert caplog.messages == []


def test_damaged_weights_are_detected(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(builtin.DIRECTORY, copy)
    with open(copy / WEIGHTS, "r+b") as file:
        file.seek(-1000, 2)
        byte = file.read(1)
        file.seek(-1000, 2)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(CheckpointError, match="is damaged: its numbers are not those that were saved"):
        load_model(copy)


def test_weights_that_half_precision_cannot_hold_are_refused(tmp_path: Path) -> None:
    recognizer = load_recognizer("builtin")
    with torch.no_grad():
        next(recognizer.parameters()).fill_(1e6)
    with pytest.raises(CheckpointError, match="has numbers that float16 cannot represent"):
        save_model(tmp_path / "model", recognizer, dtype=torch.float16)


def test_info_describes_it(capsys: pytest.CaptureFixture) -> None:
    assert main(["info", "builtin"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("kind              recognizer\n")
    assert "license           apache-2.0" in out
    assert err == f"avhubert: {builtin.NOTE}\n"


def test_the_sample_is_small_and_has_both_streams() -> None:
    assert builtin.SAMPLE.stat().st_size <= 100_000
    media = probe(builtin.SAMPLE)
    assert media.has_audio
    assert media.has_video
    for word, words in zip(builtin.sample_text().split(), GRID, strict=True):
        assert word in words
