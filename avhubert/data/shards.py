"""Shards: the clips of a data directory in a few large tar files (WebDataset's format) instead of many small files.

The network file system of a compute cluster reads one file of a gigabyte much faster than two thousand small ones. For
each clip, a shard contains NUMBER.npy (gray frames, uint8 [T, H, W]), NUMBER.wav (16 kHz mono), NUMBER.json (id,
lengths and, if known, speaker) and, with a transcript, NUMBER.txt. SHARD.tar.json beside the shard has the offset and
the checksum of each member, so that a damaged one is detected whenever it is read. A path in the manifest is that of
the tar file and the name of the member, as if the tar file were a folder; so clips can be read in any order, and
batches are equal to those of the original files. Frames are stored decoded: a clip takes about seven times the space
and a twenty-fifth of the time to read (benchmarks/bench_shards.py).
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from avhubert.config.command_defaults import SHARD_MB
from avhubert.constants import SPLITS
from avhubert.data.arrays import parse_array
from avhubert.data.audio import read_audio, wav_bytes
from avhubert.data.manifest import Clip, read_manifest, write_manifest
from avhubert.data.preparation import RECORD
from avhubert.data.transcripts import read_transcripts
from avhubert.data.video import read_gray
from avhubert.encoding import placeholder_message
from avhubert.errors import DataError, MediaError
from avhubert.files import atomic_path, output_directory, read_json_object, write_json
from avhubert.report import progress

FRAME_BYTES = 96 * 96
LARGEST_SHARD = 1 << 50  # bytes
SHARED_FILES = ("tokenizer.model", "dict.wrd.txt", RECORD)  # of all splits of a data directory; optional


def clip_frames(path: Path) -> np.ndarray:
    """Read all frames of a mouth clip from a video file or from a shard.

    Args:
        path: a video file, or the path of a tar file and the name of its member.

    Returns:
        Gray levels uint8 [T, H, W].

    Raises:
        MediaError: the file or shard is missing or damaged; see also `read_gray`.
    """
    content = _member(path)
    if content is None:
        return read_gray(path)
    try:
        return parse_array(content)
    except ValueError as error:
        raise MediaError(f"{path} is damaged; make the shards again") from error


def clip_samples(path: Path) -> np.ndarray:
    """Read the audio of a clip from a media file or from a shard.

    Args:
        path: a media file, or the path of a tar file and the name of its member.

    Returns:
        Samples int16 [N] at 16 kHz.

    Raises:
        MediaError: the file or shard is missing or damaged; see also `read_audio`.
    """
    content = _member(path)
    if content is None:
        return read_audio(path)
    if content[:4] != b"RIFF" or len(content) < 44:
        raise MediaError(f"{path} is damaged; make the shards again")
    return np.frombuffer(content, "<i2", offset=44).astype(np.int16)


def _member(path: Path) -> bytes | None:
    """The content of a member of a shard; None for any other path."""
    tar = path.parent
    if tar.suffix != ".tar":
        return None
    index = _index(tar)
    if path.name not in index:
        raise MediaError(f"the shard {tar} has no {path.name}; make the shards again")
    member = index[path.name]
    try:
        with open(tar, "rb") as file:
            content = member.read(file)
    except OSError as error:
        raise MediaError(f"cannot read the shard {tar}: {error.strerror}") from error
    if content is None:
        problem = placeholder_message(tar) or f"{path.name} in the shard {tar} is damaged; make the shards again"
        raise MediaError(problem, path=tar)
    return content


@dataclass(frozen=True)
class _Member:
    """Where a member is in its shard: offset and size in bytes, and its CRC-32 (None: of an earlier version)."""

    offset: int
    size: int
    checksum: int | None

    def read(self, file: BinaryIO) -> bytes | None:
        """The content; None if it is not the one that was written."""
        if self.offset + self.size > os.fstat(file.fileno()).st_size:
            return None  # before so many bytes are asked for
        file.seek(self.offset)  # not os.pread, which Windows lacks
        content = file.read(self.size)
        if len(content) != self.size or (self.checksum is not None and zlib.crc32(content) != self.checksum):
            return None
        return content


@lru_cache(maxsize=4096)
def _index(tar: Path) -> dict[str, _Member]:
    """The members of a shard by name."""
    try:
        return _members(read_json_object(_index_path(tar)))
    except (DataError, ValueError) as error:
        problem = f"the index {_index_path(tar)} is missing or damaged; make the shards again"
        raise MediaError(placeholder_message(_index_path(tar)) or problem, path=tar) from error


def _members(index: dict[str, Any]) -> dict[str, _Member]:
    """The members in an index; ValueError if it does not describe any."""
    rows = index.get("members")
    if not isinstance(rows, dict):
        raise ValueError("it has no members")
    members: dict[str, _Member] = {}
    for name, row in rows.items():
        if not (isinstance(row, list) and len(row) in (2, 3) and all(type(number) is int for number in row)):
            raise ValueError(f"{name} is not described by whole numbers")
        offset, size = row[:2]
        if not (0 <= offset < LARGEST_SHARD and 0 <= size < LARGEST_SHARD):
            raise ValueError(f"{name} has an impossible place")
        members[name] = _Member(offset, size, row[2] if len(row) == 3 else None)
    return members


def _index_path(tar: Path) -> Path:
    return tar.with_name(f"{tar.name}.json")


def make_shards(data: str | Path, out: str | Path, shard_mb: int = SHARD_MB) -> str:
    """Convert a data directory to one with shards.

    If it was interrupted, run it again to resume: finished shards are kept, and each manifest is written after its
    shards. The bytes of a shard depend on its clips only.

    Args:
        data: a data directory.
        out: the new data directory.
        shard_mb: approximate size of a shard in megabytes.

    Returns:
        A summary for the user.

    Raises:
        DataError: there is no manifest in `data`.
        MediaError: a clip cannot be read; the message has its id.
        ConfigError: `out` cannot be written.
    """
    data = Path(data)
    splits = [split for split in SPLITS if (data / f"{split}.tsv").is_file()]
    if not splits:
        raise DataError(f"{data} has no train.tsv, valid.tsv or test.tsv; give a data directory")
    out = output_directory(out).resolve()
    clips_of = {split: read_manifest(data / f"{split}.tsv") for split in splits}
    clip_count = sum(map(len, clips_of.values()))
    shard_count = 0
    with progress() as bar:
        task = bar.add_task("making shards", total=clip_count, unit="clips")
        for split, clips in clips_of.items():
            texts: Sequence[str | None] = [None] * len(clips)
            if (data / f"{split}.wrd").is_file():
                texts = read_transcripts(data / f"{split}.wrd", clips)
            members: list[Clip] = []
            for number, indices in enumerate(_group(clips, shard_mb * 1_000_000)):
                tar = out / "shards" / f"{split}-{number:06d}.tar"
                tar.parent.mkdir(exist_ok=True)
                rows = [[clips[i].id, clips[i].video_frames, clips[i].audio_samples, texts[i]] for i in indices]
                if not _is_complete(tar, rows):
                    _write_shard(tar, rows, [clips[i] for i in indices])
                shard_count += 1
                members += [_member_clip(clips[i], tar, position) for position, i in enumerate(indices)]
                bar.advance(task, len(indices))
            for extension in ("wrd", "phn"):
                _copy(data / f"{split}.{extension}", out)
            write_manifest(out / f"{split}.tsv", members, out)
    for name in SHARED_FILES:
        _copy(data / name, out)
    return f"{clip_count} clips in {shard_count} shards\ndata directory: {out}"


def _copy(path: Path, folder: Path) -> None:
    """Copy a file to a folder atomically, if it exists."""
    if path.is_file():
        with atomic_path(folder / path.name) as temporary:
            shutil.copyfile(path, temporary)


def _group(clips: Sequence[Clip], max_bytes: int) -> Iterator[list[int]]:
    """Indices of consecutive clips for each shard, up to `max_bytes` bytes; a larger clip is a group of its own."""
    group: list[int] = []
    group_bytes = 0
    for index, clip in enumerate(clips):
        clip_bytes = FRAME_BYTES * clip.video_frames + 2 * clip.audio_samples
        if group and group_bytes + clip_bytes > max_bytes:
            yield group
            group, group_bytes = [], 0
        group.append(index)
        group_bytes += clip_bytes
    if group:
        yield group


def _member_clip(clip: Clip, tar: Path, position: int) -> Clip:
    """The clip with the paths of its members in a shard."""
    name = f"{position:06d}"
    return Clip(clip.id, tar / f"{name}.npy", tar / f"{name}.wav", clip.video_frames, clip.audio_samples, clip.speaker)


def _is_complete(tar: Path, rows: list[list[Any]]) -> bool:
    """Whether a shard of these clips (id, video frames, audio samples, transcript) is complete and undamaged."""
    if not (tar.is_file() and _index_path(tar).is_file()):
        return False
    try:
        index = read_json_object(_index_path(tar))
        members = _members(index)
    except (DataError, ValueError):
        return False
    if index.get("clips") != rows or index.get("bytes") != tar.stat().st_size:
        return False
    with open(tar, "rb") as file:
        return all(member.read(file) is not None for member in members.values())


def _write_shard(tar: Path, rows: list[list[Any]], clips: Sequence[Clip]) -> None:
    """Write a shard and, as the last step, its index."""
    members: dict[str, tuple[int, int, int]] = {}
    with atomic_path(tar) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as shard:
            for position, (clip, (_, _, _, text)) in enumerate(zip(clips, rows, strict=True)):
                try:
                    contents = list(_contents(clip, text))
                except MediaError as error:
                    raise MediaError(f"clip '{clip.id}': {error}") from error
                for extension, content in contents:
                    info = tarfile.TarInfo(f"{position:06d}.{extension}")
                    info.size = len(content)
                    shard.addfile(info, io.BytesIO(content))
                    offset = shard.offset - _padded(len(content))
                    members[info.name] = (offset, len(content), zlib.crc32(content))
        size = temporary.stat().st_size
    _index.cache_clear()
    write_json(_index_path(tar), {"format": 1, "bytes": size, "clips": rows, "members": members})


def _padded(size: int) -> int:
    """The size of a member in the tar file, whose members are padded to whole blocks."""
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _contents(clip: Clip, text: str | None) -> Iterator[tuple[str, bytes]]:
    """Extension and content of each member of a clip."""
    description: dict[str, str | int] = {
        "id": clip.id,
        "video_frames": clip.video_frames,
        "audio_samples": clip.audio_samples,
    }
    if clip.speaker:
        description["speaker"] = clip.speaker
    yield "json", json.dumps(description, ensure_ascii=False).encode()
    if clip.video_frames:
        buffer = io.BytesIO()
        np.save(buffer, clip_frames(clip.video))
        yield "npy", buffer.getvalue()
    if clip.audio_samples:
        yield "wav", wav_bytes(clip_samples(clip.audio))
    if text is not None:
        yield "txt", text.encode()
