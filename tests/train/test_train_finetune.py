"""Fine-tuning's choices: CTC, decoder or both, rates by layer, what chooses the best model, the mean of states."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path

import jiwer
import pytest
import torch
from safetensors.torch import load_file

from avhubert.checkpoints.load import load_recognizer
from avhubert.cli.app import main
from avhubert.config import compose
from avhubert.data.tokenizer import Tokenizer
from avhubert.errors import CheckpointError, ConfigError, DataError
from avhubert.train import finetune
from avhubert.train.average import average
from avhubert.train.state import read_state, state_path

STEPS = 4


@pytest.fixture(scope="module")
def settings(data_dir: Path, small_scratch: list[str]) -> list[str]:
    return [
        *(f"data.dir={data_dir}", "seed=7", f"train.max_steps={STEPS}", "train.frames_per_step=80"),
        *("train.frames_per_batch=80", "train.save_every=1", "train.keep_last=3", "train.validate_every=2"),
        *("train.log_every=1", "optimizer.warmup_steps=1", "decode.max_len_a=0", "decode.max_len_b=6"),
        *small_scratch,
    ]


def tune(settings: list[str], run: Path, *more: str) -> Path:
    return finetune.run(compose("finetune", "tiny", [*settings, f"run_dir={run}", *more]))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def rows(run: Path, split: str) -> list[dict]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in found if row["split"] == split]


@pytest.fixture(scope="module")
def hybrid(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tune(settings, tmp_path_factory.mktemp("hybrid") / "run", "train.best_by=wer")


def built(settings: list[str], data_dir: Path, *more: str) -> finetune.Finetuning:
    config = compose("finetune", "tiny", [*settings, "run_dir=x", *more])
    tokenizer = Tokenizer(data_dir / "tokenizer.model")
    torch.manual_seed(3)
    return finetune.Finetuning(config, finetune.build_recognizer(config, tokenizer, print), tokenizer, ["av"], 40)


# --------------------------------------------------------------------------- decoder, CTC, both
def test_ctc_alone_leaves_the_decoder_and_attention_alone_the_ctc_head(
    settings: list[str], hybrid: Path, tmp_path: Path, data_dir: Path
) -> None:
    ctc = tune(settings, tmp_path / "ctc", "objective.ctc_weight=1", "train.best_by=wer", "optimizer.weight_decay=0.1")
    attention = tune(settings, tmp_path / "attention", "objective.ctc_weight=0")
    first = read_state(ctc, 2)["model"]

    def moved(run: Path, before: dict[str, torch.Tensor], part: str) -> list[bool]:
        after = weights(run)
        return [not torch.equal(after[name], before[name]) for name in after if name.startswith(part)]

    assert not any(moved(ctc, first, "decoder."))
    assert all(moved(ctc, first, "ctc."))
    before = read_state(attention, 2)["model"]
    assert not any(moved(attention, before, "ctc."))
    assert all(moved(attention, before, "decoder.layers.0.fc1"))
    before = read_state(hybrid, 2)["model"]
    assert all(moved(hybrid, before, "ctc."))
    assert all(moved(hybrid, before, "decoder.layers.0.fc1"))
    for row in rows(ctc, "valid"):
        assert {"loss", "ctc", "wer"} <= row.keys()
        assert "accuracy" not in row
        assert row["loss"] == pytest.approx(row["ctc"])
    assert all("ctc" not in row for row in rows(attention, "valid"))
    assert load_recognizer(ctc).metadata.ctc_weight == 1


def test_ctc_alone_is_not_chosen_by_the_decoder(settings: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"leaves the decoder as it is.*give train\.best_by=wer"):
        tune(settings, tmp_path / "run", "objective.ctc_weight=1")
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------------------- the best model
@pytest.mark.parametrize("weight", ["0.3", "1"])
def test_word_errors_are_those_of_greedy_decoding(
    settings: list[str], hybrid: Path, tmp_path: Path, weight: str
) -> None:
    from avhubert.decode.beam_search import beam_search
    from avhubert.train.data import read_split

    more = ["train.best_by=wer", f"objective.ctc_weight={weight}", f"run_dir={tmp_path}"]
    config = compose("finetune", "tiny", [*settings, *more])
    recognizer = load_recognizer(hybrid)
    valid = read_split(config, "valid", print, recognizer.tokenizer)
    task = finetune.Finetuning(config, recognizer, recognizer.tokenizer, ["av"], 40)
    batch = valid.batch(range(len(valid)))
    said = [line.strip() for line in (Path(config.data.dir) / "valid.wrd").read_text(encoding="utf-8").splitlines()]
    with torch.no_grad():
        recognizer.eval()
        sums = {name: float(value) for name, value in task.evaluate(task.prepare(batch, None)).metrics.items()}
        if weight == "1":
            encoded = recognizer.encode(batch.inputs)
            heard = []
            for row, padding in zip(
                recognizer.ctc(encoded).argmax(-1).tolist(), batch.inputs.padding_mask, strict=True
            ):
                kept, before = [], None
                for symbol, over in zip(row, padding.tolist(), strict=True):
                    if not over and symbol != before and symbol != 0:
                        kept.append(symbol)
                    before = symbol
                heard.append(recognizer.tokenizer.decode(kept))
        else:
            recognizer.decode_settings.beam = 1
            mask = batch.inputs.padding_mask
            encoded = recognizer.encode(batch.inputs)
            found = beam_search(recognizer, encoded, mask, recognizer.decode_settings)
            heard = [recognizer.tokenizer.decode(best[0].tokens) for best in found]
    assert sums["words"] == sum(len(text.split()) for text in said)
    assert sums["word_errors"] == pytest.approx(jiwer.wer(said, heard) * sums["words"])


def test_the_fewest_word_errors_choose_the_best(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = iter(["ba mo si", "nothing", "ba", "lu"])
    monkeypatch.setattr(finetune.Finetuning, "_greedy", lambda self, inputs: [next(heard)] * inputs.batch_size)
    run = tune(settings, tmp_path / "run", "train.best_by=wer", "train.validate_every=1")
    found = rows(run, "valid")
    assert len({row["wer"] for row in found}) > 1
    assert all(row["word_accuracy"] == pytest.approx(1 - row["wer"]) for row in found)
    assert load_recognizer(run / "best").metadata.step == min(found, key=lambda row: row["wer"])["step"]


# --------------------------------------------------------------------------- rates by layer
def test_lower_layers_learn_more_slowly(settings: list[str], data_dir: Path) -> None:
    task = built(settings, data_dir, "optimizer.layer_decay=0.5")
    names = {id(parameter): name for name, parameter in task.module.named_parameters()}
    factors = defaultdict(set)
    for group in task.parameter_groups():
        for parameter in group["params"]:
            factors[group.get("factor", 1.0)].add(names.pop(id(parameter)))
    assert not names  # each once, all of them
    assert factors.keys() == {1.0, 0.5, 0.25, 0.125}
    assert all(not name.startswith("encoder.") for name in factors[1.0])
    assert "encoder.encoder.layers.1.fc1.weight" in factors[0.5]
    assert "encoder.encoder.norm.weight" in factors[0.5]
    assert all(name.startswith("encoder.encoder.layers.0.") for name in factors[0.25])
    assert {"encoder.audio.weight", "encoder.visual.stem_conv.weight"} <= factors[0.125]
    groups = built(settings, data_dir).parameter_groups()
    assert [group.get("factor", 1.0) for group in groups] == [1.0, 1.0]


def test_the_rates_are_used_and_go_on_exactly(settings: list[str], tmp_path: Path) -> None:
    more = ["optimizer.layer_decay=0.5"]
    whole = tune(settings, tmp_path / "run", *more)
    optimizer = read_state(whole, STEPS)["optimizer"]
    rates = [group["lr"] for group in optimizer["param_groups"]]
    factors = [group.get("factor", 1.0) for group in optimizer["param_groups"]]
    assert sorted(factors) == [0.125, 0.25, 0.5, 1.0]
    assert rates == pytest.approx([max(rates) * factor for factor in factors])
    parts = tune(settings, tmp_path / "parts", *more)
    for step in (STEPS, STEPS - 1):
        state_path(parts, step).unlink()
    tune(settings, parts, *more)
    assert all(torch.equal(tensor, weights(parts)[name]) for name, tensor in weights(whole).items())


@pytest.mark.parametrize("value", ["0", "1.5"])
def test_wrong_layer_decay(settings: list[str], value: str) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.layer_decay="):
        compose("finetune", "tiny", [*settings, "run_dir=x", f"optimizer.layer_decay={value}"])
    with pytest.raises(ConfigError, match=r"unknown key 'optimizer\.layer_decay'"):
        compose("pretrain", "tiny_iter1", ["run_dir=x", "data.dir=x", "optimizer.layer_decay=0.5"])


# --------------------------------------------------------------------------- the mean of states
def test_the_mean_of_the_last_states(hybrid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["average", str(hybrid), str(tmp_path / "mean"), "--last", "2"]) == 0
    assert "the mean of 2 states, of the steps 4, 3" in capsys.readouterr().out
    states = [read_state(hybrid, step)["model"] for step in (4, 3)]
    for name, tensor in weights(tmp_path / "mean").items():
        one, other = (state[name] for state in states)
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (one + other) / 2)
        else:
            assert torch.equal(tensor, one)
    mean = load_recognizer(tmp_path / "mean")
    assert mean.metadata.averaged == [4, 3]
    assert mean.decode_settings == load_recognizer(hybrid).decode_settings
    assert mean.tokenizer.serialized == load_recognizer(hybrid).tokenizer.serialized
    assert average(hybrid, tmp_path / "all") == [4, 3, 2]
    assert average(hybrid, tmp_path / "one", last=1) == [4]
    assert all(torch.equal(tensor, weights(hybrid)[name]) for name, tensor in weights(tmp_path / "one").items())


def test_what_averaging_refuses(hybrid: Path, settings: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has 3 states, not 5; .*train\.keep_last=5"):
        average(hybrid, tmp_path / "mean", last=5)
    with pytest.raises(ConfigError, match="is the run that is averaged"):
        average(hybrid, hybrid)
    with pytest.raises(CheckpointError, match="has no states"):
        average(tmp_path, tmp_path / "mean")
    run = tune(settings, tmp_path / "run", "train.max_steps=2")
    state_path(run, 1).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"step_1\.pt cannot be read"):
        average(run, tmp_path / "mean")
    other = read_state(hybrid, 2)
    other["model"].popitem()
    torch.save(other | {"step": 1}, state_path(run, 1))
    with pytest.raises(CheckpointError, match=r"step_1\.pt is not a state of the model"):
        average(run, tmp_path / "mean")
    torch.save({"step": 1}, state_path(run, 1))
    with pytest.raises(CheckpointError, match=r"step_1\.pt is not a state that this version wrote"):
        average(run, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


# --------------------------------------------------------------------------- a tokenizer of another language
def test_a_tokenizer_that_does_not_know_the_text_is_refused(
    settings: list[str], data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(data_dir, tmp_path / "data"))
    said = (data / "valid.wrd").read_text(encoding="utf-8").splitlines()
    (data / "valid.wrd").write_text("\n".join(["привет мир", *said[1:]]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"valid\.wrd: \d+ % of the characters are unknown .*'и' \(U\+0438, 2 times\)"):
        tune(settings, tmp_path / "run", f"data.dir={data}")
    assert not (tmp_path / "run").exists()
    (data / "valid.wrd").write_text("\n".join(["ba " * 1000 + "é", *said[1:]]) + "\n", encoding="utf-8")
    tune(settings, tmp_path / "run", f"data.dir={data}", "train.max_steps=1", "train.validate_every=9")
    assert "valid: characters that the tokenizer does not know: 'é' (U+00E9, 1 times)" in capsys.readouterr().out
