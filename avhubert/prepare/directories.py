"""Writes data directories: manifests, transcripts, phones and the tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from avhubert.constants import NUM_SPECIALS
from avhubert.corpora.sources import phones_per_frame
from avhubert.data.labels import write_dictionary
from avhubert.data.manifest import Clip, write_manifest
from avhubert.data.preparation import write_crop
from avhubert.data.tokenizer import Tokenizer, train_tokenizer
from avhubert.data.transcripts import write_phones, write_transcripts
from avhubert.files import atomic_path
from avhubert.prepare.clip import media_paths
from avhubert.prepare.records import PreparedClip, Splits


def write_directories(directories: Mapping[Path, Splits], dst: Path, vocab_size: int, crop: str) -> list[str]:
    """Write every data directory, with one tokenizer from the largest training split; returns messages for the user."""
    notes = []
    largest = max((splits["train"] for splits in directories.values()), key=len)
    texts = [clip.source.text for clip in largest if clip.source.text]
    tokenizer = train_tokenizer(texts, vocab_size) if texts else None
    if tokenizer is not None and tokenizer.vocab_size < vocab_size:
        notes.append(f"the tokenizer has {tokenizer.vocab_size} symbols: the text supports no more than that")
    for directory, splits in directories.items():
        directory.mkdir(parents=True, exist_ok=True)
        write_crop(directory, crop)
        if tokenizer is not None:
            _write_tokenizer(directory, tokenizer, splits["train"])
        for split, clips in splits.items():
            if clips:
                _write_split(directory, split, sorted(clips, key=lambda clip: clip.id), dst)
    return notes


def _write_tokenizer(directory: Path, tokenizer: Tokenizer, clips: Sequence[PreparedClip]) -> None:
    with atomic_path(directory / "tokenizer.model") as temporary:
        temporary.write_bytes(tokenizer.serialized)
    counts = Counter(token for clip in clips for token in tokenizer.encode(clip.source.text or ""))
    symbols = enumerate(tokenizer.symbols[NUM_SPECIALS:], NUM_SPECIALS)
    write_dictionary(directory / "dict.wrd.txt", {symbol: counts[token] for token, symbol in symbols})


def _write_split(directory: Path, split: str, clips: Sequence[PreparedClip], dst: Path) -> None:
    """Write transcripts and phones before the manifest: a split that has its manifest is complete."""
    if all(clip.source.text for clip in clips):
        write_transcripts(directory / f"{split}.wrd", [clip.source.text or "" for clip in clips])
    if any(clip.source.phones for clip in clips):
        rows = [
            phones_per_frame(clip.source.phones, clip.result.length, clip.source.start) if clip.source.phones else []
            for clip in clips
        ]
        write_phones(directory / f"{split}.phn", rows)
    manifest = [
        Clip(clip.id, *media_paths(dst, clip.id), clip.result.frames, clip.result.samples, clip.source.speaker)
        for clip in clips
    ]
    write_manifest(directory / f"{split}.tsv", manifest, dst)
