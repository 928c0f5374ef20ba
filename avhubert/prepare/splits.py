"""Which clips go to which split of which data directory, and the files of a data directory."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from avhubert.constants import NUM_SPECIALS, SPLITS
from avhubert.corpora.folder import FACE
from avhubert.corpora.sources import Rejected, SourceClip, phones_per_frame, read_ids
from avhubert.data.labels import write_dictionary
from avhubert.data.manifest import Clip, write_manifest
from avhubert.data.tokenizer import train_tokenizer
from avhubert.data.transcripts import write_phones, write_transcripts
from avhubert.errors import DataError
from avhubert.files import atomic_path
from avhubert.prepare.clip import media_paths
from avhubert.prepare.records import Done

VALID_SHARE = 0.1


# --------------------------------------------------------------------------- data directories
def _draw_valid(clips: Sequence[SourceClip], seed: int, share: float = VALID_SHARE) -> set[str]:
    """Ids of the validation clips: a tenth, at least one."""
    names = sorted(clip.id for clip in clips)
    return set(random.Random(seed).sample(names, max(1, round(share * len(names)))))


def listed_ids(clips: Sequence[SourceClip], rejected: Sequence[Rejected], path: Path) -> set[str]:
    """Ids of the clips that a list names, those of a video in pieces too; DataError if it names what isn't there."""
    names = read_ids(path)
    by_video = {clip.id: f"{clip.id.rpartition('/')[0]}/{clip.path.stem}" for clip in clips if clip.split != "test"}
    unknown = names - set(by_video) - set(by_video.values()) - {one.id for one in rejected}
    if unknown:
        raise DataError(
            f"{path} names {len(unknown)} ids that the corpus has neither in pretrain/ nor in trainval/, such as "
            f"'{min(unknown)}'; ids are paths without suffix"
        )
    return {one for one, video in by_video.items() if one in names or video in names}


def make_splits(
    corpus: str, clips: Sequence[SourceClip], dst: Path, seed: int, listed: set[str] | None = None
) -> tuple[dict[Path, dict[str, list[SourceClip]]], list[str], list[Rejected]]:
    """Data directory → split → clips; notes; and clips that no split takes."""
    by_split: dict[str, list[SourceClip]] = {}
    for clip in clips:
        by_split.setdefault(clip.split, []).append(clip)
    if corpus == "lrs3":
        labelled = by_split.get("trainval") or by_split.get("pretrain", [])
        if len(labelled) < 2:
            raise DataError(
                "trainval/ and pretrain/ have fewer than 2 usable clips; training needs one and validation another"
            )
        valid = _draw_valid(labelled, seed) if listed is None else listed
        if not any(clip.id in valid for clip in labelled) or all(clip.id in valid for clip in labelled):
            raise DataError("of the clips that can be used all or none are for validation; training needs some of each")
        small = [clip for clip in labelled if clip.id not in valid]
        large = [
            *(clip for clip in by_split.get("pretrain", []) if clip.id not in valid),
            *by_split.get("trainval", []),
        ]
        large = [clip for clip in large if clip.id not in valid]
        others = {"valid": [clip for clip in labelled if clip.id in valid], "test": by_split.get("test", [])}
        return {dst / "30h": {"train": small, **others}, dst / "433h": {"train": large, **others}}, [], []
    if corpus == "vox2":
        english = by_split.get("en", [])
        notes = (
            []
            if english
            else ["no English ids (--english-ids, or english.txt beside the videos): DST/en is not written"]
        )
        found = {}
        for name, chosen in (("en", english), ("all", list(clips))):
            if len(chosen) > 1:
                valid = _draw_valid(chosen, seed, 0.01)
                found[dst / name] = {
                    "train": [clip for clip in chosen if clip.id not in valid],
                    "valid": [clip for clip in chosen if clip.id in valid],
                }
        if not found:
            raise DataError("only one clip can be used; training needs one and validation another")
        return found, notes, []
    rejected = []
    if any(clip.text for clip in clips) and not all(clip.text for clip in clips):
        rejected = [
            Rejected(
                clip.id,
                "another face beside the one that says the transcript"
                if FACE.search(clip.id)
                else "no transcript beside it while other videos have one",
            )
            for clip in clips
            if not clip.text
        ]
        clips = [clip for clip in clips if clip.text]
    given = {split: [clip for clip in clips if clip.split == split] for split in SPLITS}
    rest = [clip for clip in clips if not clip.split]
    notes = (
        []
        if any(clip.text for clip in clips)
        else ["no transcripts: this data can be learned from, but not fine-tuned on"]
    )
    if len(rest) >= 3:
        for name in ("test", "valid"):
            if not given[name]:
                drawn = _draw_valid(rest, seed)
                given[name] = [clip for clip in rest if clip.id in drawn]
                rest = [clip for clip in rest if clip.id not in drawn]
    given["train"] += rest
    return {dst: given}, notes, rejected


def write_directories(
    directories: dict[Path, dict[str, list[SourceClip]]], done: dict[str, Done], dst: Path, vocab_size: int
) -> list[str]:
    """Every data directory, with one tokenizer from the largest training split; returns what a user should know."""
    notes = []
    largest = max((splits["train"] for splits in directories.values()), key=len)
    texts = [clip.text for clip in largest if clip.text]
    tokenizer = train_tokenizer(texts, vocab_size) if texts else None
    if tokenizer is not None and tokenizer.vocab_size < vocab_size:
        notes.append(f"the tokenizer has {tokenizer.vocab_size} symbols: the text supports no more than that")
    for directory, splits in directories.items():
        directory.mkdir(parents=True, exist_ok=True)
        if tokenizer is not None:
            with atomic_path(directory / "tokenizer.model") as temporary:
                temporary.write_bytes(tokenizer.serialized)
            counts = Counter(i for clip in splits["train"] for i in tokenizer.encode(clip.text or ""))
            symbols = enumerate(tokenizer.symbols[NUM_SPECIALS:], NUM_SPECIALS)
            write_dictionary(directory / "dict.wrd.txt", {symbol: counts[i] for i, symbol in symbols})
        for split, chosen in splits.items():
            if chosen:
                _write_split(directory, split, sorted(chosen, key=lambda clip: clip.id), done, dst)
    return notes


def _write_split(directory: Path, split: str, clips: Sequence[SourceClip], done: dict[str, Done], dst: Path) -> None:
    """Transcripts and phones first: a split whose manifest is there is whole."""
    if all(clip.text for clip in clips):
        write_transcripts(directory / f"{split}.wrd", [clip.text or "" for clip in clips])
    if all(clip.phones for clip in clips):
        rows = [phones_per_frame(clip.phones, done[clip.id].frames, clip.start) for clip in clips if clip.phones]
        write_phones(directory / f"{split}.phn", rows)
    manifest = [
        Clip(clip.id, *media_paths(dst, clip.id), done[clip.id].frames, done[clip.id].samples) for clip in clips
    ]
    write_manifest(directory / f"{split}.tsv", manifest, dst)
