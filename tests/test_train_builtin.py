"""The scripts that train and ship the built-in model, without the training."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from avhubert.checkpoints import builtin
from avhubert.checkpoints.load import load_recognizer
from avhubert.config import compose
from avhubert.corpora.synthetic.text import GRID
from avhubert.data.manifest import Clip, read_manifest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
pytestmark = [
    pytest.mark.quick,
    pytest.mark.skipif(not SCRIPTS.is_dir(), reason="the sources are not here: the tests run against a package"),
]


def script(name: str) -> ModuleType:
    if str(SCRIPTS) not in sys.path:
        sys.path.append(str(SCRIPTS))
    return importlib.import_module(name)


def test_the_preset_is_complete_and_its_overrides_are_valid() -> None:
    training = script("train_builtin")
    settings = training.Settings.read(training.PRESET)
    paths = ["run_dir=run", "data.dir=data", "model.pretrained=builtin"]
    config = compose("finetune", "tiny", [*paths, *settings.finetune])
    assert config.train.max_steps == 4000
    assert settings.grid.directory == "unseen"
    assert training.GridSettings("speaker:s1").directory == "s1"


def test_a_preset_with_other_keys_is_refused(tmp_path: Path) -> None:
    training = script("train_builtin")
    text = training.PRESET.read_text(encoding="utf-8")
    (tmp_path / "preset.yaml").write_text(text + "more: 1\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="the keys must be average, ctc_weight, demo"):
        training.Settings.read(tmp_path / "preset.yaml")


def test_each_word_is_one_symbol() -> None:
    tokenizer = script("builtin_data").word_tokenizer()
    for words in GRID:
        for word in words:
            (token,) = tokenizer.encode(word)
            assert tokenizer.decode([token]) == word


def test_repeated_clips_get_their_own_ids(tmp_path: Path) -> None:
    data = script("builtin_data")
    clips = [Clip(name, tmp_path / "v", tmp_path / "a", 9, 5760, name[:2]) for name in ("s1/x", "s4/x")]
    utterances = data.repeated([data.Utterance(clip, "bin blue") for clip in clips], {"s1": 3})
    data.write_split(tmp_path, "train", utterances, data.word_tokenizer())
    assert [clip.id for clip in read_manifest(tmp_path / "train.tsv")] == [
        "s1/x", "s1/x_copy2", "s1/x_copy3", "s4/x",
    ]  # fmt: skip
    assert (tmp_path / "train.wrd").read_text(encoding="utf-8") == "bin blue\n" * 4


def test_shipping_writes_a_small_model_with_its_attribution(tmp_path: Path) -> None:
    size = script("ship_builtin").ship(builtin.DIRECTORY, out=tmp_path / "model", ctc_weight=0.2)
    assert size <= 8_000_000
    shipped = load_recognizer(tmp_path / "model")
    assert shipped.decode_settings.ctc_weight == 0.2
    assert shipped.metadata.license == "apache-2.0"
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "M. Cooke, J. Barker, S. Cunningham and X. Shao" in card
    assert "CC BY 4.0" in card
    assert "/tmp" not in (tmp_path / "model" / "config.json").read_text(encoding="utf-8")
