"""Corpora to data directories: complete, restartable, independent of the workers; every rejection is reported."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from avhubert.cli.app import main
from avhubert.corpora import folder, lrs3, voxceleb2
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.manifest import read_manifest
from avhubert.data.tokenizer import Tokenizer
from avhubert.data.transcripts import read_phones, read_transcripts
from avhubert.data.video import read_gray, write_video
from avhubert.errors import ConfigError, DataError
from avhubert.files import lock_directory
from avhubert.prepare.pipeline import prepare
from avhubert.prepare.splits import read_valid_ids


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("corpus")
    make_corpus(path, 6, seed=5)
    return path


@pytest.fixture(scope="module")
def prepared(corpus: Path, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("prepared")
    prepare("lrs3", corpus, path, workers=2)
    return path


def relative(directory: Path) -> dict[str, bytes]:
    """Content of every file of the data directories and of the clips, without the root's path."""
    contents = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.suffix in (".tsv", ".wrd", ".phn", ".txt", ".model", ".mp4", ".wav"):
            contents[str(path.relative_to(directory))] = path.read_bytes().replace(str(directory).encode(), b"ROOT")
    return contents


def test_lrs3_gives_complete_data_directories(prepared: Path) -> None:
    sizes = {}
    for name in ("30h", "433h"):
        for split in ("train", "valid", "test"):
            clips = read_manifest(prepared / name / f"{split}.tsv")
            texts = read_transcripts(prepared / name / f"{split}.wrd", clips)
            phones = read_phones(prepared / name / f"{split}.phn")
            sizes[name, split] = len(clips)
            tokenizer = Tokenizer(prepared / name / "tokenizer.model")
            for clip, text, row in zip(clips, texts, phones, strict=True):
                frames = read_gray(clip.video)
                assert frames.shape == (clip.video_frames, 96, 96)
                assert len(row) == clip.video_frames
                assert abs(clip.audio_samples - clip.video_frames * 640) <= 3200
                assert clip.audio.is_file()
                assert len(text.split()) == 6
                if split == "train":
                    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert sizes["30h", "valid"] == 1
    assert sizes["433h", "train"] > sizes["30h", "train"] >= 1
    assert sizes["433h", "test"] >= 1
    assert (prepared / "report.html").stat().st_size > 10_000
    assert (prepared / "rejected.tsv").read_text(encoding="utf-8") == ""


def test_splits_do_not_share_clips(prepared: Path) -> None:
    for name in ("30h", "433h"):
        ids = [
            clip.id for split in ("train", "valid", "test") for clip in read_manifest(prepared / name / f"{split}.tsv")
        ]
        assert len(ids) == len(set(ids))


def test_mouth_motion_matches_the_phones(prepared: Path) -> None:
    """The lips move more during phones than in silence: frames, audio and phones match."""
    clip = read_manifest(prepared / "433h" / "test.tsv")[0]
    row = read_phones(prepared / "433h" / "test.phn")[0]
    frames = read_gray(clip.video).astype(float)
    silent = np.array([phone == "sil" for phone in row])
    lips = frames[:, 40:75, 28:68]
    motion = np.abs(np.diff(lips, axis=0)).mean((1, 2))
    assert motion[~silent[1:]].mean() > 1.5 * motion[silent[1:]].mean()


