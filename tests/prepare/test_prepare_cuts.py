"""A clip never joins the mouths of two people; gaps of detection are bounded; steps of the crop are reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avhubert.constants import SPLITS
from avhubert.corpora.sources import SourceClip
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.manifest import read_manifest
from avhubert.data.video import read_frames, read_gray, write_video
from avhubert.prepare.clip import prepare_clip
from avhubert.prepare.detectors.selection import default_model
from avhubert.prepare.geometry import MEAN_FACE, crop_steps, stabilise
from avhubert.prepare.journal import open_journal, read_journals
from avhubert.prepare.pipeline import prepare
from avhubert.prepare.records import ClipResult
from avhubert.prepare.tracking import track_faces


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """20 frames each of two people in the same place, [20, 224, 224, 3]."""
    root = tmp_path_factory.mktemp("people")
    make_corpus(root, 4, speakers=2, seed=9)
    first, second = (np.stack(list(read_frames(path))[:20]) for path in sorted(root.rglob("*.mp4"))[:2])
    return first, second


def prepared(frames: np.ndarray, folder: Path) -> ClipResult:
    folder.mkdir(exist_ok=True)
    write_video(folder / "talk.mp4", frames, audio=np.zeros(640 * len(frames), np.int16))
    return prepare_clip(SourceClip("talk", folder / "talk.mp4", ""), folder / "out")


def test_a_clip_with_two_people_one_after_the_other_is_refused(
    people: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    result = prepared(np.concatenate(people), tmp_path)
    assert result.rejection is not None
    assert result.rejection.reason == "a cut between shots with faces (at 0.80 s; cut the video there)"
    assert result.rejection.kind == "a cut between shots with faces"
    tracks, _ = track_faces(np.concatenate(people), default_model())
    assert sorted((track.shot, min(track.frames), max(track.frames)) for track in tracks) == [(0, 0, 19), (20, 20, 39)]


def write(path: Path, *frames: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    video = np.concatenate(frames)
    rng = np.random.default_rng(0)
    write_video(path, video, audio=rng.integers(-900, 900, 640 * len(video), np.int16))


def test_a_video_without_transcript_is_divided_at_cuts(people: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    first, second = (np.concatenate([frames, frames[::-1]]) for frames in people)
    write(tmp_path / "src" / "three.mp4", first, second, first)
    write(tmp_path / "src" / "three_001.mp4", first)
    write(tmp_path / "src" / "late.mp4", first[:12], second)
    summary = prepare("folder", tmp_path / "src", tmp_path / "dst", workers=1)
    assert "3 videos without a transcript were divided at cuts between shots with faces" in summary.notes
    clips = {clip.id: clip for split in SPLITS for clip in read_manifest(tmp_path / "dst" / f"{split}.tsv")}
    lengths = {name: (clip.video_frames, clip.audio_samples) for name, clip in clips.items()}
    parts = ("late_001", "three_000", "three_001", "three_001__000", "three_001__001")
    assert lengths == dict.fromkeys(parts, (40, 40 * 640))
    mouths = {name: read_gray(tmp_path / "dst" / clips[name].video).astype(float) for name in parts}
    same = np.abs(mouths["three_001__000"] - mouths["late_001"]).mean()  # both are of the second person
    assert 4 * same < np.abs(mouths["three_001__000"] - mouths["three_001__001"]).mean()
    rejected = (tmp_path / "dst" / "rejected.tsv").read_text(encoding="utf-8")
    assert rejected == "late_000\ta part beside a cut is too short (0.48 s)\n"
    journal = tmp_path / "dst" / "journal" / "0-of-1.jsonl"
    before = journal.read_bytes()
    assert prepare("folder", tmp_path / "src", tmp_path / "dst", workers=1).notes == summary.notes
    assert journal.read_bytes() == before  # nothing is prepared again


def test_a_video_with_a_transcript_is_not_divided(people: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    first, second = (np.concatenate([frames, frames[::-1]]) for frames in people)
    for name, frames in (("one", [first]), ("other", [second]), ("joined", [first, second])):
        write(tmp_path / "src" / f"{name}.mp4", *frames)
        (tmp_path / "src" / f"{name}.txt").write_text("a word\n", encoding="utf-8")
    prepare("folder", tmp_path / "src", tmp_path / "dst", workers=1, max_rejected=1.0)
    rejected = (tmp_path / "dst" / "rejected.tsv").read_text(encoding="utf-8")
    assert rejected == "joined\ta cut between shots with faces (at 1.60 s; cut the video there)\n"


def test_a_short_slide_after_a_face_is_no_second_shot_of_faces(
    people: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    slide = np.random.default_rng(0).normal(200, 4, (4, 224, 224, 3)).clip(0, 255).astype(np.uint8)
    result = prepared(np.concatenate([people[0], slide]), tmp_path)
    assert result.rejection is None
    assert 0.8 < result.face_share < 0.9
    assert 0 < result.largest_step < 5


def test_a_face_that_is_not_seen_for_long_is_refused(people: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    there = np.concatenate([people[0], people[0][::-1]] * 2)
    wall = np.random.default_rng(0).normal(90, 6, (27, 224, 224, 3)).clip(0, 255).astype(np.uint8)
    result = prepared(np.concatenate([there, wall, there]), tmp_path)
    assert result.rejection is not None
    assert result.rejection.kind == "a cut between shots with faces"  # the wall is a shot between two shots
    fading = np.linspace(1, 0, 8)[:, None, None, None]
    fade = (there[-1] * fading + wall[0] * (1 - fading)).astype(np.uint8)
    result = prepared(np.concatenate([there, fade, wall, fade[::-1], there]), tmp_path / "fade")
    assert result.rejection is not None
    assert result.rejection.kind in ("the face is not seen for too long", "face in too few frames")


def test_steps_are_measured_in_pixels_of_the_crop(tmp_path: Path) -> None:
    """A face of half the size of the mean face: one pixel of the frame is two of the crop."""
    stable = np.stack([MEAN_FACE / 2 + [shift, 0] for shift in (0.0, 0.0, 5.0)])
    transforms = stabilise(stable, smoothing=1)
    centres = np.full((3, 2), 128.0)
    assert crop_steps(transforms, centres) == pytest.approx([0, 10])
    clip = SourceClip("talk", tmp_path / "talk.mp4", "")
    with open_journal(tmp_path, (0, 1)) as append:
        append(ClipResult("talk", frames=3, largest_step=10.5))
    assert read_journals(tmp_path, [clip])["talk"].largest_step == 10.5
