"""GRID from its archives to data directories: MPEG-1 video, speakers, words per frame, flaws of the corpus."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from avhubert.constants import SAMPLE_RATE
from avhubert.data.audio import write_wav
from avhubert.data.manifest import read_manifest
from avhubert.data.shards import clip_samples, make_shards
from avhubert.data.transcripts import read_phones, read_transcripts
from avhubert.prepare.pipeline import prepare
from tests.grid_data import make_grid, to_mpeg

SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The corpus, prepared in the folder `data` beside it, and its ids."""
    folder = tmp_path_factory.mktemp("grid")
    ids = make_grid(folder / "GRID", 6, folder / "work")
    prepare("grid", folder / "GRID", folder / "data", split="overlap")
    return folder / "GRID", ids


def test_grid_gives_manifests_with_speakers_words_and_labels(prepared: tuple[Path, list[str]], tmp_path: Path) -> None:
    src, ids = prepared
    dst = src.parent / "data"
    summary = prepare("grid", src, dst, split="overlap")
    assert (summary.usable, dict(summary.rejected)) == (len(ids), {})
    assert summary.directories == (dst / "overlap",)
    found = []
    for split in SPLITS:
        clips = read_manifest(dst / "overlap" / f"{split}.tsv")
        texts = read_transcripts(dst / "overlap" / f"{split}.wrd", clips)
        labels = read_phones(dst / "overlap" / f"{split}.phn")
        assert {clip.speaker for clip in clips} == {"s1", "s3"}
        for clip, text, row in zip(clips, texts, labels, strict=True):
            assert clip.id.startswith(f"{clip.speaker}/")
            assert len(row) == clip.video_frames
            assert list(dict.fromkeys(word for word in row if word != "sil")) == text.split()
            found.append(clip.id)
    assert sorted(found) == ids
    # another split of the same clips prepares nothing again
    before = {path: path.stat().st_mtime_ns for path in (dst / "video").rglob("*.mp4")}
    prepare("grid", src, dst, split="speaker:s3")
    assert {path: path.stat().st_mtime_ns for path in (dst / "video").rglob("*.mp4")} == before
    assert {clip.speaker for clip in read_manifest(dst / "s3" / "others.tsv")} == {"s1"}
    # shards carry the speaker
    make_shards(dst / "overlap", tmp_path / "shards")
    sharded = read_manifest(tmp_path / "shards" / "test.tsv")
    assert [clip.speaker for clip in sharded] == [clip.speaker for clip in read_manifest(dst / "overlap" / "test.tsv")]


def test_flaws_are_named_and_a_speaker_of_audio_alone_is_used(prepared: tuple[Path, list[str]], tmp_path: Path) -> None:
    src, ids = prepared
    folder, dst = tmp_path / "GRID", tmp_path / "data"
    shutil.copytree(src, folder)
    shutil.copytree(src.parent / "data", dst)  # what is unchanged is not prepared again
    cut, broken, contradicted = ids[:3]
    to_mpeg(src / f"{cut}.mpg", folder / f"{cut}.mpg", 20)
    (folder / f"{broken}.mpg").write_bytes(b"a text\n" * 99)
    (folder / "alignments" / f"{contradicted}.align").write_text("0 9000 other\n", encoding="utf-8")
    samples = np.tile(clip_samples(src / f"{ids[0]}.mpg"), 3)[: 3 * SAMPLE_RATE]
    path = folder / "audio_25k" / "s21" / "bbaf2n.wav"
    path.parent.mkdir(parents=True)
    write_wav(path, samples)
    summary = prepare("grid", folder, dst, split="overlap", modality="any", max_rejected=0.5)
    assert dict(summary.rejected) == {
        "it ends before its last word": 1,
        "cannot be read as a video or audio file": 1,
        "the name and the .align say different words": 1,
    }
    rejected = (dst / "rejected.tsv").read_text(encoding="utf-8")
    assert f"{cut}\tit ends before its last word (it has 0.80 s, its words " in rejected
    assert f"{broken}\tthe file cannot be read as a video or audio file" in rejected
    assert f"{contradicted}\tits name spells " in rejected
    assert "frames instead of 75" in (dst / "report.html").read_text(encoding="utf-8")
    assert "1 clips have no video" in summary.notes
    clips = [clip for split in SPLITS for clip in read_manifest(dst / "overlap" / f"{split}.tsv")]
    assert len(clips) == len(ids) - 3 + 1
    (alone,) = (clip for clip in clips if clip.speaker == "s21")
    assert (alone.id, alone.video_frames, alone.audio_samples) == ("s21/bbaf2n", 0, len(samples))
