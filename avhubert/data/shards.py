"""Clips of a data directory in a few large tars (WebDataset's form) instead of two small files each.

A cluster's file system opens one file of a gigabyte far more willingly than two thousand small ones. A shard holds, for
each clip, NUMBER.npy (gray frames, uint8 [T, H, W]), NUMBER.wav (16 kHz mono), NUMBER.json (id and lengths) and, with a
transcript, NUMBER.txt; SHARD.tar.json beside it tells where each begins. A manifest names a member as if the tar were a
folder, so that clips are read in any order and batches are those of the files. Frames are decoded once, here: clips
take some seven times the room and a twenty-fifth of the time to read (benchmarks/bench_shards.py).
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from avhubert.config.defaults import SHARD_MB
from avhubert.constants import SPLITS
from avhubert.data.audio import read_audio, wav_bytes
from avhubert.data.manifest import Clip, read_manifest, write_manifest
from avhubert.data.transcripts import read_transcripts
from avhubert.data.video import read_gray
from avhubert.errors import DataError, MediaError
from avhubert.files import atomic_path, output_directory, read_json, write_json
from avhubert.report import progress

FRAME_BYTES = 96 * 96
BESIDE = ("tokenizer.model", "dict.wrd.txt")  # files that a data directory may have once


# --------------------------------------------------------------------------- reading
def clip_frames(path: Path) -> np.ndarray:
    """All frames of a mouth clip, uint8 [T, H, W], from a video or from a shard's member. MediaError as `read_gray`."""
    content = _member(path)
    if content is None:
        return read_gray(path)
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise MediaError(f"{path} is damaged; make the shards again") from error


def clip_samples(path: Path) -> np.ndarray:
    """A clip's sound, int16 [N] at 16 kHz, from a file or from a shard's member. MediaError as `read_audio`."""
    content = _member(path)
    if content is None:
        return read_audio(path)
    if content[:4] != b"RIFF" or len(content) < 44:
        raise MediaError(f"{path} is damaged; make the shards again")
    return np.frombuffer(content, "<i2", offset=44).astype(np.int16)


def _member(path: Path) -> bytes | None:
    """The bytes of a member of a shard; None for any other path."""
    tar = path.parent
    if tar.suffix != ".tar":
        return None
    try:
        offset, size = _index(tar)[path.name]
        with open(tar, "rb") as file:
            content = os.pread(file.fileno(), size, offset)
    except KeyError as error:
        raise MediaError(f"the shard {tar} has no {path.name}; make the shards again") from error
    except OSError as error:
        raise MediaError(f"cannot read the shard {tar}: {error.strerror}") from error
    if len(content) != size:
        raise MediaError(f"the shard {tar} is cut off; make the shards again")
    return content


