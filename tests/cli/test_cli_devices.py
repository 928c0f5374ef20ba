"""`--device` and `--precision`: which commands have them, and one sentence with exit code 2 for what is not there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from avhubert.cli.app import main, parser

pytestmark = pytest.mark.quick

WITH_MODEL = ("cluster", "features")
COMMANDS = (*WITH_MODEL, "evaluate", "pseudo-label", "serve", "transcribe")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from avhubert.checkpoints.directory import save_model
    from avhubert.config.schema import ModelConfig
    from avhubert.model.encoder import AVHubert

    sizes = {"encoder_layers": 1, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 64, "encoder_attention_heads": 2}
    config = ModelConfig(visual_width=8, visual_blocks=[1] * 4, conv_pos=8, conv_pos_groups=4, **sizes)
    path = tmp_path_factory.mktemp("model")
    save_model(path, AVHubert(config))
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_that_run_a_model_choose_device_and_precision(command: str) -> None:
    action = next(action for action in parser()._actions if isinstance(action.choices, dict))
    usage = action.choices[command].format_usage()
    assert "--device" in usage
    assert "--precision" in usage


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "tpu"), "unknown device 'tpu'; choose one of: auto, cpu, cuda, cuda:N, mps"),
        (("--device", "cuda:99"), "device 'cuda:99' is not on this machine; it has: cpu"),
        (("--precision", "fp8"), "unknown precision 'fp8'; choose one of: auto, fp32, bf16, fp16"),
        (("--device", "cpu", "--precision", "fp16"), "precision fp16 needs a GPU"),
    ],
)
@pytest.mark.parametrize("command", WITH_MODEL)
def test_what_is_not_there_is_one_sentence_and_exit_code_2(
    command: str,
    options: tuple[str, ...],
    message: str,
    model: Path,
    data_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = {
        "cluster": ["cluster", str(data_dir), "--features", f"{model}:1", "--clusters", "2"],
        "features": ["features", str(data_dir), "--model", str(model)],
    }[command]
    assert main([*arguments, "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("avhubert: ")
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_the_chosen_device_is_reported_on_stderr(
    model: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("avhubert.devices._logged", set())
    out = tmp_path / "out"
    for _ in range(2):
        assert main(["features", str(data_dir), "--model", str(model), "--split", "test", "--out", str(out)]) == 0
        shutil.rmtree(out)
    printed = capsys.readouterr()
    assert printed.err.count("avhubert: computing on ") == 1
    assert "computing" not in printed.out
