"""Splits by speaker: the rules of GRID."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from avhubert.corpora.sources import SourceClip
from avhubert.errors import ConfigError, DataError
from avhubert.prepare.records import ClipResult, PreparedClip, Splits
from avhubert.prepare.splits import assign_splits, check_split

pytestmark = pytest.mark.quick


def clips_of(speakers: Sequence[str], number: int) -> list[PreparedClip]:
    return [
        PreparedClip(
            SourceClip(f"{speaker}/{n:04d}", Path("x"), "", text="a", speaker=speaker), ClipResult(f"{speaker}/{n:04d}")
        )
        for speaker in speakers
        for n in range(number)
    ]


def split(clips: Sequence[PreparedClip], rule: str | None) -> tuple[str, Splits, list[str]]:
    assignment = assign_splits("grid", clips, Path("/dst"), 0, split=rule)
    ((directory, splits),) = assignment.directories.items()
    return directory.name, splits, assignment.notes


def speakers_of(clips: Sequence[PreparedClip]) -> set[str]:
    return {clip.source.speaker for clip in clips}


ALL = [f"s{n}" for n in range(1, 35)]


def test_unseen_shares_no_speaker() -> None:
    name, splits, notes = split(clips_of(ALL, 3), None)
    assert (name, notes) == ("unseen", [])
    assert speakers_of(splits["test"]) == {"s1", "s2", "s20", "s22"}
    assert speakers_of(splits["valid"]) == {"s11", "s30"}
    assert len(speakers_of(splits["train"])) == 28
    assert sum(map(len, splits.values())) == 34 * 3


def test_unseen_takes_validation_from_training_speakers_where_there_is_no_other() -> None:
    _, splits, notes = split(clips_of(["s1", "s3", "s4"], 40), "unseen")
    assert {name: (speakers_of(clips), len(clips)) for name, clips in splits.items()} == {
        "train": ({"s3", "s4"}, 76),
        "valid": ({"s3", "s4"}, 4),
        "test": ({"s1"}, 40),
    }
    assert notes == ["there are no clips of s11 and s30: valid has sentences of training speakers"]


def test_unseen_without_training_speakers_is_an_error_that_names_another_rule() -> None:
    with pytest.raises(DataError, match=r"leaves no clips for training.*of s1, s2; .*--split overlap or speaker:S"):
        split(clips_of(["s1", "s2"], 5), "unseen")


def test_overlap_takes_255_sentences_of_each_speaker() -> None:
    name, splits, _ = split(clips_of(["s1", "s2"], 1000) + clips_of(["s3"], 30), "overlap")
    assert name == "overlap"
    sizes = {
        (name, speaker): sum(clip.source.speaker == speaker for clip in clips)
        for name, clips in splits.items()
        for speaker in ("s1", "s2", "s3")
    }
    assert [sizes["test", speaker] for speaker in ("s1", "s2", "s3")] == [255, 255, 10]
    assert [sizes["valid", speaker] for speaker in ("s1", "s2", "s3")] == [50, 50, 2]


def test_a_missing_clip_changes_the_split_of_few_others() -> None:
    clips = clips_of(["s1"], 1000)
    before = split(clips, "overlap")[1]
    after = split(clips[1:], "overlap")[1]
    for name in before:
        assert len({clip.id for clip in before[name]} ^ {clip.id for clip in after[name]}) <= 3


def test_one_speaker_and_the_others() -> None:
    clips = clips_of(["s1"], 600) + clips_of(["s2", "s10"], 5)
    name, splits, _ = split(clips, "speaker:s1")
    assert name == "s1"
    assert {name: len(part) for name, part in splits.items()} == {"train": 500, "valid": 50, "test": 50, "others": 10}
    assert speakers_of(splits["others"]) == {"s2", "s10"}
    with pytest.raises(DataError, match=r"no usable clips of the speaker 's5'; there are some of s1, s2, s10"):
        split(clips, "speaker:s5")


def split_folder(clips: Sequence[PreparedClip], seed: int = 0) -> Splits:
    assignment = assign_splits("folder", clips, Path("/dst"), seed, split="speakers")
    return assignment.directories[Path("/dst")]


def test_a_folder_shares_no_speaker_between_splits() -> None:
    clips = [clip for number, speaker in enumerate(ALL) for clip in clips_of([speaker], 1 + 7 * number % 11)]
    face = replace(clips[0].source, id=f"{clips[0].id}_face2", speaker="")
    seen = set()
    for seed in range(20):
        splits = split_folder([*clips, PreparedClip(face, clips[0].result)], seed)
        parts = [speakers_of(splits[name]) - {""} for name in ("train", "valid", "test")]
        assert set.union(*parts) == set(ALL)
        assert sum(map(len, parts)) == len(ALL)
        for name in ("valid", "test"):
            assert 0.05 * len(clips) <= len(splits[name]) <= 0.15 * len(clips)
        (home,) = (name for name, part in splits.items() if clips[0] in part)
        assert face.id in {clip.id for clip in splits[home]}
        seen.add(tuple(sorted(parts[2])))
    assert len(seen) > 10


def test_a_folder_of_three_speakers_of_any_size_is_split() -> None:
    splits = split_folder(clips_of(["a"], 90) + clips_of(["b"], 5) + clips_of(["c"], 5))
    assert len(splits["train"]) == 90
    assert {len(splits[name]) for name in ("valid", "test")} == {5}


def test_unknown_and_too_few_speakers_are_errors() -> None:
    with pytest.raises(
        DataError, match=r"the speaker of 2 clips is unknown \(/0000, /0001\); name it in speakers\.tsv"
    ):
        split_folder(clips_of(["a", "b", "c"], 2) + clips_of([""], 2))
    with pytest.raises(DataError, match=r"there are 2 speakers \(a, b\); --split speakers needs at least 3"):
        split_folder(clips_of(["a", "b"], 5))


@pytest.mark.parametrize(
    ("corpus", "rule", "message"),
    [
        ("grid", "everything", "unknown split 'everything'"),
        ("grid", "speaker:", "unknown split 'speaker:'"),
        ("lrs3", "unseen", "--split is for the corpora grid and folder, not for lrs3"),
        ("folder", "unseen", "unknown split 'unseen'; known: speakers"),
    ],
)
def test_unknown_rules_are_errors(corpus: str, rule: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_split(corpus, rule)