def test_workers_shards_and_restarts_do_not_change_the_output(corpus: Path, prepared: Path, tmp_path: Path) -> None:
    expected = relative(prepared)
    first = prepare("lrs3", corpus, tmp_path / "shards", workers=1, shard=(0, 2))
    assert first.waiting_for == 3
    assert "wait for 3 clips" in str(first)
    assert not (tmp_path / "shards" / "30h").exists()
    prepare("lrs3", corpus, tmp_path / "shards", workers=1, shard=(1, 2))
    assert relative(tmp_path / "shards") == expected
    # as if killed in the middle of a journal line and of a clip: only these are prepared again
    journal = next((tmp_path / "shards" / "journal").glob("0-of-2.jsonl"))
    journal.write_text(journal.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    untouched = read_manifest(tmp_path / "shards" / "433h" / "train.tsv")[0].video
    before = untouched.stat().st_mtime_ns
    deleted = read_manifest(tmp_path / "shards" / "433h" / "test.tsv")[0].video
    deleted.unlink()
    prepare("lrs3", corpus, tmp_path / "shards", workers=1)
    assert untouched.stat().st_mtime_ns == before
    assert relative(tmp_path / "shards") == expected


def write_still(
    path: Path, seconds: float = 0.6, face: bool = True, has_audio: bool = True, audio_seconds: float | None = None
) -> None:
    image = skimage.data.astronaut() if face else np.full((224, 224, 3), 90, np.uint8)
    samples = np.zeros(round(16_000 * (audio_seconds or seconds)), np.int16) if has_audio else None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, [image] * round(25 * seconds), audio=samples)


def transcript(video: Path, text: str = "HELLO THERE") -> None:
    video.with_suffix(".txt").write_text(f"Text:  {text}\nConf:  5\n", encoding="utf-8")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
def test_names_that_are_no_text_and_very_long_ones(tmp_path: Path) -> None:
    src, names = tmp_path / "src", [b"caf\xe9", b"tab\tname", b"x" * 251, "emoji 😀".encode(), b"12:30"]
    write_still(src / "plain.mp4")
    for name in names:
        shutil.copy(src / "plain.mp4", src / f"{os.fsdecode(name)}.mp4")
    (src / os.fsdecode(b"bad\xe9.mp4")).write_text("not a video", encoding="utf-8")
    assert prepare("folder", src, tmp_path / "dst", workers=2).usable == 6
    clips = [clip for split in ("train", "valid", "test") for clip in read_manifest(tmp_path / "dst" / f"{split}.tsv")]
    assert all(clip.video.is_file() and clip.audio.is_file() for clip in clips)
    assert {"caf%E9", "tab%09name", "plain", "emoji 😀", "12:30"} < {clip.id for clip in clips}
    assert (tmp_path / "dst" / "rejected.tsv").read_text(encoding="utf-8").startswith("bad%E9\tthe file cannot be read")


def test_files_that_are_no_videos_are_named_and_do_not_count(tmp_path: Path) -> None:
    src = tmp_path / "src"
    write_still(src / "talk.mp4")
    write_still(src / "other.M4V")
    for name in ("a.xyz", "b.zip", "noending", "c.mp3"):
        (src / name).touch()
    summary = prepare("folder", src, tmp_path / "dst", workers=1, max_rejected=0)
    assert summary.usable == 2
    assert not summary.rejected
    assert "4 files and folders are no videos; rejected.tsv names each with its reason" in str(summary)
    rows = (tmp_path / "dst" / "rejected.tsv").read_text(encoding="utf-8").splitlines()
    assert [row.split("\t")[0] for row in rows] == ["a.xyz", "b.zip", "c.mp3", "noending"]
    assert "2 clips, 0.00 hours, are ready; 0 inputs were rejected" in (tmp_path / "dst" / "report.html").read_text(
        encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="is the corpus itself; choose another output folder"):
        prepare("folder", src, src)


