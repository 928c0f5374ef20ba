"""Feature arrays on disk, in shards, so that features of any amount of data can be clustered and resumed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avhubert.data.manifest import Clip
from avhubert.errors import DataError
from avhubert.features.extractors import Extractor
from avhubert.files import atomic_path, sha256, write_json, write_text
from avhubert.report import progress

SHARD_FRAMES = 25_000  # video frames per shard: 16 MB of MFCC, 51 MB of a layer of Large


@dataclass(frozen=True)
class Shard:
    """Position of a shard's first clip in the list of clips, and the feature frames of each of its clips."""

    first: int
    frames: list[int]


class Shards:
    """Features of clips in a folder: NNNNN.npy [frames of some clips, D], and NNNNN.json with each clip's frames."""

    def __init__(self, folder: Path, shards: list[Shard]) -> None:
        self.folder = folder
        self._shards = shards

    @property
    def frames(self) -> list[int]:
        """Feature frames of each clip."""
        return [frames for shard in self._shards for frames in shard.frames]

    def clips(self, chosen: Iterable[int] | None = None) -> Iterator[np.ndarray]:
        """Features [F, D] of the clips at the positions `chosen` (None: all), in order; one shard is in memory."""
        wanted = None if chosen is None else set(chosen)
        for number, shard in enumerate(self._shards):
            if wanted is not None and wanted.isdisjoint(range(shard.first, shard.first + len(shard.frames))):
                continue
            rows = np.load(self.folder / f"{number:05}.npy")
            start = 0
            for index, length in enumerate(shard.frames, shard.first):
                if wanted is None or index in wanted:
                    yield rows[start : start + length]
                start += length


def write_shards(folder: Path, clips: Sequence[Clip], extractor: Extractor, name: str) -> Shards:
    """Compute the features that `folder` does not hold yet.

    The folder belongs to these clips and features: one that holds others is emptied. A shard is complete when its list
    of frames exists and its array has the hash in it; an incomplete one is computed again.

    Args:
        folder: where the shards are.
        clips: whose features are computed.
        extractor: computes them.
        name: of the progress bar.
    """
    lines = [[c.id, str(c.video), str(c.audio), c.video_frames, c.audio_samples] for c in clips]
    identity = hashlib.sha256(json.dumps([extractor.identity, lines]).encode()).hexdigest()
    identity_file = folder / "identity"
    if not (identity_file.exists() and identity_file.read_text(encoding="utf-8") == identity):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_text(identity_file, identity)
    shards = []
    with progress() as bar:
        task = bar.add_task(f"features: {name}", total=len(clips), unit="clips")
        for number, (first, end) in enumerate(_plan(clips)):
            frames = _read_frames(folder, number, end - first)
            if frames is None:
                frames = _write_shard(folder, number, clips[first:end], extractor, lambda: bar.advance(task))
            else:
                bar.advance(task, end - first)
            shards.append(Shard(first, frames))
    return Shards(folder, shards)


def _plan(clips: Sequence[Clip]) -> Iterator[tuple[int, int]]:
    """Ranges of clips, [first, end), of about SHARD_FRAMES video frames."""
    first, frames = 0, 0
    for index, clip in enumerate(clips):
        if frames and frames + clip.frames > SHARD_FRAMES:
            yield first, index
            first, frames = index, 0
        frames += clip.frames
    if first < len(clips):
        yield first, len(clips)


def _read_frames(folder: Path, number: int, clips: int) -> list[int] | None:
    """Frames of each clip of a shard, or None if the shard is incomplete."""
    try:
        entry = json.loads((folder / f"{number:05}.json").read_text(encoding="utf-8"))
        frames: list[int] = entry["frames"]
        complete = len(frames) == clips and sha256(folder / f"{number:05}.npy") == entry["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return frames if complete else None


def _write_shard(
    folder: Path, number: int, clips: Sequence[Clip], extractor: Extractor, advance: Callable[[], object]
) -> list[int]:
    rows: list[np.ndarray] = [np.empty(0)] * len(clips)
    for index, features in extractor.extract(clips):
        with np.errstate(over="ignore"):
            rows[index] = features.astype(extractor.dtype)
        if not np.isfinite(rows[index]).all():
            raise DataError(
                f"the features of clip '{clips[index].id}' are not finite in {np.dtype(extractor.dtype).name}: "
                "the model has diverged, use an earlier checkpoint"
            )
        advance()
    with atomic_path(folder / f"{number:05}.npy") as temporary:
        np.save(temporary, np.concatenate(rows))
        digest = sha256(temporary)
    frames = [len(row) for row in rows]
    write_json(folder / f"{number:05}.json", {"frames": frames, "sha256": digest})
    return frames
