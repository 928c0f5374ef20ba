"""Noise lists: disjoint voices, same bytes for the same seed, errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from avhubert.corpora.noise import BALANCED, make_noise
from avhubert.data.audio import read_audio, write_wav
from avhubert.data.manifest import Clip, write_manifest
from avhubert.data.noise import read_noise_list, read_noise_speakers, without_voice
from avhubert.errors import ConfigError, DataError, MediaError

SPLITS = ("train", "valid", "test")


def tone(index: int, seconds: float = 1.0) -> np.ndarray:
    """A recording with its own pitch, so that it can be recognised in a mixture."""
    time = np.arange(round(seconds * 16000)) / 16000
    return (8000 * np.sin(2 * np.pi * (200 + 50 * index) * time)).astype(np.int16)


def pitches(samples: np.ndarray) -> set[int]:
    spectrum = np.abs(np.fft.rfft(samples[:16000].astype(float) * np.hanning(16000)))
    levels = spectrum[200 : 200 + 50 * 100 : 50]
    return {int(index) for index in np.flatnonzero(levels > levels.max() / 10)}


def recordings(folder: Path, count: int, seconds: float = 1.0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        write_wav(folder / f"{index:03}.wav", tone(index, seconds))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_babble_of_a_folder(tmp_path) -> None:
    src = recordings(tmp_path / "speech" / "deep", 60)
    summary = make_noise("babble", tmp_path / "speech", tmp_path / "noise", seed=1)
    voices: dict[str, set[int]] = {}
    for split, count in zip(SPLITS, (24, 3, 3), strict=True):
        paths = read_noise_list(tmp_path / "noise", split)
        assert len(paths) == count == summary.clips["babble"][split]
        assert all(path.parent == tmp_path / "noise" / "babble" / split for path in paths)
        voices_by_clip = [pitches(read_audio(path)) for path in paths]
        assert {len(names) for names in voices_by_clip} == {30 if split == "train" else 6}
        voices[split] = set().union(*voices_by_clip)
    assert not voices["train"] & voices["valid"]
    assert not voices["train"] & voices["test"]
    assert not voices["valid"] & voices["test"]
    assert "babble, test: 6 voices in a mixture instead of 30" in str(summary)
    assert "babble: 24 train, 3 valid, 3 test clips" in str(summary)
    assert len(list(src.iterdir())) == 60


def test_only_the_training_split_of_a_data_directory_is_used(tmp_path) -> None:
    src = recordings(tmp_path / "wav", 30)
    for split, chosen in (("train", range(20)), ("test", range(20, 30))):
        clips = [Clip(str(i), src / f"{i:03}.mp4", src / f"{i:03}.wav", 25, 16000) for i in chosen]
        clips.append(Clip("silent", src / "silent.mp4", src / "none.wav", 25, 0))  # video alone
        write_manifest(tmp_path / f"{split}.tsv", clips, tmp_path)
    make_noise("babble", tmp_path, tmp_path / "noise")
    used = [pitches(read_audio(path)) for split in SPLITS for path in read_noise_list(tmp_path / "noise", split)]
    assert set().union(*used) == set(range(20))


def speaking(tmp_path: Path, speakers: Sequence[str]) -> Path:
    """A data directory whose training recording number n has pitch n and speaker `speakers[n]`."""
    src = recordings(tmp_path / "wav", len(speakers))
    clips = [Clip(str(i), src / f"{i:03}.mp4", src / f"{i:03}.wav", 25, 16000, name) for i, name in enumerate(speakers)]
    write_manifest(tmp_path / "train.tsv", clips, tmp_path)
    return tmp_path


def test_for_each_speaker_there_is_babble_without_his_voice(tmp_path) -> None:
    speakers = [f"s{index % 6}" for index in range(48)]
    make_noise("babble", speaking(tmp_path, speakers), tmp_path / "noise", seed=2)
    voices = read_noise_speakers(tmp_path / "noise")
    for split in SPLITS:
        paths = read_noise_list(tmp_path / "noise", split)
        for path in paths:
            assert {speakers[pitch] for pitch in pitches(read_audio(path))} == voices[path]
        for speaker in {name for path in paths for name in voices[path]}:
            assert without_voice(paths, voices, speaker)
    assert read_noise_speakers(tmp_path / "noise" / "train.tsv") == voices


def test_held_out_babble_has_two_speakers_where_there_are_two(tmp_path) -> None:
    src = speaking(tmp_path, ["a"] * 17 + ["b"] * 3)
    for seed in range(5):
        make_noise("babble", src, tmp_path / "noise", seed=seed)
        voices = read_noise_speakers(tmp_path / "noise")
        for split in SPLITS:
            assert {name for path in read_noise_list(tmp_path / "noise", split) for name in voices[path]} == {"a", "b"}


def test_babble_of_one_speaker_says_so_and_other_noise_forgets_it(tmp_path) -> None:
    summary = make_noise("babble", speaking(tmp_path, ["s1"] * 20), tmp_path / "noise")
    assert "all recordings are of the speaker s1, whose own clips cannot be mixed with it" in str(summary)
    assert set(read_noise_speakers(tmp_path / "noise").values()) == {frozenset(["s1"])}
    make_noise("babble", recordings(tmp_path / "wav", 20), tmp_path / "noise")
    assert read_noise_speakers(tmp_path / "noise") == {}
    (tmp_path / "noise" / "speakers.json").write_text('{"a.wav": "s1"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"speakers\.json: a\.wav has no list of speakers; make the noise again"):
        read_noise_speakers(tmp_path / "noise")


def test_the_same_seed_gives_the_same_bytes(tmp_path) -> None:
    src = recordings(tmp_path / "speech", 12)
    trees = []
    for seed in (3, 3, 4):
        make_noise("babble", src, tmp_path / "noise", seed=seed, count=6)
        trees.append(tree(tmp_path / "noise"))
    assert trees[0] == trees[1]
    assert trees[0] != trees[2]
    assert len(trees[0]) == 6 + 3


def test_a_mixture_is_the_mean_of_its_voices(tmp_path) -> None:
    src = recordings(tmp_path / "speech", 6, seconds=2)
    write_wav(src / "000.wav", tone(0, 12))
    make_noise("babble", src, tmp_path / "noise", count=10)
    lengths = set()
    for split in SPLITS:
        for path in read_noise_list(tmp_path / "noise", split):
            samples = read_audio(path)
            lengths.add(len(samples) / 16000)
            level = np.sqrt(np.mean(samples.astype(float) ** 2))
            assert level == pytest.approx(8000 / 2, rel=0.02)  # two sines of amplitude 8000, halved
    assert lengths == {2, 10}


def test_speech(tmp_path) -> None:
    src = recordings(tmp_path / "speech", 10, seconds=4)
    for index, seconds in ((0, 2.9), (1, 3.0), (2, 22.0)):
        write_wav(src / f"{index:03}.wav", tone(index, seconds))
    summary = make_noise("speech", src, tmp_path / "noise")
    assert summary.clips["speech"] == {"train": 5, "valid": 2, "test": 2}
    assert "1 of 10 recordings are shorter than 3 s" in str(summary)
    paths = [path for split in SPLITS for path in read_noise_list(tmp_path / "noise", split)]
    assert sorted(len(read_audio(path)) // 16000 for path in paths) == [3, *[4] * 7, 20]
    few = make_noise("speech", src, tmp_path / "few", count=3)
    kept = [len(read_audio(path)) // 16000 for split in SPLITS for path in read_noise_list(tmp_path / "few", split)]
    assert few.clips["speech"] == {"train": 1, "valid": 1, "test": 1}
    assert sorted(kept) == [4, 4, 20]


@pytest.fixture
def musan(tmp_path) -> Path:
    recordings(tmp_path / "musan" / "music" / "jamendo", 4, seconds=25)  # 10 + 10 + 5
    recordings(tmp_path / "musan" / "noise" / "free-sound", 12, seconds=12.5)  # 10, and 2.5 s left out
    recordings(tmp_path / "musan" / "speech" / "us-gov", 20, seconds=3)
    return tmp_path / "musan"


def test_musan(tmp_path, musan: Path) -> None:
    summary = make_noise("musan", musan, tmp_path / "noise", seed=0)
    assert summary.clips["music"] == {"train": 10, "valid": 1, "test": 1}
    assert summary.clips["noise"] == {"train": 10, "valid": 1, "test": 1}
    assert summary.clips["babble"] == {"train": 16, "valid": 2, "test": 2}
    assert "noise: 12 pieces shorter than 3 s not used" in str(summary)
    lengths = Counter(len(read_audio(path)) // 16000 for path in (tmp_path / "noise" / "music").rglob("*.wav"))
    assert lengths == {10: 8, 5: 4}
    training = Counter(path.parts[-3] for path in read_noise_list(tmp_path / "noise", "train"))
    assert training == {"music": BALANCED, "noise": BALANCED, "babble": BALANCED}
    assert set(Counter(read_noise_list(tmp_path / "noise", "train")).values()) == {BALANCED // 10, BALANCED // 16}
    assert len(read_noise_list(tmp_path / "noise", "test")) == 4


def test_another_kind_is_added_to_the_lists(tmp_path) -> None:
    src = recordings(tmp_path / "speech", 8, seconds=3)
    make_noise("babble", src, tmp_path / "noise", count=4)
    make_noise("speech", src, tmp_path / "noise")
    kinds = Counter(path.parts[-3] for path in read_noise_list(tmp_path / "noise", "valid"))
    assert kinds == {"babble": 1, "speech": 2}


def test_noise_clips_inside_the_source_are_not_used_as_source(tmp_path) -> None:
    src = recordings(tmp_path / "speech", 8)
    first = make_noise("babble", src, src / "noise", count=5)
    before = tree(src / "noise")
    assert make_noise("babble", src, src / "noise", count=5).clips == first.clips
    assert tree(src / "noise") == before


# --------------------------------------------------------------------------- wrong input
def test_wrong_source(tmp_path) -> None:
    with pytest.raises(DataError, match="gone is not a folder; name a data directory"):
        make_noise("babble", tmp_path / "gone", tmp_path / "noise")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty has no audio files"):
        make_noise("babble", tmp_path / "empty", tmp_path / "noise")
    with pytest.raises(DataError, match="music is not a folder"):
        make_noise("musan", tmp_path / "empty", tmp_path / "noise")
    write_manifest(tmp_path / "empty" / "test.tsv", [], tmp_path)
    with pytest.raises(DataError, match=r"train\.tsv is missing"):
        make_noise("speech", tmp_path / "empty", tmp_path / "noise")
    assert not (tmp_path / "noise").exists()


def test_too_few_recordings(tmp_path) -> None:
    src = recordings(tmp_path / "speech", 5)
    with pytest.raises(DataError, match=r"babble needs at least 6 recordings .* there are 5"):
        make_noise("babble", src, tmp_path / "noise")
    with pytest.raises(DataError, match="speech noise needs 3 recordings of at least 3 s, and there are 0"):
        make_noise("speech", src, tmp_path / "noise")
    assert not list((tmp_path / "noise").rglob("*.wav"))


def test_too_few_pieces(tmp_path, musan: Path) -> None:
    for path in (musan / "music").rglob("*.wav"):
        write_wav(path, tone(0, 2))
    with pytest.raises(DataError, match="music needs 3 pieces of at least 3 s, and there are 0"):
        make_noise("musan", musan, tmp_path / "noise")


def test_a_damaged_recording_leaves_no_files(tmp_path) -> None:
    src = recordings(tmp_path / "speech", 8)
    (src / "003.wav").write_bytes(b"nothing")
    with pytest.raises(MediaError, match=r"003\.wav"):
        make_noise("babble", src, tmp_path / "noise", count=100)
    assert list((tmp_path / "noise").iterdir()) == []


def test_wrong_kind_and_count(tmp_path) -> None:
    with pytest.raises(ConfigError, match="unknown kind of noise 'hum'; known: babble, musan, speech"):
        make_noise("hum", tmp_path, tmp_path / "noise")
    with pytest.raises(ConfigError, match="count=2 is too small"):
        make_noise("babble", tmp_path, tmp_path / "noise", count=2)
