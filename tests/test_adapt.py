"""From English to another language and alphabet, command by command, as docs/how-to/add-a-language.md has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avhubert.checkpoints.load import load_recognizer
from avhubert.cli.app import main
from avhubert.data.tokenizer import Tokenizer

SHORT = ["seed=1", "train.max_steps=2", "train.frames_per_step=80", "train.frames_per_batch=80", "train.save_every=2"]


@pytest.mark.slow
def test_a_model_of_english_learns_to_write_russian(
    data_dir: Path, labels_dir: Path, small_model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> str:
        assert main([str(one) for one in arguments]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    english, data = tmp_path / "english", tmp_path / "ru" / "433h"
    more = ["data.max_frames=400", "train.log_every=1", *SHORT]
    pretrain = ["pretrain", "--config-name", "tiny_iter1", *more]
    run(*pretrain, *small_model, f"run_dir={english}", f"data.dir={data_dir}", f"data.labels={labels_dir}")
    run("synth", tmp_path / "corpus", "--clips", 5, "--speakers", 3, "--language", "ru", "--workers", 1)
    run("prepare", "lrs3", tmp_path / "corpus", tmp_path / "ru", "--workers", 1, "--vocab-size", 60)
    # the clusters that the English model learned, on the new corpus: its heads are kept
    run("cluster", data, "--features", "mfcc", "--like", labels_dir, "--out", tmp_path / "labels")
    said = run(
        *pretrain, *small_model, f"run_dir={tmp_path / 'continued'}", f"data.dir={data}",
        f"data.labels={tmp_path / 'labels'}", f"model.pretrained={english}",
    )  # fmt: skip
    assert "made anew" not in said
    run(
        "finetune", "--config-name", "tiny", *more, f"run_dir={tmp_path / 'tuned'}", f"data.dir={data}",
        f"model.pretrained={tmp_path / 'continued'}", "model.decoder.layers=1", "model.decoder.attention_heads=2",
        "model.decoder.ffn_embed_dim=64", "decode.max_len_a=0", "decode.max_len_b=5",
    )  # fmt: skip
    told = run("evaluate", tmp_path / "tuned", data, "--modality", "v", "--out", tmp_path / "eval")
    assert "CER" in told
    texts = (data / "train.wrd").read_text(encoding="utf-8").splitlines()
    letters = {char for text in texts for char in text.lower() if char != " "}
    assert letters
    assert letters <= set("абвгдеёжзийклмнопрстуфхцчшщъыьэюя")
    tokenizer = load_recognizer(tmp_path / "tuned").tokenizer
    assert isinstance(tokenizer, Tokenizer)
    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == [text.lower() for text in texts]
    rows = json.loads((tmp_path / "eval" / "hypotheses-v-clean.json").read_text(encoding="utf-8"))
    assert rows
    assert not any("a" <= char <= "z" for row in rows for char in row["hypothesis"])