def test_rejected_inputs_are_listed_with_their_reason(tmp_path: Path) -> None:
    src = tmp_path / "src"
    for name in ("good1", "good2"):
        write_still(src / "trainval" / "s" / f"{name}.mp4")
        transcript(src / "trainval" / "s" / f"{name}.mp4")
    cases = {
        "noface": ({"face": False}, "no face was found"),
        "silent": ({"has_audio": False}, "no audio track"),
        "short": ({"seconds": 0.12}, "too short (3 frames)"),
        "longer": ({"audio_seconds": 1.4}, "audio and video differ in length (+0."),
    }
    for name, (options, _) in cases.items():
        write_still(src / "trainval" / "s" / f"{name}.mp4", **options)
        transcript(src / "trainval" / "s" / f"{name}.mp4")
    write_still(src / "trainval" / "s" / "notext.mp4")
    (src / "trainval" / "s" / "text.mp4").write_text("not a video", encoding="utf-8")
    transcript(src / "trainval" / "s" / "text.mp4")
    summary = prepare("lrs3", src, tmp_path / "dst", workers=1, max_rejected=0.75)
    reasons = dict(
        line.split("\t") for line in (tmp_path / "dst" / "rejected.tsv").read_text(encoding="utf-8").splitlines()
    )
    assert len(reasons) == 6
    for name, (_, words) in cases.items():
        assert words in reasons[f"trainval/s/{name}"]
    assert reasons["trainval/s/notext"] == "the transcript notext.txt is missing"
    assert "cannot be read as a video" in reasons["trainval/s/text"]
    assert summary.usable == 2
    assert summary.rejected.total() == 6
    assert "6 inputs were rejected" in str(summary)
    listed = [
        clip.id for split in ("train", "valid") for clip in read_manifest(tmp_path / "dst" / "30h" / f"{split}.tsv")
    ]
    assert sorted(listed) == ["trainval/s/good1", "trainval/s/good2"]
    assert not list((tmp_path / "dst" / "video").rglob("noface*"))


def test_error_without_usable_clips_names_the_first_rejection(tmp_path: Path) -> None:
    write_still(tmp_path / "src" / "a.mp4", face=False)
    with pytest.raises(DataError, match=r"none of the 1 clips of .* can be used; the first, a: no face was found"):
        prepare("folder", tmp_path / "src", tmp_path / "dst", workers=1)
    assert not (tmp_path / "dst" / "train.tsv").exists()


def test_folder_uses_transcripts_beside_the_videos(corpus: Path, tmp_path: Path) -> None:
    src = tmp_path / "src"
    src.mkdir()
    for number, video in enumerate(sorted(corpus.rglob("*.mp4"))[:5]):
        shutil.copy(video, src / f"clip{number}.mp4")
        if number:
            (src / f"clip{number}.txt").write_text(f"number {number}\n", encoding="utf-8")
    summary = prepare("folder", src, tmp_path / "dst", workers=2)
    splits = {split: read_manifest(tmp_path / "dst" / f"{split}.tsv") for split in ("train", "valid", "test")}
    assert sorted(len(clips) for clips in splits.values()) == [1, 1, 2]
    assert "clip0\tno transcript beside it" in (tmp_path / "dst" / "rejected.tsv").read_text(encoding="utf-8")
    assert summary.usable == 4
    texts = read_transcripts(tmp_path / "dst" / "test.wrd", splits["test"])
    assert texts == [f"number {splits['test'][0].id[-1]}"]


@pytest.mark.parametrize("corpus_name", ["lrs3", "vox2", "folder"])
def test_an_empty_or_missing_folder_is_an_error(tmp_path: Path, corpus_name: str) -> None:
    for src in (tmp_path / "gone", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=str(src)):
            prepare(corpus_name, src, tmp_path / "dst")
        assert not (tmp_path / "dst").exists()