@lru_cache(maxsize=4096)
def _index(tar: Path) -> dict[str, tuple[int, int]]:
    try:
        return {name: (offset, size) for name, (offset, size) in read_json(_index_path(tar))["members"].items()}
    except (DataError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise MediaError(f"the index {_index_path(tar)} is missing or damaged; make the shards again") from error


def _index_path(tar: Path) -> Path:
    return tar.with_name(f"{tar.name}.json")


# --------------------------------------------------------------------------- writing
def make_shards(data: str | Path, out: str | Path, shard_mb: int = SHARD_MB) -> str:
    """Write the data directory `data` as a data directory of shards, of about `shard_mb` megabytes; says what it did.

    Can be killed and started again: a shard that is there isn't made twice, and manifests come last. The bytes depend
    on the clips alone.

    Raises:
        DataError: no manifest in `data`.
        MediaError: a clip that cannot be read; the sentence names it.
        ConfigError: `out` cannot be written.
    """
    data = Path(data)
    splits = [split for split in SPLITS if (data / f"{split}.tsv").is_file()]
    if not splits:
        raise DataError(f"{data} has no train.tsv, valid.tsv or test.tsv; name a data directory")
    out = output_directory(out).resolve()
    clips = {split: read_manifest(data / f"{split}.tsv") for split in splits}
    made = 0
    with progress() as bar:
        task = bar.add_task("making shards", total=sum(map(len, clips.values())), unit="clips")
        for split, found in clips.items():
            texts: Sequence[str | None] = [None] * len(found)
            if (data / f"{split}.wrd").is_file():
                texts = read_transcripts(data / f"{split}.wrd", found)
            members: list[Clip] = []
            for number, chosen in enumerate(_parts(found, shard_mb * 1_000_000)):
                tar = out / "shards" / f"{split}-{number:06d}.tar"
                tar.parent.mkdir(exist_ok=True)
                plan = [[found[i].id, found[i].video_frames, found[i].audio_samples, texts[i]] for i in chosen]
                if not _is_made(tar, plan):
                    _write_shard(tar, plan, [found[i] for i in chosen])
                made += 1
                members += [_in_shard(found[i], tar, place) for place, i in enumerate(chosen)]
                bar.advance(task, len(chosen))
            for ending in ("wrd", "phn"):
                _copy(data / f"{split}.{ending}", out)
            write_manifest(out / f"{split}.tsv", members, out)
    for name in BESIDE:
        _copy(data / name, out)
    return f"{sum(map(len, clips.values()))} clips in {made} shards\ndata directory: {out}"


def _copy(path: Path, folder: Path) -> None:
    if path.is_file():
        with atomic_path(folder / path.name) as temporary:
            shutil.copyfile(path, temporary)


def _parts(clips: Sequence[Clip], size: int) -> Iterator[list[int]]:
    """Indices of neighbouring clips, so many as make about `size` bytes."""
    part: list[int] = []
    filled = 0
    for index, clip in enumerate(clips):
        needed = FRAME_BYTES * clip.video_frames + 2 * clip.audio_samples
        if part and filled + needed > size:
            yield part
            part, filled = [], 0
        part.append(index)
        filled += needed
    if part:
        yield part


def _in_shard(clip: Clip, tar: Path, place: int) -> Clip:
    return Clip(clip.id, tar / f"{place:06d}.npy", tar / f"{place:06d}.wav", clip.video_frames, clip.audio_samples)


def _is_made(tar: Path, plan: list[list[Any]]) -> bool:
    if not (tar.is_file() and _index_path(tar).is_file()):
        return False
    kept = read_json(_index_path(tar))
    return kept.get("clips") == plan and kept.get("bytes") == tar.stat().st_size


def _write_shard(tar: Path, plan: list[list[Any]], clips: Sequence[Clip]) -> None:
    members: dict[str, tuple[int, int]] = {}
    with atomic_path(tar) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as shard:
            for place, (clip, (_, _, _, text)) in enumerate(zip(clips, plan, strict=True)):
                try:
                    parts = list(_contents(clip, text))
                except MediaError as error:
                    raise MediaError(f"clip '{clip.id}': {error}") from error
                for ending, content in parts:
                    info = tarfile.TarInfo(f"{place:06d}.{ending}")
                    info.size = len(content)
                    shard.addfile(info, io.BytesIO(content))
                    members[info.name] = (shard.offset - _padded(len(content)), len(content))
        size = temporary.stat().st_size
    _index.cache_clear()
    write_json(_index_path(tar), {"format": 1, "bytes": size, "clips": plan, "members": members})


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _contents(clip: Clip, text: str | None) -> Iterator[tuple[str, bytes]]:
    about = {"id": clip.id, "video_frames": clip.video_frames, "audio_samples": clip.audio_samples}
    yield "json", json.dumps(about, ensure_ascii=False).encode()
    if clip.video_frames:
        buffer = io.BytesIO()
        np.save(buffer, clip_frames(clip.video))
        yield "npy", buffer.getvalue()
    if clip.audio_samples:
        yield "wav", wav_bytes(clip_samples(clip.audio))
    if text is not None:
        yield "txt", text.encode()
