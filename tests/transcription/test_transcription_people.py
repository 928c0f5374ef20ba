"""Two people side by side who speak in turns: each gets the own words, where the own lips move."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from avhubert import transcribe_people
from avhubert.checkpoints.directory import save_model
from avhubert.cli.app import main
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.audio import read_audio, write_wav
from avhubert.data.video import read_frames, write_video
from avhubert.errors import ConfigError, MediaError
from avhubert.model.recognizer import Recognizer
from avhubert.transcription.people import find_people

STILL = 30  # frames of rest around each one's sentence


@pytest.fixture(scope="module")
def dialogue(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[float, float]]]:
    """A video of two people, and when each of them speaks (seconds)."""
    root = tmp_path_factory.mktemp("dialogue")
    make_corpus(root, 4, speakers=2, seed=9)
    clips = sorted(root.rglob("*.mp4"))
    speakers = [
        next(clip for clip in clips if clip.parent.name == name) for name in sorted({c.parent.name for c in clips})
    ]
    videos = [np.stack(list(read_frames(clip))) for clip in speakers[:2]]
    audios = [np.pad(read_audio(clip), (0, 640 * 99))[: 640 * len(shown)] for clip, shown in zip(speakers, videos)]  # noqa: B905
    first, second = (len(shown) for shown in videos)
    rest = [np.repeat(shown[:1], STILL, axis=0) for shown in videos]
    left = [rest[0], videos[0], *([rest[0]] * 2), np.repeat(videos[0][:1], second, axis=0), rest[0]]
    right = [rest[1], np.repeat(videos[1][:1], first, axis=0), *([rest[1]] * 2), videos[1], rest[1]]
    silence = np.zeros(STILL * 640, np.int16)
    path = root / "dialogue.mp4"
    both = np.concatenate([np.concatenate(left), np.concatenate(right)], axis=2)
    write_video(path, both, audio=np.concatenate([silence, audios[0], silence, silence, audios[1], silence]))
    second_start = STILL + first + 2 * STILL
    return path, [(STILL / 25, (STILL + first) / 25), (second_start / 25, (second_start + second) / 25)]


def test_each_is_read_while_the_own_lips_move(
    dialogue: tuple[Path, list[tuple[float, float]]], recognizer: Recognizer
) -> None:
    video, when = dialogue
    people = find_people(video)
    assert [one.middle < 224 for one in people] == [True, False]
    assert all(one.seconds > 0.9 * (when[1][1] + STILL / 25) for one in people)
    said = transcribe_people(video, recognizer)
    assert [one.modality for one in said] == ["av", "av"]
    for transcript, (start, end), other in zip(said, when, reversed(when), strict=True):
        assert transcript.segments
        for segment in transcript.segments:
            assert segment.start < end
            assert segment.end > start
            assert not segment.start < sum(other) / 2 < segment.end
        assert not any("faces were seen" in warning for warning in transcript.warnings)
    assert said[0].segments[0].box[2] < 224 < said[1].segments[0].box[0]
    assert transcribe_people(video, recognizer, "v")[1].modality == "v"


def test_a_person_is_followed_over_pieces_and_gaps(
    dialogue: tuple[Path, list[tuple[float, float]]], tmp_path: Path
) -> None:
    video, _ = dialogue
    videos = np.stack(list(read_frames(video)))
    times = -(-25 * 34 // len(videos))
    long = np.concatenate([videos] * times)[: 25 * 34].copy()
    long[25 * 15 : 25 * 30, :, 224:] = 90  # the right one leaves for the second piece
    path = tmp_path / "long.mp4"
    write_video(path, long)
    left, right = find_people(path)
    assert [piece.start for piece in left.pieces] == [0, 375, 750]
    assert [piece.start for piece in right.pieces] == [0, 750]
    piece = left.visible(100, 1500)
    assert (piece.start, piece.end) == (100, 850)
    assert piece.track.face_share == pytest.approx(1, abs=0.05)
    piece = right.visible(100, 1500)
    assert (piece.start, len(piece.track.transforms)) == (100, 275)
    assert right.visible(375, 1500).start == 750
    assert right.visible(760, 50).track.centres.shape == (50, 2)
    assert right.visible(850, 1500) is None


def test_the_command(
    dialogue: tuple[Path, list[tuple[float, float]]], recognizer: Recognizer, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    video, _ = dialogue
    assert recognizer.tokenizer is not None
    model = tmp_path / "model"
    save_model(model, recognizer, recognizer.tokenizer.serialized)
    assert main(["transcribe", str(video), "--model", str(model), "--people"]) == 0
    assert re.fullmatch(r"person 1: .*\nperson 2: .*\n", capsys.readouterr().out)
    out = tmp_path / "out"
    command = ["transcribe", str(video), "--model", str(model), "--people", "--format", "srt", "--out", str(out)]
    assert main(command) == 0
    assert sorted(path.name for path in out.glob("*.srt")) == ["dialogue.person1.srt", "dialogue.person2.srt"]
    assert main([*command, "--skip-existing"]) == 0
    assert "1 of 1 were there already" in capsys.readouterr().err


def test_refusals(
    dialogue: tuple[Path, list[tuple[float, float]]], recognizer: Recognizer, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(ConfigError, match="people are told apart by their lips, which modality 'a' leaves out"):
        transcribe_people(dialogue[0], recognizer, "a")
    empty = tmp_path / "empty.mp4"
    write_video(empty, np.full((30, 64, 64, 3), 90, np.uint8))
    with pytest.raises(MediaError, match="no face was found in"):
        transcribe_people(empty, recognizer)
    assert main(["transcribe", "x", "--model", "m", "--people", "--format", "srt"]) == 2
    assert "--people writes one srt file for each person; give --out" in capsys.readouterr().err
    assert main(["transcribe", "x", "--model", "m", "--people", "--burn-in", "--out", str(tmp_path / "o")]) == 2
    assert "--burn-in shows the captions of one person" in capsys.readouterr().err
    silence, model = tmp_path / "silence.wav", tmp_path / "model"
    write_wav(silence, np.zeros(16000, np.int16))
    assert recognizer.tokenizer is not None
    save_model(model, recognizer, recognizer.tokenizer.serialized)
    assert main(["transcribe", str(silence), "--model", str(model), "--people"]) == 1
    assert "has no video track, so no person is seen; leave --people out" in capsys.readouterr().err


def test_a_cut_ends_a_person_unless_the_same_face_returns(
    dialogue: tuple[Path, list[tuple[float, float]]], tmp_path: Path
) -> None:
    """One person, cut, another one in the same place, cut, the first one again."""
    frames = np.stack(list(read_frames(dialogue[0])))[:40]
    first, second = frames[:, :, :224], frames[:, :, 224:]
    path = tmp_path / "cuts.mp4"
    write_video(path, np.concatenate([first, second, first[::-1], second[:30]]))
    people = find_people(path)
    assert sorted([(piece.start, piece.end) for piece in person.pieces] for person in people) == [
        [(0, 40), (80, 120)],
        [(40, 80), (120, 150)],
    ]
    part = people[0].visible(0, 1500)
    assert part is not None
    assert part.end - part.start == 40


def test_a_person_goes_on_where_another_part_of_the_frame_changes(
    dialogue: tuple[Path, list[tuple[float, float]]], tmp_path: Path
) -> None:
    """In a video conference, somebody's video is switched off; then another one is shown for half a second."""
    frames = np.stack(list(read_frames(dialogue[0])))[:40]
    off = frames.copy()
    off[:, :, 224:] = 250
    mirrored = frames[:12, :, ::-1]
    path = tmp_path / "off.mp4"
    write_video(path, np.concatenate([frames, off, mirrored, off]))
    people = find_people(path)
    left = max(people, key=lambda person: person.seconds)
    assert [(piece.start, piece.end) for piece in left.pieces] == [(0, 40), (40, 80), (92, 132)]
    assert sum(len(person.pieces) for person in people) == 3 + 1 + 2  # the right one, and both mirrored
