"""Atomic writing, locks, hashes, and the errors for what cannot be read or written."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from avhubert import files
from avhubert.errors import ConfigError, DataError

pytestmark = pytest.mark.quick


def test_atomic_path_keeps_the_old_file_and_leaves_nothing_when_the_block_fails(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    target.write_text("old", encoding="utf-8")

    def half_way() -> None:
        with files.atomic_path(target) as temporary:
            assert temporary.suffix == ".mp4"  # writers choose the format by it
            temporary.write_text("half", encoding="utf-8")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_way()
    assert target.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_atomic_path_replaces_and_honours_the_umask(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.txt", "è")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "è"
    plain = tmp_path / "plain"
    plain.write_text("", encoding="utf-8")
    assert (tmp_path / "a.txt").stat().st_mode == plain.stat().st_mode


def test_atomic_directory_replaces_the_whole_directory(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    with files.atomic_directory(target) as temporary:
        (temporary / "new").touch()
        assert (target / "old").exists()
    assert os.listdir(target) == ["new"]
    assert os.listdir(tmp_path) == ["model"]


def test_atomic_directory_leaves_nothing_when_the_block_fails(tmp_path: Path) -> None:
    def half_way() -> None:
        with files.atomic_directory(tmp_path / "model"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_way()
    assert os.listdir(tmp_path) == []


WRITER = """
import sys, time
from pathlib import Path
from avhubert import files
kind, target = sys.argv[1:]
with getattr(files, kind)(Path(target)) as temporary:
    (temporary / "half" if temporary.is_dir() else temporary).write_text("half", encoding="utf-8")
    print("writing", flush=True)
    time.sleep(60)
"""


def start_writer(kind: str, target: Path) -> subprocess.Popen[bytes]:
    """A process that is in the middle of writing `target`."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, kind, str(target)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"writing\n"
    return writer


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not rename open files")
@pytest.mark.parametrize("kind", ["atomic_path", "atomic_directory"])
def test_what_a_killed_process_left_is_removed_by_the_next_write_of_the_same_name(tmp_path: Path, kind: str) -> None:
    target, other = tmp_path / "long.name.wav", tmp_path / "other.wav"
    killed = [start_writer(kind, target), start_writer(kind, other)]
    for writer in killed:
        writer.kill()
        writer.communicate()
    living = start_writer(kind, target)
    try:
        assert len(os.listdir(tmp_path)) == 2, "the living one has removed what was left of its name"
        with getattr(files, kind)(target):
            pass
        left = sorted(os.listdir(tmp_path))
        assert len(left) == 3, "what is being written stays, and the leftovers of other names"
        assert [name.rpartition(".wav")[0][:6] for name in left if name != target.name] == [".long.", ".other"]
    finally:
        living.kill()
        living.communicate()


def test_the_only_copy_of_a_replaced_directory_stays(tmp_path: Path) -> None:
    """A process was killed after it had moved the old directory away."""
    target, old = tmp_path / "model", tmp_path / ".model.abcd_123.old"
    (old / "was").mkdir(parents=True)
    with files.atomic_directory(target):
        pass
    assert old.exists()
    files._temporaries.cache_clear()
    with files.atomic_directory(target):
        pass
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.skipif(sys.platform == "win32", reason="flock is of Unix")
def test_without_locks_files_are_written_and_leftovers_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def flock(handle: object, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / ".a.abcd1234.part.txt").touch()
    files.write_text(tmp_path / "a.txt", "a")
    assert sorted(os.listdir(tmp_path)) == [".a.abcd1234.part.txt", "a.txt"]


def test_read_json_names_a_missing_and_a_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*gone\.json: No such file"):
        files.read_json(tmp_path / "gone.json")
    (tmp_path / "torn.json").write_text('{"a": ', encoding="utf-8")
    with pytest.raises(DataError, match=r"torn\.json is not valid JSON"):
        files.read_json(tmp_path / "torn.json")


def test_read_json_refuses_what_would_take_all_memory_or_time(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(DataError, match=r"deep\.json is not valid JSON \(its values are nested too deeply\)"):
        files.read_json(tmp_path / "deep.json")
    with open(tmp_path / "zeros.json", "wb") as handle:
        handle.truncate(10 << 30)
    with pytest.raises(DataError, match=r"zeros\.json is not valid JSON \(.* zero bytes\)"):
        files.read_json(tmp_path / "zeros.json")
    with pytest.raises(OSError, match="larger than 1 MB"):
        files.read_bytes(tmp_path / "zeros.json", 1 << 20)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are not files on this system")
def test_read_json_refuses_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DataError, match=r"cannot read .*pipe\.json: it is a pipe or a device, not a file"):
        files.read_json(tmp_path / "pipe.json")
    with pytest.raises(OSError, match="it is a pipe or a device"):
        files.read_bytes(tmp_path / "pipe.json", 10)


def test_read_json_object_refuses_other_values(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(DataError, match=r"list\.json does not hold names and values"):
        files.read_json_object(tmp_path / "list.json")


def test_read_json_lines_marks_the_torn_ones(tmp_path: Path) -> None:
    """A line separator inside a text does not end a line, and a kill can fall into a character."""
    lines = '{"text": "a\u2028b"}\n{"text"\n[1]\n'.encode() + '{"text": "é'.encode()[:-1]
    (tmp_path / "torn.jsonl").write_bytes(lines)
    assert list(files.read_json_lines(tmp_path / "torn.jsonl")) == [{"text": "a\u2028b"}, None, [1], None]


def test_output_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write to the output folder .*file/out: Not a directory"):
        files.output_directory(tmp_path / "file" / "out")


def _hold(path: Path, locked, release) -> None:
    with files.lock_directory(path):
        locked.set()
        release.wait(20)


def test_a_second_process_is_refused_and_a_dead_one_frees_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    locked, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, locked, release))
    holder.start()
    assert locked.wait(30)
    with pytest.raises(ConfigError, match="in use by another process"), files.lock_directory(tmp_path):
        pass
    holder.kill()
    holder.join()
    with files.lock_directory(tmp_path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="flock is of Unix")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fcntl

    def flock(handle: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    for _ in range(2):
        with files.lock_directory(tmp_path):
            pass
    assert [record.message for record in caplog.records] == [
        f"{tmp_path} cannot be locked ({os.strerror(number)}); make sure that no other process writes to it"
    ]


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 500_000)
    assert files.sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 500_000).hexdigest()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AVHUBERT_CACHE", str(tmp_path / "file"))
    wanted = (
        r"cannot write to the cache folder .*file/cuts: Not a directory; set AVHUBERT_CACHE to a folder that you can"
    )
    with pytest.raises(ConfigError, match=wanted):
        files.cache_directory("cuts")


def test_cache_directory_is_chosen_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVHUBERT_CACHE", str(tmp_path / "c"))
    assert files.cache_directory("models") == tmp_path / "c" / "models"
    monkeypatch.delenv("AVHUBERT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert files.cache_directory("models") == tmp_path / "x" / "avhubert" / "models"
    assert (tmp_path / "x" / "avhubert" / "models").is_dir()