def test_an_unknown_corpus_or_a_locked_folder_is_an_error(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(DataError, match="unknown corpus 'lrs2'; known: folder, grid, lrs3, vox2"):
        prepare("lrs2", corpus, tmp_path)
    with lock_directory(tmp_path), pytest.raises(ConfigError, match="in use by another process"):
        prepare("lrs3", corpus, tmp_path)


def test_existing_mouth_clips_are_copied(prepared: Path, tmp_path: Path) -> None:
    src, dst = tmp_path / "my clips", tmp_path / "dst"
    src.mkdir()
    clips = read_manifest(prepared / "433h" / "train.tsv")[:3]
    for number, clip in enumerate(clips):
        shutil.copy(clip.video, src / f"{number}.mp4")
        shutil.copy(clip.audio, src / f"{number}.wav")
    write_video(src / "fast.mov", read_gray(clips[0].video), rate=50)  # half the length of its audio
    shutil.copy(clips[0].audio, src / "fast.wav")
    summary = prepare("folder", src, dst, workers=1)
    assert summary.rejected == {"audio and video differ in length": 1}
    prepared_clips = {
        clip.id: clip for split in ("train", "valid", "test") for clip in read_manifest(dst / f"{split}.tsv")
    }
    for number, clip in enumerate(clips):
        prepared_clip = prepared_clips[str(number)]
        assert prepared_clip.video.read_bytes() == clip.video.read_bytes()
        assert (prepared_clip.video_frames, prepared_clip.audio_samples) == (clip.video_frames, clip.audio_samples)


def test_valid_list_decides_the_validation_clips(corpus: Path, prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, tmp_path / "dst")  # with finished clips
    clips, _ = lrs3.find(corpus)
    chosen = next(clip.id for clip in clips if clip.split == "trainval")
    (tmp_path / "valid.txt").write_text(f"{chosen}.mp4\n\n", encoding="utf-8")
    prepare("lrs3", corpus, tmp_path / "dst", workers=2, valid_list=tmp_path / "valid.txt")
    for name in ("30h", "433h"):
        assert [clip.id for clip in read_manifest(tmp_path / "dst" / name / "valid.tsv")] == [chosen]
        assert chosen not in [clip.id for clip in read_manifest(tmp_path / "dst" / name / "train.tsv")]


def test_wrong_lists_are_errors(corpus: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    test = next(clip.id for clip in lrs3.find(corpus)[0] if clip.split == "test")
    for content, words in [
        (
            "trainval/nobody/1\n",
            "names 1 ids that the corpus has neither in pretrain/ nor in trainval/, such as 'trainv",
        ),
        (f"{test}\n", "such as 'test/"),
        ("", "contains no ids; write one per line"),
    ]:
        ids.write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=words):
            prepare("lrs3", corpus, tmp_path / "dst", valid_list=ids)
    with pytest.raises(DataError, match=r"cannot read .*gone: No such file"):
        prepare("vox2", corpus, tmp_path / "dst", english_ids=tmp_path / "gone")
    with pytest.raises(ConfigError, match="--valid-list is for the corpus lrs3, not for folder"):
        prepare("folder", corpus, tmp_path / "dst", valid_list=ids)
    with pytest.raises(ConfigError, match="--english-ids is for the corpus vox2, not for lrs3"):
        prepare("lrs3", corpus, tmp_path / "dst", english_ids=ids)
    assert not (tmp_path / "dst").exists()


def test_a_listed_video_stands_for_all_its_clips(tmp_path: Path) -> None:
    words = "".join(f"W{i} {2 * i} {2 * i + 1}.0 1\n" for i in range(9))
    for number in range(2):
        path = tmp_path / "pretrain" / "s" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"Text: {' '.join(f'W{i}' for i in range(9))}\nConf: 1\n\nWORD START END ASDSCORE\n{words}",
            encoding="utf-8",
        )
        path.with_suffix(".mp4").touch()
    (tmp_path / "ids").write_text("pretrain/s/1\n", encoding="utf-8")
    listing = lrs3.find(tmp_path)
    assert len(listing.clips) == 18
    listed = read_valid_ids(tmp_path / "ids", listing)
    assert listed == {f"pretrain/s/1_{i:02d}" for i in range(9)}


# --------------------------------------------------------------------------- corpora
def test_only_long_pretrain_clips_are_split_at_silences() -> None:
    words = [lrs3.Word("a", 0.1, 1.0), lrs3.Word("b", 1.5, 2.0), lrs3.Word("c", 2.3, 14.9)]
    assert lrs3.split_at_silences(words) == [(0.0, None, "a b c")]
    words[-1] = lrs3.Word("c", 2.3, 15.0)
    assert lrs3.split_at_silences(words) == [(0.0, 1.25, "a"), (1.25, None, "b c")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "does not begin with 'Text:'"),
        ("HELLO\n", "does not begin with 'Text:'"),
        ("Text:  \n", "is empty"),
        ("Text: A\nConf: 1\n\nWORD START END ASDSCORE\nA x 1.0 1\n", "line 5: 'A x 1.0 1' is not WORD START END"),
    ],
)
def test_a_malformed_transcript_is_an_error(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "t.txt").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        lrs3.read_transcript(tmp_path / "t.txt")


