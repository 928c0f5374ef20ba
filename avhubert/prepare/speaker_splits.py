"""Splits that depend on who speaks: those of GRID, and `--split speakers` of a folder.

No rule of GRID depends on a seed. Where sentences of a speaker are divided, those with the smallest SHA-256 of their id
(SPEAKER/NAME) go to test, the next ones to valid: so clips that are added or rejected change the split of few others.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from avhubert.constants import SPLITS
from avhubert.corpora.folder import FACE
from avhubert.corpora.grid import speaker_order
from avhubert.corpora.speakers import SPEAKERS_TABLE
from avhubert.errors import ConfigError, DataError, list_names, one_of
from avhubert.prepare.records import Assignment, PreparedClip, Splits

BY_SPEAKER = "speakers"  # `--split` of a folder: no speaker in two splits
UNSEEN, OVERLAP, SPEAKER = "unseen", "overlap", "speaker:"
UNSEEN_TEST = ("s1", "s2", "s20", "s22")  # two men and two women (Assael et al., LipNet, 2016)
UNSEEN_VALID = ("s11", "s30")  # a woman and a man
VALID_SHARE = 0.05  # of the sentences of each speaker, where they are divided
OVERLAP_TEST = 255  # sentences of each speaker (Assael et al.); of a speaker with fewer than three times as many …
OVERLAP_TEST_SHARE = 1 / 3  # … this share
SPEAKER_TEST = 50  # sentences of `speaker:S` in test, and as many in valid, but at most …
SPEAKER_TEST_SHARE = 0.1  # … this share
OTHERS = "others"  # the split of all other speakers' clips in `speaker:S`


def check_grid_split(split: str) -> None:
    """ConfigError if it is no rule for GRID."""
    if split not in (UNSEEN, OVERLAP) and not (split.startswith(SPEAKER) and split != SPEAKER):
        raise ConfigError(one_of("split", split, (UNSEEN, OVERLAP, f"{SPEAKER}S")))


def grid_splits(clips: Sequence[PreparedClip], dst: Path, split: str) -> Assignment:
    """The data directory of a rule: DST/unseen, DST/overlap, or DST/S for `speaker:S`.

    Raises:
        DataError: There are no clips for training or for validation.
    """
    if split == UNSEEN:
        return _unseen(clips, dst / UNSEEN)
    if split == OVERLAP:
        return _overlap(clips, dst / OVERLAP)
    return _of_speaker(clips, dst, split.removeprefix(SPEAKER))


def _unseen(clips: Sequence[PreparedClip], directory: Path) -> Assignment:
    speakers = _by_speaker(clips)
    test = [clip for speaker in UNSEEN_TEST for clip in speakers.get(speaker, [])]
    valid = [clip for speaker in UNSEEN_VALID for clip in speakers.get(speaker, [])]
    others = {name: group for name, group in speakers.items() if name not in (*UNSEEN_TEST, *UNSEEN_VALID)}
    train = [clip for group in others.values() for clip in group]
    notes = []
    if train and not valid:
        divided = [_divide(group, VALID_SHARE * len(group)) for group in others.values()]
        valid, train = [clip for some, _ in divided for clip in some], [clip for _, rest in divided for clip in rest]
        notes.append(f"there are no clips of {' and '.join(UNSEEN_VALID)}: valid has sentences of training speakers")
    if not test:
        notes.append(f"there are no clips of the test speakers {', '.join(UNSEEN_TEST)}: test.tsv is not written")
    _check(train, valid, f"--split {UNSEEN} (test: {', '.join(UNSEEN_TEST)})", speakers)
    return Assignment({directory: {"train": train, "valid": valid, "test": test}}, notes)


def _overlap(clips: Sequence[PreparedClip], directory: Path) -> Assignment:
    splits: Splits = {"train": [], "valid": [], "test": []}
    speakers = _by_speaker(clips)
    for group in speakers.values():
        test, rest = _divide(group, min(OVERLAP_TEST, OVERLAP_TEST_SHARE * len(group)))
        valid, train = _divide(rest, VALID_SHARE * len(group))
        for name, some in (("train", train), ("valid", valid), ("test", test)):
            splits[name] += some
    _check(splits["train"], splits["valid"], f"--split {OVERLAP}", speakers)
    return Assignment({directory: splits})


def _of_speaker(clips: Sequence[PreparedClip], dst: Path, speaker: str) -> Assignment:
    speakers = _by_speaker(clips)
    if speaker not in speakers:
        raise DataError(f"there are no usable clips of the speaker '{speaker}'; there are some of {_names(speakers)}")
    number = min(SPEAKER_TEST, SPEAKER_TEST_SHARE * len(speakers[speaker]))
    test, rest = _divide(speakers[speaker], number)
    valid, train = _divide(rest, number)
    _check(train, valid, f"--split {SPEAKER}{speaker}", {speaker: speakers[speaker]})
    others = [clip for name, group in speakers.items() if name != speaker for clip in group]
    return Assignment({dst / speaker: {"train": train, "valid": valid, "test": test, OTHERS: others}})


def divide_speakers(clips: Sequence[PreparedClip], share: float, seed: int) -> Splits:
    """Splits without a common speaker: test and valid get about the share `share` of the clips each, train the rest.

    Raises:
        DataError: The speaker of a clip is unknown, or there are fewer than three speakers.
    """
    known = {clip.id: clip.source.speaker for clip in clips}
    groups: dict[str, list[PreparedClip]] = {}
    for clip in clips:  # other faces of a recording go where its speaker goes
        groups.setdefault(known[clip.id] or known.get(FACE.sub("", clip.id), ""), []).append(clip)
    if unknown := groups.pop("", []):
        raise DataError(
            f"the speaker of {len(unknown)} clips is unknown ({list_names([clip.id for clip in unknown])}); name it in "
            f"{SPEAKERS_TABLE}, or leave out --split {BY_SPEAKER}"
        )
    if len(groups) < len(SPLITS):
        raise DataError(
            f"there are {len(groups)} speakers ({_names(groups)}); --split {BY_SPEAKER} needs at least {len(SPLITS)}, "
            "one for each of train, valid and test"
        )
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    splits: Splits = {"train": [], "valid": [], "test": []}
    for split in ("test", "valid"):
        for name in _draw(order, {name: len(groups[name]) for name in order}, share * len(clips)):
            splits[split] += groups[name]
            order.remove(name)
    splits["train"] = [clip for name in order for clip in groups[name]]
    return splits


def _draw(order: Sequence[str], sizes: Mapping[str, int], target: float) -> list[str]:
    """The first speakers of an order whose clips make about `target`, at least one speaker, leaving at least two."""
    drawn: list[str] = []
    total = 0
    for name in order:
        if total + sizes[name] <= 1.5 * target and len(order) - len(drawn) > 2:
            drawn.append(name)
            total += sizes[name]
        if total >= target:
            break
    return drawn or [min(order, key=lambda name: (sizes[name], name))]


def _by_speaker(clips: Iterable[PreparedClip]) -> dict[str, list[PreparedClip]]:
    """Clips by speaker, s2 before s10."""
    speakers: dict[str, list[PreparedClip]] = {}
    for clip in clips:
        speakers.setdefault(clip.source.speaker, []).append(clip)
    return {name: speakers[name] for name in sorted(speakers, key=speaker_order)}


def _divide(clips: Sequence[PreparedClip], number: float) -> tuple[list[PreparedClip], list[PreparedClip]]:
    """The `number` clips, rounded, at least one, with the smallest hash of their id, and the others."""
    ordered = sorted(clips, key=lambda clip: hashlib.sha256(clip.id.encode()).digest())
    size = max(1, round(number))
    return ordered[:size], ordered[size:]


def _check(train: Sequence[PreparedClip], valid: Sequence[PreparedClip], rule: str, speakers: Iterable[str]) -> None:
    if not train or not valid:
        raise DataError(
            f"{rule} leaves no clips for {'validation' if train else 'training'}: the usable clips are of "
            f"{_names(speakers)}; add other speakers, or choose --split {OVERLAP} or {SPEAKER}S"
        )


def _names(speakers: Iterable[str]) -> str:
    return ", ".join(sorted(speakers, key=speaker_order)) or "nobody"
