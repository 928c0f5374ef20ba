"""Shards: the clips of a data directory in a few large tar files (WebDataset's format) instead of many small files.

The network file system of a compute cluster reads one file of a gigabyte much faster than two thousand small ones. For
each clip, a shard contains NUMBER.npy (gray frames, uint8 [T, H, W]), NUMBER.wav (16 kHz mono), NUMBER.json (id and
lengths) and, with a transcript, NUMBER.txt. SHARD.tar.json beside the shard has the offset of each member. A path in
the manifest is that of the tar file and the name of the member, as if the tar file were a folder; so clips can be read
in any order, and batches are equal to those of the original files. Frames are stored decoded: a clip takes about seven
times the space and a twenty-fifth of the time to read (benchmarks/bench_shards.py).
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from avhubert.config.command_defaults import SHARD_MB
from avhubert.constants import SPLITS
from avhubert.data.audio import read_audio, wav_bytes
from avhubert.data.manifest import Clip, read_manifest, write_manifest
from avhubert.data.transcripts import read_transcripts
from avhubert.data.video import read_gray
from avhubert.errors import DataError, MediaError
from avhubert.files import atomic_path, output_directory, read_json, write_json
from avhubert.report import progress

FRAME_BYTES = 96 * 96
SHARED_FILES = ("tokenizer.model", "dict.wrd.txt")  # of all splits of a data directory; optional


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
        frames: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
        return frames
    except (ValueError, EOFError) as error:
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
    try:
        offset, size = _index(tar)[path.name]
        with open(tar, "rb") as file:
            file.seek(offset)  # not os.pread, which Windows lacks
            content = file.read(size)
    except KeyError as error:
        raise MediaError(f"the shard {tar} has no {path.name}; make the shards again") from error
    except OSError as error:
        raise MediaError(f"cannot read the shard {tar}: {error.strerror}") from error
    if len(content) != size:
        raise MediaError(f"the shard {tar} is truncated; make the shards again")
    return content


@lru_cache(maxsize=4096)
def _index(tar: Path) -> dict[str, tuple[int, int]]:
    """Offset and size in bytes of each member of a shard."""
    try:
        return {name: (offset, size) for name, (offset, size) in read_json(_index_path(tar))["members"].items()}
    except (DataError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise MediaError(f"the index {_index_path(tar)} is missing or damaged; make the shards again") from error


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
    return Clip(clip.id, tar / f"{name}.npy", tar / f"{name}.wav", clip.video_frames, clip.audio_samples)


def _is_complete(tar: Path, rows: list[list[Any]]) -> bool:
    """Whether a shard of these clips (id, video frames, audio samples, transcript) was written completely."""
    if not (tar.is_file() and _index_path(tar).is_file()):
        return False
    index = read_json(_index_path(tar))
    return bool(index.get("clips") == rows and index.get("bytes") == tar.stat().st_size)


def _write_shard(tar: Path, rows: list[list[Any]], clips: Sequence[Clip]) -> None:
    """Write a shard and, as the last step, its index."""
    members: dict[str, tuple[int, int]] = {}
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
                    members[info.name] = (shard.offset - _padded(len(content)), len(content))
        size = temporary.stat().st_size
    _index.cache_clear()
    write_json(_index_path(tar), {"format": 1, "bytes": size, "clips": rows, "members": members})


def _padded(size: int) -> int:
    """The size of a member in the tar file, whose members are padded to whole blocks."""
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _contents(clip: Clip, text: str | None) -> Iterator[tuple[str, bytes]]:
    """Extension and content of each member of a clip."""
    description = {"id": clip.id, "video_frames": clip.video_frames, "audio_samples": clip.audio_samples}
    yield "json", json.dumps(description, ensure_ascii=False).encode()
    if clip.video_frames:
        buffer = io.BytesIO()
        np.save(buffer, clip_frames(clip.video))
        yield "npy", buffer.getvalue()
    if clip.audio_samples:
        yield "wav", wav_bytes(clip_samples(clip.audio))
    if text is not None:
        yield "txt", text.encode()
