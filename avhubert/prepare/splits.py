"""Which clips go to which split of which data directory: one rule per corpus."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from avhubert.constants import SPLITS
from avhubert.corpora.folder import FACE
from avhubert.corpora.sources import Listing, Rejection, read_ids
from avhubert.errors import ConfigError, DataError, one_of
from avhubert.prepare.records import Assignment, PreparedClip, Splits
from avhubert.prepare.speaker_splits import BY_SPEAKER, UNSEEN, check_grid_split, divide_speakers, grid_splits

VALID_SHARE = 0.1  # of the clips, if the corpus has no validation split
VOX2_VALID_SHARE = 0.01


def check_split(corpus: str, split: str | None) -> None:
    """ConfigError if the corpus has no split of that name."""
    if split is None:
        return
    if corpus == "grid":
        check_grid_split(split)
    elif corpus != "folder":
        raise ConfigError(f"--split is for the corpora grid and folder, not for {corpus}")
    elif split != BY_SPEAKER:
        raise ConfigError(one_of("split", split, (BY_SPEAKER,)))


def assign_splits(
    corpus: str,
    clips: Sequence[PreparedClip],
    dst: Path,
    seed: int,
    valid_ids: set[str] | None = None,
    split: str | None = None,
) -> Assignment:
    """Assign usable clips to splits.

    Args:
        corpus: Name of the corpus.
        clips: The usable clips.
        dst: The output folder.
        seed: Seed of drawn splits.
        valid_ids: Ids of the validation clips (LRS3); None: drawn.
        split: The rule of `--split`; None: that of the corpus.

    Raises:
        DataError: There are too few clips for training and validation.
    """
    if corpus == "lrs3":
        return _lrs3_splits(clips, dst, seed, valid_ids)
    if corpus == "vox2":
        return _vox2_splits(clips, dst, seed)
    if corpus == "grid":
        return grid_splits(clips, dst, split or UNSEEN)
    return _folder_splits(clips, dst, seed, by_speaker=split == BY_SPEAKER)


def _lrs3_splits(clips: Sequence[PreparedClip], dst: Path, seed: int, valid_ids: set[str] | None) -> Assignment:
    """30h: the trainval clips (pretrain clips if there are none); 433h: pretrain and trainval; the same validation."""
    pretrain, trainval, test = (
        [clip for clip in clips if clip.source.split == split] for split in ("pretrain", "trainval", "test")
    )
    small = trainval or pretrain
    if len(small) < 2:
        raise DataError(
            "trainval/ and pretrain/ have fewer than 2 usable clips; training needs one and validation another"
        )
    valid_ids = _draw_ids(small, seed) if valid_ids is None else valid_ids
    valid, small_train = _divide(small, valid_ids)
    if not valid or not small_train:
        raise DataError("of the usable clips all or none are for validation; training needs some of each")
    _, large_train = _divide([*pretrain, *trainval], valid_ids)
    return Assignment(
        {
            dst / "30h": {"train": small_train, "valid": valid, "test": test},
            dst / "433h": {"train": large_train, "valid": valid, "test": test},
        }
    )


def _vox2_splits(clips: Sequence[PreparedClip], dst: Path, seed: int) -> Assignment:
    """en: the English clips; all: all clips. One percent of each is for validation."""
    english = [clip for clip in clips if clip.source.split == "en"]
    directories = {}
    for name, chosen in (("en", english), ("all", list(clips))):
        if len(chosen) > 1:
            valid, train = _divide(chosen, _draw_ids(chosen, seed, VOX2_VALID_SHARE))
            directories[dst / name] = {"train": train, "valid": valid}
    if not directories:
        raise DataError("only one clip can be used; training needs one and validation another")
    note = "no English ids (--english-ids, or english.txt beside the videos): DST/en is not written"
    return Assignment(directories, [] if english else [note])


def _folder_splits(clips: Sequence[PreparedClip], dst: Path, seed: int, by_speaker: bool) -> Assignment:
    """The splits of the folder; splits without clips are drawn from the clips outside train/, valid/ and test/.

    Args:
        clips: The usable clips.
        dst: The output folder.
        seed: Seed of drawn splits.
        by_speaker: No speaker is in two splits, whatever the folders are.
    """
    with_text = [clip for clip in clips if clip.source.text]
    rejections = [_without_text(clip) for clip in clips if not clip.source.text] if with_text else []
    clips = with_text or clips
    note = "no transcripts: this data can be used for pre-training, but not for fine-tuning"
    notes = [] if with_text else [note]
    if by_speaker:
        return Assignment({dst: divide_speakers(clips, VALID_SHARE, seed)}, notes, rejections)
    splits: Splits = {split: [clip for clip in clips if clip.source.split == split] for split in SPLITS}
    rest = [clip for clip in clips if not clip.source.split]
    if len(rest) >= 3:
        for split in ("test", "valid"):
            if not splits[split]:
                splits[split], rest = _divide(rest, _draw_ids(rest, seed))
    splits["train"] += rest
    return Assignment({dst: splits}, notes, rejections)


def _without_text(clip: PreparedClip) -> Rejection:
    if FACE.search(clip.id):
        reason = "another face beside the one that says the transcript"
    else:
        reason = "no transcript beside it while other videos have one"
    return Rejection(clip.id, reason, reason)


def _divide(clips: Sequence[PreparedClip], ids: set[str]) -> tuple[list[PreparedClip], list[PreparedClip]]:
    """The clips with one of these ids, and the others."""
    return [clip for clip in clips if clip.id in ids], [clip for clip in clips if clip.id not in ids]


def _draw_ids(clips: Sequence[PreparedClip], seed: int, share: float = VALID_SHARE) -> set[str]:
    """Draw ids of a share of the clips, at least one."""
    names = sorted(clip.id for clip in clips)
    return set(random.Random(seed).sample(names, max(1, round(share * len(names)))))


def read_valid_ids(path: Path, listing: Listing) -> set[str]:
    """Ids of the clips on a list; the id of a video stands for all its clips. DataError if it names unknown ids."""
    names = read_ids(path)
    video_of = {
        clip.id: f"{clip.id.rpartition('/')[0]}/{clip.path.stem}" for clip in listing.clips if clip.split != "test"
    }
    unknown = names - set(video_of) - set(video_of.values()) - {rejection.id for rejection in listing.rejections}
    if unknown:
        raise DataError(
            f"{path} names {len(unknown)} ids that the corpus has neither in pretrain/ nor in trainval/, such as "
            f"'{min(unknown)}'; ids are paths without suffix",
            path=path,
        )
    return {identifier for identifier, video in video_of.items() if identifier in names or video in names}
