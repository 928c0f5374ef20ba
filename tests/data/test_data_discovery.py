"""The walk through folders of recordings: extensions, links, system folders, outputs of this package."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from avhubert.data.audio import write_wav
from avhubert.data.discovery import (
    AUDIO_EXTENSIONS,
    MEDIA_EXTENSIONS,
    VIDEO_EXTENSIONS,
    Skipped,
    describe_skipped,
    find_recordings,
)
from avhubert.data.video import write_video

pytestmark = pytest.mark.quick


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names_of(root: Path, **options: object) -> list[str]:
    return [path.relative_to(root).as_posix() for path in find_recordings(root, **options).files]  # type: ignore[arg-type]


def skipped_of(root: Path) -> dict[str, str]:
    return {item.path.relative_to(root).as_posix(): item.reason for item in find_recordings(root).skipped}


def test_extensions_of_cameras_phones_recorders_and_downloads() -> None:
    names = (
        "mp4 MTS m2ts 3gp 3g2 ogv vob mxf ts mpg mpeg dv webm mkv avi mov wmv flv m4v qt asf opus ogg flac m4a aac wma"
        " aiff amr ac3 mka caf m4b weba wav mp3 mp2 rm rmvb divx f4v mod tod m2v"
    )
    assert {f".{name.lower()}" for name in names.split()} <= MEDIA_EXTENSIONS
    assert not VIDEO_EXTENSIONS & AUDIO_EXTENSIONS


def test_extensions_in_any_case_sorted(tmp_path: Path) -> None:
    make(tmp_path, "b.MTS", "a/Clip.Mp4", "a.b.c.wav", "notes.txt", "talk.srt", "cover.JPG", "Thumbs.db")
    assert names_of(tmp_path) == ["a/Clip.Mp4", "a.b.c.wav", "b.MTS"]
    assert names_of(tmp_path, extensions=VIDEO_EXTENSIONS) == ["a/Clip.Mp4", "b.MTS"]
    assert skipped_of(tmp_path) == {}
    [sound] = find_recordings(tmp_path, VIDEO_EXTENSIONS).skipped
    assert (sound.path.name, sound.reason) == ("a.b.c.wav", "an audio file")


def test_what_a_user_may_expect_to_be_read_is_named(tmp_path: Path) -> None:
    make(tmp_path, "noending", "talk.xyz", "talk.mp4.crdownload", "all.zip")
    assert skipped_of(tmp_path) == {
        "all.zip": "the extension .zip is not one of a recording; name the file to read it",
        "noending": "a name without extension; name the file to read it",
        "talk.mp4.crdownload": "the extension .crdownload is not one of a recording; name the file to read it",
        "talk.xyz": "the extension .xyz is not one of a recording; name the file to read it",
    }


def test_recordings_without_extension_are_recognised_by_content(tmp_path: Path) -> None:
    write_wav(tmp_path / "sound.wav", np.zeros(400, np.int16))
    (tmp_path / "sound.wav").rename(tmp_path / "sound")
    write_video(tmp_path / "video.mp4", [np.zeros((16, 16), np.uint8)])
    (tmp_path / "video.mp4").rename(tmp_path / "videoplayback")
    make(tmp_path, "LICENSE", "text", "folder/noending")
    assert names_of(tmp_path) == ["sound", "videoplayback"]
    assert names_of(tmp_path, extensions=VIDEO_EXTENSIONS) == ["videoplayback"]
    assert list(skipped_of(tmp_path)) == ["folder/noending", "text"]


def test_hidden_files_and_system_folders_are_ignored(tmp_path: Path) -> None:
    make(
        tmp_path,
        *("talk.mp4", "._talk.mp4", "__MACOSX/talk.mp4", ".Trash/old.mp4", "@eaDir/talk.mp4", "$RECYCLE.BIN/x.mp4"),
        ".talk.abcdefgh.part.mp4",
    )
    assert names_of(tmp_path) == ["talk.mp4"]
    assert skipped_of(tmp_path) == {}


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make(tmp_path, "root/real/a.mp4", "outside/b.mp4", "outside/deep/c.mp4")
    (root / "a link").symlink_to(root / "real")  # sorts before the folder itself, whose names must stay
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "out again").symlink_to(tmp_path / "outside" / "deep")
    (root / "real" / "loop").symlink_to(root)
    (root / "above").symlink_to(tmp_path)
    (tmp_path / "outside" / "back").symlink_to(root)
    (root / "link.mp4").symlink_to(root / "real" / "a.mp4")
    (root / "gone.mp4").symlink_to(tmp_path / "nowhere")
    (root / "self.mp4").symlink_to(root / "self.mp4")
    assert names_of(root) == ["link.mp4", "out/b.mp4", "out/deep/c.mp4", "real/a.mp4"]
    skipped = skipped_of(root)
    assert skipped.pop("self.mp4").startswith("cannot be read: ")
    assert skipped == {
        "above": "a link to a folder that contains it",
        "gone.mp4": "a link to a file that does not exist",
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    make(tmp_path, "folder.mp4/a.mp4")
    assert names_of(tmp_path) == ["folder.mp4/a.mp4"]
    assert skipped_of(tmp_path) == {"pipe.mp4": "not a regular file"}


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
def test_a_folder_without_permission_is_named() -> None:
    nobody, user = 65534, os.geteuid()
    with tempfile.TemporaryDirectory() as name:  # other users cannot enter pytest's folders
        folder = Path(name)
        make(folder, "closed/a.mp4", "b.mp4")
        folder.chmod(0o755)
        (folder / "closed").chmod(0)
        if user == 0:  # every folder can be read
            os.seteuid(nobody)
        try:
            assert names_of(folder) == ["b.mp4"]
            assert skipped_of(folder) == {"closed": "a folder that cannot be read: Permission denied"}
        finally:
            os.seteuid(user)
            (folder / "closed").chmod(0o755)


def test_outputs_of_this_package_are_no_inputs(tmp_path: Path) -> None:
    make(tmp_path, "talk.mp4", "talk.captioned.mp4", "prepared/journal/0-of-1.jsonl", "prepared/video/talk.mp4")
    make(tmp_path, "noise/babble/train/babble_00000.wav", "common voice/clips/1.mp3")
    (tmp_path / "noise" / "train.tsv").write_text(f"{tmp_path}/noise/babble/train/babble_00000.wav\n", encoding="utf-8")
    (tmp_path / "common voice" / "train.tsv").write_text("client_id\tpath\tsentence\n", encoding="utf-8")
    assert names_of(tmp_path) == ["common voice/clips/1.mp3", "talk.mp4"]
    assert skipped_of(tmp_path) == {
        "noise": "a folder that avhubert wrote; name it to read it",
        "prepared": "a folder that avhubert wrote; name it to read it",
        "talk.captioned.mp4": "a captioned video that avhubert wrote; name it to read it",
    }
    assert names_of(tmp_path / "prepared") == ["video/talk.mp4"]
    assert names_of(tmp_path, without=[tmp_path / "common voice"]) == ["talk.mp4"]


def test_skipped_files_are_counted_by_reason(tmp_path: Path) -> None:
    skipped = [Skipped(tmp_path / f"{number}.xyz", "reason") for number in range(22)]
    [line] = describe_skipped(skipped, tmp_path)
    assert line.startswith("skipped 22 (reason): 0.xyz, 1.xyz,")
    assert line.endswith("19.xyz and 2 more")
    assert describe_skipped(skipped[:1]) == [f"skipped 1 (reason): {tmp_path / '0.xyz'}"]


def test_the_documentation_lists_the_extensions() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    video, audio = page.split("\nVideo:\n")[1].split("\n\n")[:2]
    assert set(re.findall(r"`(\.\w+)`", video)) == VIDEO_EXTENSIONS
    assert set(re.findall(r"`(\.\w+)`", audio.removeprefix("Audio:"))) == AUDIO_EXTENSIONS
