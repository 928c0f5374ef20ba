"""`avhubert transcribe`: files, folders, patterns; names of outputs; captions; what is there already."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from avhubert.checkpoints.directory import save_model
from avhubert.cli.app import main
from avhubert.data.audio import write_wav
from avhubert.data.video import probe, write_video
from avhubert.errors import DataError
from avhubert.model.recognizer import Recognizer
from avhubert.transcription.batch import MediaFile, find_files, output_names
from avhubert.transcription.outputs import RECORD, OutputFolder

# ASCII in the terminal and in file names, as in a minimal container
C_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.fixture(scope="module")
def model(recognizer: Recognizer, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("model") / "model"
    assert recognizer.tokenizer is not None
    save_model(folder, recognizer, recognizer.tokenizer.serialized)
    return ["--model", str(folder)]


@pytest.fixture
def tree(talk: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> Path:
    """A folder with sounds, a video below, and other things."""
    root = tmp_path / "talks of Zoë"
    (root / "day 2").mkdir(parents=True)
    pictures, sound = talk
    write_wav(root / "one.wav", sound)
    shutil.copy(root / "one.wav", root / "day 2" / "one.wav")
    write_video(root / "day 2" / "two.mp4", pictures, audio=sound)
    (root / "notes.txt").write_text("no medium", encoding="utf-8")
    return root


def test_folders_and_patterns(tree: Path) -> None:
    found = find_files([tree]).files
    assert [str(file.name) for file in found] == ["day 2/one.wav", "day 2/two.mp4", "one.wav"]
    assert find_files([tree / "one.wav", tree]).files[0].path == tree / "one.wav"
    assert len(find_files([tree / "one.wav", tree]).files) == 3
    assert [str(file.name) for file in find_files([f"{tree}/**/*.wav"]).files] == ["one.wav", "one.wav"]
    with pytest.raises(DataError, match=r"no file matches '.*\.mkv'"):
        find_files([f"{tree}/*.mkv"])
    (tree / "empty").mkdir()
    with pytest.raises(DataError, match="no video or audio file in the folder"):
        find_files([tree / "empty"])
    (tree / "empty" / "talk.xyz").touch()
    with pytest.raises(DataError, match=r"skipped 1 \(the extension .xyz is not one of a recording.*\): talk.xyz"):
        find_files([tree / "empty"])


def test_a_pattern_without_extension_matches_recordings_only(tree: Path) -> None:
    found = find_files([f"{tree}/*"])
    assert [file.path.name for file in found.files] == ["one.wav"]
    assert [item.path.name for item in found.skipped] == ["notes.txt"]
    assert [file.path.name for file in find_files([f"{tree}/*.txt"]).files] == ["notes.txt"]


def test_a_file_given_by_name_is_tried(tree: Path, model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    sound = shutil.copy(tree / "one.wav", tree / "recording no. 2")
    assert main(["transcribe", str(sound), *model, "--modality", "a"]) == 0
    assert main(["transcribe", str(tree / "notes.txt"), *model]) == 1
    assert "notes.txt" in capsys.readouterr().err


def test_a_name_that_begins_with_a_dash(
    tree: Path, model: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tree)
    Path("one.wav").rename("-talk.wav")
    assert main(["transcribe", "-talk.wav", "--model", str(Path(model[1])), "--modality", "a"]) == 0
    assert "-talk.wav" in capsys.readouterr().err


def test_captioned_videos_are_no_inputs_beside_their_originals(tmp_path: Path) -> None:
    for name in ("talk.MP4", "talk.captioned.mp4", "alone.captioned.mp4"):
        (tmp_path / name).touch()
    files = [tmp_path / name for name in ("talk.captioned.mp4", "talk.MP4", "alone.captioned.mp4")]
    found = find_files(files)
    assert [file.path.name for file in found.files] == ["talk.MP4", "alone.captioned.mp4"]
    assert [item.path.name for item in found.skipped] == ["talk.captioned.mp4"]
    assert [file.path.name for file in find_files([tmp_path]).files] == ["talk.MP4"]


def test_outputs_never_share_a_name() -> None:
    files = [
        MediaFile(Path(name), Path(Path(name).name)) for name in ("a/x.mp4", "a/x.wav", "b/y.mp4", "c/y.mp4", "z.mp4")
    ]
    names = [str(name) for name in output_names(files, "srt")]
    assert names == ["x.mp4.srt", "x.wav.srt", "b-y.mp4.srt", "c-y.mp4.srt", "z.srt"]


def test_very_long_names_leave_room_for_endings() -> None:
    files = [MediaFile(Path(name), Path(name)) for name in ("x" * 251 + ".mp4", "x" * 250 + "y.mp4")]
    names = output_names(files, "srt")
    assert len(set(names)) == 2
    assert all(len(f"{name.stem}.captioned.mp4") < 256 for name in names)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "cp1252"}, C_LOCALE, {"PYTHONIOENCODING": "ascii:strict"}]
)
def test_output_in_other_encodings_is_escaped(
    environment: dict[str, str], tree: Path, model: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "names"
    folder.mkdir()
    for name in ("emoji 😀.wav".encode(), b"caf\xe9.wav", "漢字.wav".encode()):
        shutil.copy(tree / "one.wav", folder / os.fsdecode(name))
    (folder / "привет.xyz").touch()
    command = [sys.executable, "-m", "avhubert", "transcribe", str(folder), *model, "--modality", "a"]
    env = os.environ | environment
    for extra in ([], ["--format", "json", "--out", str(tmp_path / "out")]):
        done = subprocess.run([*command, *extra], capture_output=True, env=env, check=False)
        assert done.returncode == 0, done.stderr.decode()
        assert b"Error" not in done.stderr
        assert (b"\\U0001f600" in done.stdout) or (b"\\udcf0\\udc9f" in done.stdout)
        assert b".xyz" in done.stderr
    assert len(list((tmp_path / "out").glob("*.json"))) == 3


def test_two_files_for_one_output_are_refused(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "elsewhere" / "day 2"
    shutil.copytree(tree / "day 2", other)
    files = [str(tree / "day 2" / "one.wav"), str(other / "one.wav")]
    assert main(["transcribe", *files, "--model", "unused", "--out", str(tmp_path / "out")]) == 1
    assert "two files would be written to" in capsys.readouterr().err


def test_a_folder_is_written_as_a_folder(
    tree: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["transcribe", str(tree), *model, "--format", "srt", "--out", str(out), "--burn-in"]) == 0
    shown = capsys.readouterr()
    assert "two.mp4: read from av (audio and lips are both there)" in shown.err
    assert "one.wav has no video to draw captions into" in shown.err
    written = sorted(str(path.relative_to(out)) for path in out.rglob("[!.]*.*"))
    assert written == ["day 2/one.srt", "day 2/two.captioned.mp4", "day 2/two.srt", "one.srt"]
    info = probe(out / "day 2" / "two.captioned.mp4")
    assert (info.width, info.height, info.has_audio) == (224, 224, True)
    (out / "one.srt").write_text("mended by hand", encoding="utf-8")
    (out / "day 2" / "one.srt").unlink()
    again = ["transcribe", str(tree), *model, "--format", "srt", "--out", str(out), "--skip-existing"]
    assert main(again) == 0
    assert "2 of 3 were there already" in capsys.readouterr().err
    assert (out / "one.srt").read_text(encoding="utf-8") == "mended by hand"
    assert (out / "day 2" / "one.srt").exists()


def test_a_second_run_beside_the_sources_makes_what_is_missing(
    tree: Path, model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["transcribe", str(tree), *model, "--out", str(tree)]
    assert main(run) == 0
    assert main([*run, "--burn-in"]) == 0
    (tree / "day 2" / "two.txt").write_text("corrected by hand", encoding="utf-8")
    (tree / "day 2" / "two.captioned.mp4").unlink()
    (tree / "unknown.xyz").touch()
    capsys.readouterr()
    assert main([*run, "--burn-in", "--skip-existing"]) == 0
    err = capsys.readouterr().err
    assert "2 of 3 were there already" in err
    assert "skipped 1 (the extension .xyz is not one of a recording; name the file to read it)" in err
    assert (tree / "day 2" / "two.txt").read_text(encoding="utf-8") == "corrected by hand"
    assert main([*run, "--burn-in", "--skip-existing"]) == 0
    assert "3 of 3 were there already" in capsys.readouterr().err
    written = {path.name for path in tree.rglob("*") if path.is_file()}
    written.remove(RECORD)
    assert written == {"notes.txt", "one.txt", "one.wav", "two.captioned.mp4", "two.mp4", "two.txt", "unknown.xyz"}


def test_files_of_the_user_are_never_replaced(tree: Path, model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run = ["transcribe", str(tree / "one.wav"), *model, "--modality", "a", "--out", str(tree)]
    mine = tree / "one.txt"
    mine.write_text("my notes about this talk", encoding="utf-8")
    assert main(run) == 1
    assert "one.txt was not written by `avhubert transcribe`, or changed since" in capsys.readouterr().err
    assert mine.read_text(encoding="utf-8") == "my notes about this talk"
    assert main([*run, "--format", "srt"]) == 0
    assert main([*run, "--skip-existing"]) == 0
    assert mine.read_text(encoding="utf-8") == "my notes about this talk"
    assert main([*run, "--overwrite"]) == 0
    written = mine.read_text(encoding="utf-8")
    assert written != "my notes about this talk"
    assert main(run) == 0  # its own file
    assert mine.read_text(encoding="utf-8") == written
    mine.write_text("corrected by hand", encoding="utf-8")
    capsys.readouterr()
    assert main(run) == 1
    assert "(--overwrite)" in capsys.readouterr().err
    assert main([*run, "--overwrite", "--skip-existing"]) == 2
    assert "choose one of them" in capsys.readouterr().err


def test_the_record_of_outputs(tmp_path: Path) -> None:
    outputs = OutputFolder(tmp_path)
    (tmp_path / "day").mkdir()
    outputs.write(tmp_path / "day" / "a.txt", "first")
    again = OutputFolder(tmp_path)
    again.write(tmp_path / "day" / "a.txt", "second")
    outputs.write(tmp_path / "day" / "a.txt", "third")  # another command has written the second version
    with open(tmp_path / RECORD, "a", encoding="ascii") as file:
        file.write('{"name": "day/a.t')  # torn
    OutputFolder(tmp_path).check([tmp_path / "day" / "a.txt", tmp_path / "new.txt"])
    for name in ("b.txt", "c.mp4"):
        (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"b\.txt and 1 more files were not written by"):
        outputs.check([tmp_path / "b.txt", tmp_path / "c.mp4"])
    with pytest.raises(DataError, match=r"b\.txt was not written by"):
        outputs.write(tmp_path / "b.txt", "text")
    outputs.write(tmp_path / "b.txt", "mine")  # nothing is lost
    OutputFolder(tmp_path, overwrite=True).check([tmp_path / "c.mp4"])
    outputs.add(tmp_path / "c.mp4")
    outputs.check([tmp_path / "c.mp4"])
    (tmp_path / "d.txt").mkdir()
    with pytest.raises(DataError, match=r"d\.txt was not written by"):
        outputs.check([tmp_path / "d.txt"])


@pytest.mark.parametrize("option", ["--burn-in", "--skip-existing", "--overwrite"])
def test_options_that_write_need_a_folder(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "x.mp4", "--model", "m", option]) == 2
    assert "need --out" in capsys.readouterr().err
