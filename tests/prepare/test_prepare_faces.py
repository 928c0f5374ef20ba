"""Of a folder's videos every face becomes a clip; where somebody wrote what is said, only the speaker's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.audio import read_audio
from avhubert.data.manifest import read_manifest
from avhubert.data.video import read_frames, read_gray, write_video
from avhubert.prepare.pipeline import prepare


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three videos: two people side by side, one of them speaking; one person; the other."""
    root = tmp_path_factory.mktemp("two")
    make_corpus(root / "corpus", 4, speakers=2, seed=9)
    talks = sorted((root / "corpus").rglob("*.mp4"))[:2]
    (speaker, sound), (listener, _) = [(np.stack(list(read_frames(path))), read_audio(path)) for path in talks]
    frames = min(len(speaker), len(listener))
    still = np.repeat(listener[:1], frames, 0)
    src = root / "src"
    src.mkdir()
    write_video(src / "both.mp4", np.concatenate([still, speaker[:frames]], 2), audio=sound[: frames * 640])
    for number, path in enumerate(talks):
        (src / f"one{number}.mp4").write_bytes(path.read_bytes())
    return src


def test_every_face_is_a_clip_the_speaker_first(two: Path, tmp_path: Path) -> None:
    summary = prepare("folder", two, tmp_path / "one", workers=1)
    clips = {
        clip.id: clip
        for split in ("train", "valid", "test")
        for clip in read_manifest(tmp_path / "one" / f"{split}.tsv")
    }
    assert sorted(clips) == ["both", "both_face2", "one0", "one1"]
    assert summary.usable == 4
    assert clips["both"].audio.read_bytes() == clips["both_face2"].audio.read_bytes()
    moved = [
        np.abs(np.diff(read_gray(clips[name].video).astype(int), axis=0)).mean() for name in ("both", "both_face2")
    ]
    assert moved[0] > 3 * moved[1]
    # done once, the same from two shards, and whole again when the second face's clip is lost
    again = tmp_path / "two"
    for shard in ((0, 2), (1, 2)):
        prepare("folder", two, again, workers=1, shard=shard)
    for split in ("train", "valid", "test"):
        names = [(tmp / f"{split}.tsv").read_text().replace(str(tmp), "") for tmp in (tmp_path / "one", again)]
        assert names[0] == names[1]
    clips["both_face2"].video.unlink()
    before = clips["one0"].video.stat().st_mtime_ns
    prepare("folder", two, tmp_path / "one", workers=1)
    assert clips["both_face2"].video.is_file()
    assert clips["one0"].video.stat().st_mtime_ns == before


def test_a_transcript_belongs_to_who_speaks(two: Path, tmp_path: Path) -> None:
    for video in two.glob("*.mp4"):
        video.with_suffix(".txt").write_text("somebody said this")
    try:
        summary = prepare("folder", two, tmp_path / "dst", workers=1)
    finally:
        for text in two.glob("*.txt"):
            text.unlink()
    assert summary.usable == 3
    assert (tmp_path / "dst" / "rejected.tsv").read_text() == (
        "both_face2\tanother face beside the one that says the transcript\n"
    )
