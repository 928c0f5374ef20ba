"""Every face of a folder's videos becomes a clip; with a transcript, only the speaker's face does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avhubert.corpora.sources import SourceClip
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.audio import read_audio
from avhubert.data.manifest import read_manifest
from avhubert.data.media import MediaPart
from avhubert.data.video import read_frames, read_gray, write_video
from avhubert.prepare.clip import prepare_clip
from avhubert.prepare.detectors.blazeface import BlazeFace
from avhubert.prepare.detectors.interface import Face
from avhubert.prepare.mouth import find_mouths
from avhubert.prepare.pipeline import prepare
from avhubert.prepare.tracking import track_faces


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three videos: two people side by side, of whom one speaks, and each person alone."""
    root = tmp_path_factory.mktemp("two")
    make_corpus(root / "corpus", 4, speakers=2, seed=9)
    talking_videos = sorted((root / "corpus").rglob("*.mp4"))[:2]
    (speaker, audio), (listener, _) = [(np.stack(list(read_frames(path))), read_audio(path)) for path in talking_videos]
    frames = min(len(speaker), len(listener))
    still_listener = np.repeat(listener[:1], frames, 0)
    src = root / "src"
    src.mkdir()
    write_video(src / "both.mp4", np.concatenate([still_listener, speaker[:frames]], 2), audio=audio[: frames * 640])
    for number, path in enumerate(talking_videos):
        (src / f"one{number}.mp4").write_bytes(path.read_bytes())
    return src


def test_every_face_becomes_a_clip_the_speaker_first(videos: Path, tmp_path: Path) -> None:
    summary = prepare("folder", videos, tmp_path / "one", workers=1)
    clips = {
        clip.id: clip
        for split in ("train", "valid", "test")
        for clip in read_manifest(tmp_path / "one" / f"{split}.tsv")
    }
    assert sorted(clips) == ["both", "both_face2", "one0", "one1"]
    assert summary.usable == 4
    assert clips["both"].audio.read_bytes() == clips["both_face2"].audio.read_bytes()
    motion = [
        np.abs(np.diff(read_gray(clips[name].video).astype(int), axis=0)).mean() for name in ("both", "both_face2")
    ]
    assert motion[0] > 3 * motion[1]
    # two shards give the same; a deleted clip of the second face is prepared again, other clips are not
    second = tmp_path / "two"
    for shard in ((0, 2), (1, 2)):
        prepare("folder", videos, second, workers=1, shard=shard)
    for split in ("train", "valid", "test"):
        contents = [
            (tmp / f"{split}.tsv").read_text(encoding="utf-8").replace(str(tmp), "")
            for tmp in (tmp_path / "one", second)
        ]
        assert contents[0] == contents[1]
    clips["both_face2"].video.unlink()
    before = clips["one0"].video.stat().st_mtime_ns
    prepare("folder", videos, tmp_path / "one", workers=1)
    assert clips["both_face2"].video.is_file()
    assert clips["one0"].video.stat().st_mtime_ns == before


def test_only_the_speaker_gets_the_transcript(videos: Path, tmp_path: Path) -> None:
    for video in videos.glob("*.mp4"):
        video.with_suffix(".txt").write_text("somebody said this", encoding="utf-8")
    try:
        summary = prepare("folder", videos, tmp_path / "dst", workers=1)
    finally:
        for transcript in videos.glob("*.txt"):
            transcript.unlink()
    assert summary.usable == 3
    assert (tmp_path / "dst" / "rejected.tsv").read_text(encoding="utf-8") == (
        "both_face2\tanother face beside the one that says the transcript\n"
    )


def test_a_face_that_the_first_detector_finds_late_is_a_clip_of_its_own(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a split screen, the short-range network finds one face in the second half of the video only."""
    found = BlazeFace.detect
    calls = []

    def find_late(self: BlazeFace, frame: np.ndarray) -> list[Face]:
        faces = found(self, frame)
        calls.append(len(faces))
        return faces if len(calls) > 2 else [face for face in faces if face.box[0] > frame.shape[1] / 2]

    monkeypatch.setattr(BlazeFace, "detect", find_late)
    length = len(list(read_frames(videos / "both.mp4")))
    clip = SourceClip("both", videos / "both.mp4", "", every_face=True)
    done = prepare_clip(clip, tmp_path)
    assert done.rejection is None
    assert (done.frames, done.face_share, done.other_face_shares) == (length, 1.0, (1.0,))
    # where only the speaker becomes a clip, the first result stands
    calls.clear()
    shares = [mouth.face_share for mouth in find_mouths(MediaPart(videos / "both.mp4"))]
    assert shares[0] == 1.0
    assert len(shares) == 1


def test_the_speaker_is_selected_among_faces_that_are_visible_throughout(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avhubert.prepare.mouth.thorough_model", lambda model: None)
    late = {"left": 15}

    def track_late(frames, model):
        tracks, count = track_faces(frames, model)
        for track in tracks:
            centre = np.mean([(landmarks.box[0] + landmarks.box[2]) / 2 for landmarks in track.frames.values()])
            if centre > 224:  # the person who speaks is on the right
                track.frames = {index: track.frames[index] for index in range(late["left"], count)}
        return sorted(tracks, key=lambda track: -track.size), count

    monkeypatch.setattr("avhubert.prepare.mouth.track_faces", track_late)
    audio = read_audio(videos / "both.mp4")
    speaker = find_mouths(MediaPart(videos / "both.mp4"), audio=audio)[0]
    assert speaker.face_share < 0.8
    assert find_mouths(MediaPart(videos / "both.mp4"), audio=audio, every_face=True)[0].face_share == 1.0