def test_lrs3_finds_splits_texts_and_phones(corpus: Path) -> None:
    clips, rejected = lrs3.find(corpus)
    assert not rejected
    assert {clip.split for clip in clips} == {"pretrain", "trainval", "test"}
    for clip in clips:
        assert clip.phones is not None
        spoken = json.loads(clip.phones.read_text(encoding="utf-8"))
        assert spoken
        assert clip.text == clip.text.lower()


def test_voxceleb2_reads_the_english_list(corpus: Path, tmp_path: Path) -> None:
    for number, video in enumerate(sorted(corpus.rglob("*.mp4"))[:3]):
        target = tmp_path / "dev" / f"id{number}" / "v" / "1.mp4"
        target.parent.mkdir(parents=True)
        shutil.copy(video, target)
    (tmp_path / "english.txt").write_text("dev/id0/v/1\ndev/id2/v/1\n", encoding="utf-8")
    clips, _ = voxceleb2.find(tmp_path)
    assert [clip.split for clip in clips] == ["en", "other", "en"]
    (tmp_path / "other").write_text("dev/id1/v/1\n", encoding="utf-8")
    assert [clip.split for clip in voxceleb2.find(tmp_path, tmp_path / "other")[0]] == ["other", "en", "other"]
    (tmp_path / "english.txt").write_text("dev/id9/v/1\n", encoding="utf-8")
    with pytest.raises(DataError, match="none of the 1 ids"):
        voxceleb2.find(tmp_path)


def test_folder_keeps_given_splits(tmp_path: Path) -> None:
    for name in ("train/a.mp4", "test/b.mov", "c.webm", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    clips, _ = folder.find(tmp_path)
    assert {clip.id: clip.split for clip in clips} == {"train/a": "train", "test/b": "test", "c": ""}


def test_voxceleb2_gives_english_and_all_clips(corpus: Path, tmp_path: Path) -> None:
    src = tmp_path / "vox2"
    names = [
        "dev/mp4/id00012/21Uxsk56VDQ/00001",
        "dev/mp4/id00012/21Uxsk56VDQ/00002",
        "dev/mp4/id00015/0fijmz4vTVU/00001",
        "test/mp4/id00017/01dfn2spqyE/00001",
    ]
    for name, video in zip(names, sorted(corpus.rglob("*.mp4")), strict=False):
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, src / f"{name}.mp4")
    broken = "dev/mp4/id00015/0fijmz4vTVU/00002"
    (src / f"{broken}.mp4").touch()
    english = [names[0], names[1], names[3]]
    (src / "english.txt").write_text("\n".join(english) + "\n", encoding="utf-8")
    command = ["prepare", "vox2", str(src), str(tmp_path / "dst"), "--max-rejected", "0.5", "--workers", "1"]
    assert main(command) == 0
    for directory, expected in (("en", english), ("all", names)):
        clips = {split: read_manifest(tmp_path / "dst" / directory / f"{split}.tsv") for split in ("train", "valid")}
        assert sorted(clip.id for part in clips.values() for clip in part) == expected
        assert all(clips.values())
        assert not (tmp_path / "dst" / directory / "test.tsv").exists()
        assert not list((tmp_path / "dst" / directory).glob("*.wrd"))
        for clip in (*clips["train"], *clips["valid"]):
            assert read_gray(clip.video).shape == (clip.frames, 96, 96)
    (line,) = (tmp_path / "dst" / "rejected.tsv").read_text(encoding="utf-8").splitlines()
    assert line.startswith(f"{broken}\tthe file cannot be read as a video or audio file")
    assert broken in (tmp_path / "dst" / "report.html").read_text(encoding="utf-8")
