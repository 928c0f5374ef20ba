"""Real people: clips of the GRID corpus (Cooke et al. 2006, CC BY 4.0), which are read where they are and not copied.

Only coordinates and words are kept here: the points were set by eye in the frames.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from avhubert.checkpoints.load import load_recognizer
from avhubert.data.audio import read_audio
from avhubert.data.manifest import read_manifest
from avhubert.data.media import MediaPart
from avhubert.data.transcripts import read_transcripts
from avhubert.data.video import read_frames, write_video
from avhubert.model.recognizer import Recognizer
from avhubert.prepare.geometry import window_corners
from avhubert.prepare.mouth import MouthClip, find_mouth, mouth_clip
from avhubert.prepare.pipeline import prepare
from avhubert.transcription.modality import MIN_OFFSET, offset_warning
from avhubert.transcription.people import find_people
from avhubert.transcription.pipeline import transcribe
from tests.conftest import REAL

pytestmark = pytest.mark.real

GRID = REAL / "grid"
# frame → centre of the mouth, x and y in pixels, between the corners and the lips
CENTRES: dict[str, dict[int, tuple[int, int]]] = {
    "s1/bbaf2n.mp4": {10: (161, 219), 40: (159, 211)},
    "s1/bbaf5a.mp4": {25: (171, 210), 55: (168, 207), 70: (169, 207)},
    "s4/bbaf2a.mp4": {10: (339, 481), 40: (343, 478)},
    "s4/bbwgza.mp4": {25: (341, 406), 55: (341, 405), 70: (343, 404)},
    "s5/lbax4n.mpg": {10: (194, 206), 40: (195, 202)},
    "s5/srahzn.mp4": {25: (196, 216), 55: (197, 215), 70: (195, 215)},
}
MAX_DISTANCE = 0.05  # of the crop's side, from the point to the centre of the crop; measured: at most 0.03
SPEAKERS = ("s1", "s2", "s3", "s4", "s5")
# what the built-in model reads from audio and video of clips that it was not trained on; empty if a new model has been
# put into the package and they have not been looked up yet
WORDS: dict[str, str] = {
    "s2/pwij3p.mpg": "place white in j three please",
    "s3/lwwz6n.mp4": "lay white with z six now",
    "s5/srahzn.mp4": "set red at h zero now",
    "s1/lrbz1a.mp4": "lay red by z one again",
    "s1/lwal4p.mp4": "lay white at l four please",
    "s1/sgac4p.mp4": "set green at c four please",
    "s1/bgia4p.mp4": "bin green in a four please",
    "s1/swbi5s.mp4": "set white by i five soon",
    "s1/sgwj6p.mp4": "set green with j six please",
    "s1/pwaq3a.mp4": "place white at q three again",
}


@pytest.fixture(scope="module")
def clips() -> dict[str, MouthClip]:
    return {name: mouth_clip(GRID / name) for name in CENTRES}


@pytest.fixture(scope="module")
def builtin() -> Recognizer:
    return load_recognizer("builtin")


def recordings(speaker: str, count: int) -> list[Path]:
    return sorted(path for path in (GRID / speaker).iterdir() if path.suffix != ".align")[:count]


@pytest.mark.parametrize("name", CENTRES)
def test_the_crop_is_centred_on_the_mouth(name: str, clips: dict[str, MouthClip]) -> None:
    track = clips[name].track
    corners = window_corners(track.transforms, track.centres)
    for frame, point in CENTRES[name].items():
        side = np.linalg.norm(corners[frame, 1] - corners[frame, 0])
        assert np.linalg.norm(corners[frame].mean(0) - point) < MAX_DISTANCE * side, frame
    assert track.face_share == 1


@pytest.mark.slow
def test_clips_of_several_speakers_are_prepared(tmp_path: Path) -> None:
    source = tmp_path / "grid"
    for speaker in SPEAKERS:
        (source / speaker).mkdir(parents=True)
        for path in recordings(speaker, 2):
            for file in (path, path.with_suffix(".align")):
                shutil.copy(file, source / speaker / file.name)
    prepare("grid", source, tmp_path / "data", workers=1, split="unseen")
    speakers, count = set(), 0
    for split in ("train", "valid", "test"):
        found = read_manifest(tmp_path / "data" / "unseen" / f"{split}.tsv")
        texts = read_transcripts(tmp_path / "data" / "unseen" / f"{split}.wrd", found)
        assert all(len(text.split()) == 6 for text in texts)
        assert all(abs(clip.video_frames - 75) <= 1 and clip.audio_samples > 45_000 for clip in found)
        count += len(found)
        speakers |= {clip.speaker for clip in found}
    assert speakers == set(SPEAKERS)
    assert count == 2 * len(SPEAKERS)
    assert (tmp_path / "data" / "rejected.tsv").read_text(encoding="utf-8") == ""


@pytest.mark.parametrize("speaker", ["s1", "s4"])
def test_lips_and_audio_that_are_in_sync_give_no_warning(speaker: str, clips: dict[str, MouthClip]) -> None:
    names = [name for name in CENTRES if name.startswith(speaker)]
    gap = np.concatenate([clips[name].track.lip_gap for name in names])
    audio = np.concatenate([audio_of(GRID / name, len(clips[name].frames)) for name in names])
    assert offset_warning(gap, audio) is None


@pytest.mark.slow
def test_lips_and_audio_of_half_a_minute_that_are_shifted_give_a_warning() -> None:
    paths = recordings("s31", 10)
    gaps = [find_mouth(MediaPart(path)).lip_gap for path in paths]
    gap = np.concatenate(gaps)
    audio = np.concatenate([audio_of(path, len(own)) for path, own in zip(paths, gaps, strict=True)])
    for shift in range(-12, 13):
        late, early = max(0, shift), max(0, -shift)
        warning = offset_warning(gap[early : len(gap) - late], audio[640 * late : len(audio) - 640 * early])
        if abs(shift) < MIN_OFFSET:
            assert warning is None, shift
        else:
            assert f"{abs(shift) / 25:.2f} s {'after' if shift > 0 else 'before'} the audio" in (warning or ""), shift


def audio_of(path: Path, frames: int) -> np.ndarray:
    """int16 [640 × frames]."""
    samples = read_audio(path)[: 640 * frames]
    return np.pad(samples, (0, 640 * frames - len(samples)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("s2/brbs9n.mpg", "s5/lbax4n.mpg"),
        ("s5/srahzn.mp4", "s31/bgiq6p.mpg"),
        ("s31/lbwo3s.mpg", "s2/bril8s.mpg"),
    ],
)
def test_of_two_who_talk_side_by_side_the_one_who_is_heard_is_read(left: str, right: str, tmp_path: Path) -> None:
    frames = [np.stack(list(read_frames(GRID / name)))[:74] for name in (left, right)]
    length = min(len(video) for video in frames)
    both = np.concatenate([video[:length] for video in frames], 2)
    for side, name in enumerate((left, right)):
        audio = audio_of(GRID / name, length)
        write_video(tmp_path / "two.mp4", both, audio=audio)
        mouth = find_mouth(MediaPart(tmp_path / "two.mp4"), audio=audio)
        assert (mouth.corners().mean((1, 2)) > 0).all()
        assert ((mouth.corners()[..., 0].mean(1) > frames[0].shape[2]) == bool(side)).all(), name


@pytest.mark.slow
def test_a_cut_from_one_person_to_another_ends_the_first_one_until_she_returns(tmp_path: Path) -> None:
    """As in an interview; in both shots the wall is the same, and the heads are at the same place."""
    first, second = (np.stack(list(read_frames(GRID / name)))[:50] for name in ("s2/brbs9n.mpg", "s5/lbax4n.mpg"))
    write_video(tmp_path / "interview.mp4", np.concatenate([first, second, first[::-1], second[:40]]))
    people = find_people(tmp_path / "interview.mp4")
    assert sorted([(piece.start, piece.end) for piece in person.pieces] for person in people) == [
        [(0, 50), (100, 150)],
        [(50, 100), (150, 190)],
    ]


@pytest.mark.parametrize("speaker", ["s1", "s4"])
def test_the_built_in_model_reads_audio_and_lips(speaker: str, builtin: Recognizer) -> None:
    (path,) = recordings(speaker, 1)
    transcript = transcribe(path, builtin)
    assert transcript.modality == "av"
    assert 0 < transcript.words[0].start < transcript.words[-1].end <= 3.1


@pytest.mark.skipif(not WORDS, reason="the words that this built-in model reads have not been looked up yet")
@pytest.mark.parametrize("name", WORDS)
def test_exact_words(name: str, builtin: Recognizer) -> None:
    assert transcribe(GRID / name, builtin, "av").text == WORDS[name]
