"""Feature arrays on disk, in shards."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from avhubert.data.manifest import Clip
from avhubert.errors import DataError
from avhubert.features.extractors import Extractor
from avhubert.files import atomic_path, sha256, write_json
from avhubert.report import progress

SHARD_FRAMES = 25_000  # video frames per shard: 16 MB of MFCC, 51 MB of a layer of Large


# --------------------------------------------------------------------------- shards on disk
class Shards:
    """Features of clips in a folder: NNNNN.npy [frames of some clips, D], and NNNNN.json with each clip's frames."""

    def __init__(self, folder: Path, parts: list[tuple[int, list[int]]]) -> None:
        self.folder = folder
        self._parts = parts  # of each shard: position of its first clip, frames of its clips
        self.frames = [frames for _, part in parts for frames in part]  # of each clip

    def clips(self, chosen: Iterable[int] | None = None) -> Iterator[np.ndarray]:
        """[F, D] of all clips, or of those at the positions `chosen`, in order; one shard is in memory at a time."""
        wanted = None if chosen is None else set(chosen)
        for number, (first, lengths) in enumerate(self._parts):
            if wanted is not None and wanted.isdisjoint(range(first, first + len(lengths))):
                continue
            rows = np.load(self.folder / f"{number:05}.npy")
            start = 0
            for index, length in enumerate(lengths, first):
                if wanted is None or index in wanted:
                    yield rows[start : start + length]
                start += length


def write_shards(folder: Path, clips: Sequence[Clip], source: Extractor, what: str) -> Shards:
    """Compute what `folder` does not hold yet, with a progress bar named `what`.

    The folder belongs to these clips and features: one that holds others is emptied. A shard counts as done when its
    list is there and its bytes have the hash in it, so a torn one is done again.
    """
    lines = [[c.id, str(c.video), str(c.audio), c.video_frames, c.audio_samples] for c in clips]
    identity = hashlib.sha256(json.dumps([source.identity, lines]).encode()).hexdigest()
    mark = folder / "identity"
    if not (mark.exists() and mark.read_text() == identity):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        mark.write_text(identity)
    parts = []
    with progress() as bar:
        task = bar.add_task(f"features: {what}", total=len(clips), unit="clips")
        for number, (first, last) in enumerate(_plan(clips)):
            frames = _read_shard(folder, number, last - first)
            if frames is None:
                frames = _write_shard(folder, number, clips[first:last], source, lambda: bar.advance(task))
            else:
                bar.advance(task, last - first)
            parts.append((first, frames))
    return Shards(folder, parts)


def _plan(clips: Sequence[Clip]) -> Iterator[tuple[int, int]]:
    """Runs of clips, [first, last), of about SHARD_FRAMES video frames."""
    first, held = 0, 0
    for index, clip in enumerate(clips):
        if held and held + clip.frames > SHARD_FRAMES:
            yield first, index
            first, held = index, 0
        held += clip.frames
    if first < len(clips):
        yield first, len(clips)


def _read_shard(folder: Path, number: int, clips: int) -> list[int] | None:
    """Frames of each clip of a shard that is complete, else None."""
    try:
        kept = json.loads((folder / f"{number:05}.json").read_text())
        whole = len(kept["frames"]) == clips and sha256(folder / f"{number:05}.npy") == kept["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept["frames"] if whole else None


def _write_shard(
    folder: Path, number: int, clips: Sequence[Clip], source: Extractor, done: Callable[[], object]
) -> list[int]:
    rows: list[np.ndarray] = [np.empty(0)] * len(clips)
    for index, x in source.over(clips):
        with np.errstate(over="ignore"):
            rows[index] = x.astype(source.dtype)
        if not np.isfinite(rows[index]).all():
            raise DataError(
                f"the features of clip '{clips[index].id}' are not finite in {np.dtype(source.dtype).name}: "
                "the model has diverged, use an earlier checkpoint"
            )
        done()
    with atomic_path(folder / f"{number:05}.npy") as temporary:
        np.save(temporary, np.concatenate(rows))
        digest = sha256(temporary)
    frames = [len(row) for row in rows]
    write_json(folder / f"{number:05}.json", {"frames": frames, "sha256": digest})
    return frames
