"""The command line: quick help, an example each, and one sentence with an exit code for every wrong use."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avhubert.cli.app import main, parser
from avhubert.cli.arguments import parse_shard
from avhubert.cli.output import terminal_logging
from avhubert.errors import ConfigError

pytestmark = pytest.mark.quick

COMMANDS = sorted(next(action for action in parser()._actions if hasattr(action, "choices") and action.choices).choices)


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "avhubert.cli", *arguments], capture_output=True, text=True, env=os.environ
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from avhubert.cli.app import parser; parser().format_help(); "
        "print([m for m in ('torch', 'av', 'numpy', 'lightning_fabric', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_help_lists_every_command() -> None:
    started = time.perf_counter()
    done = run("--help")
    assert done.returncode == 0
    assert time.perf_counter() - started < 10  # generous: this only guards against loading torch on a slow machine
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_on_one_screen_with_an_example(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"Example: avhubert {command}" in " ".join(text.split())
    assert len(text.splitlines()) <= 40


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_characters_that_the_terminal_lacks_are_escaped(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stderr", errors)
    assert main(["info", "emoji \U0001f600"]) == 1
    assert b"emoji \\U0001f600" in errors.buffer.getvalue()


def test_no_command_shows_the_help_and_fails(capsys: pytest.CaptureFixture) -> None:
    assert main([]) == 2
    assert "Start with: avhubert transcribe --sample" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.count(".") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["synth"], "DIR"),
        (["synth", "x", "--clips", "0"], "0 is not a whole number of at least 1"),
        (["prepare", "lrs4", "a", "b"], "lrs4"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(arguments, words, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("avhubert: ")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "3", "a/b", "2/2", "-1/2", "0/0"])
def test_a_wrong_shard_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="is not of the form I/N"):
        parse_shard(text)


def test_a_right_shard() -> None:
    assert parse_shard("1/4") == (1, 4)


WRONG_INPUT = [
    (["info", "nowhere"], 1, "nowhere"),
    (["evaluate", "nowhere", "data"], 1, "nowhere"),
    (["evaluate", "m", "d", "--snr", "0"], 2, "--snr needs --noise"),
    (["evaluate", "m", "d", "--noise", "n"], 2, "--noise needs at least one --snr"),
    (["transcribe", "x.mp4", "--model", "nowhere"], 1, "nowhere"),
    (["pretrain", "--config-name", "tinny"], 2, "unknown pretrain preset 'tinny'; known: "),
    (["finetune", "--config-name", "tinny"], 2, "unknown finetune preset 'tinny'; known: "),
    (["cluster", "nowhere", "--features", "mfcc", "--clusters", "4", "--out", "l"], 1, "nowhere"),
    (["noise", "babble", "nowhere", "n"], 1, "nowhere"),
    (["prepare", "folder", "nowhere", "d"], 1, "nowhere"),
    (["features", "nowhere", "--model", "nowhere", "--out", "f"], 1, "nowhere"),
    (["demo", "--out", "file/out"], 2, "cannot write to the output folder"),
    (["synth", "file/out", "--clips", "2"], 2, "cannot write to the output folder"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG_INPUT)
def test_wrong_input_is_one_sentence_and_an_exit_code(
    arguments, code, words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1
    assert os.listdir(tmp_path) == ["file"]  # nothing half-made


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("transcribe x.mp4 --modle m", "there is no option --modle; did you mean --model?"),
        ("transcribe x.mp4 --model m --zzz=1", "there is no option --zzz (see `avhubert transcribe --help`)"),
        ("trancribe x.mp4", "there is no command 'trancribe'; did you mean transcribe? (see `avhubert --help`)"),
        ("xyz", "there is no command 'xyz': demo, synth, prepare, "),
        ("features x.mp4 --out x", "the following arguments are required: --model"),
        ("prepare lrs3 a b --work x", "argument --workers: "),
    ],
)
def test_misspelled_words_get_a_suggestion(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_transcribe_needs_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe"]) == 2
    expected = "avhubert: nothing to transcribe: give a FILE, or --sample for the clip inside the package\n"
    assert capsys.readouterr().err == expected


def test_log_messages_are_printed_while_a_command_runs(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("avhubert.some.module")
    logger.info("before")
    with terminal_logging():
        logger.debug("detail")
        logger.info("progress")
        logger.warning("careful")
        logging.getLogger("avhubert.devices").info("computing on cpu")
    logger.info("after")
    printed = capsys.readouterr()
    assert printed.out == "progress\n"
    assert printed.err == "avhubert: careful\navhubert: computing on cpu\n"


def test_an_interrupted_command_says_how_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("avhubert.tools.info.describe", interrupted)
    assert main(["info", "x"]) == 130
    assert capsys.readouterr().err == "avhubert: interrupted; run the same command again to resume\n"


@pytest.mark.skipif(sys.platform == "win32", reason="the script is for a POSIX shell")
def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    script = f"""exec {{ {sys.executable} -m avhubert.cli doctor; echo "code $?" >&2; }} | true"""
    done = subprocess.run(["bash", "-c", script.replace("exec ", "")], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_an_operation_that_apples_gpu_lacks_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyTorch's own message is raised in place of the command's work: no machine of the tests has this GPU."""
    error = NotImplementedError("The operator 'aten::x' is not currently implemented for the MPS device.")

    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("avhubert.tools.info.describe", fail)
    assert main(["info", "."]) == 2
    message = capsys.readouterr().err
    assert "Apple's GPU (mps) lacks an operation" in message
    assert "--device cpu" in message
    error = NotImplementedError("another")
    with pytest.raises(NotImplementedError, match="another"):
        main(["info", "."])
