"""Shards: batches equal those of files, damage is an error, an interrupted run resumes."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from avhubert.cli.app import main
from avhubert.config.schema import DataConfig
from avhubert.data import shards
from avhubert.data.batching import StepOrder
from avhubert.data.collate import Batch
from avhubert.data.dataset import ClipDataset
from avhubert.data.loader import Loader
from avhubert.data.manifest import read_manifest
from avhubert.data.transcripts import read_transcripts
from avhubert.errors import DataError, MediaError


@pytest.fixture(scope="module")
def sharded(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sharded") / "data"
    assert main(["shards", str(data_dir), str(out), "--shard-mb", "1"]) == 0
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes().replace(str(folder).encode(), b"ROOT")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def tensors(batch: Batch) -> list[torch.Tensor]:
    values = [*vars(batch.inputs).values(), *vars(batch).values()]
    return [value for value in values if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("training", [True, False])
def test_batches_equal_those_of_the_original_files(data_dir: Path, sharded: Path, training: bool) -> None:
    batches = []
    for folder in (data_dir, sharded):
        clips = read_manifest(folder / "train.tsv")
        dataset = ClipDataset(clips, DataConfig(), training=training, seed=3)
        order = StepOrder([clip.frames for clip in clips], 100, 150, 3, None)
        steps = Loader(dataset, 0).steps(order, 2)
        batches.append([batch for _, parts in zip(range(5), steps, strict=False) for _, batch in parts])
    assert len(batches[0]) == len(batches[1]) >= 5
    for original, sharded_batch in zip(*batches, strict=True):
        assert original.ids == sharded_batch.ids
        for x, y in zip(tensors(original), tensors(sharded_batch), strict=True):
            assert torch.equal(x, y)


def test_data_directory_is_complete(data_dir: Path, sharded: Path) -> None:
    assert len(list((sharded / "shards").glob("train-*.tar"))) >= 3
    for split in ("train", "valid", "test"):
        ours, theirs = (read_manifest(folder / f"{split}.tsv") for folder in (data_dir, sharded))
        assert [(c.id, c.video_frames, c.audio_samples) for c in ours] == [
            (c.id, c.video_frames, c.audio_samples) for c in theirs
        ]
        assert (sharded / f"{split}.wrd").read_bytes() == (data_dir / f"{split}.wrd").read_bytes()
    assert (sharded / "tokenizer.model").is_file()


def test_shards_are_readable_as_tar_files_and_by_webdataset(data_dir: Path, sharded: Path) -> None:
    clips = read_manifest(data_dir / "train.tsv")
    texts = read_transcripts(data_dir / "train.wrd", clips)
    tars = sorted((sharded / "shards").glob("train-*.tar"))
    with tarfile.open(tars[0]) as tar:
        assert tar.getnames()[:4] == ["000000.json", "000000.npy", "000000.wav", "000000.txt"]
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed (pip install webdataset)")
    samples = list(webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False).decode())
    assert [sample["txt"] for sample in samples] == texts
    assert [sample["json"]["id"] for sample in samples] == [clip.id for clip in clips]
    for sample, clip in zip(samples, clips, strict=True):
        assert np.array_equal(sample["npy"], shards.clip_frames(clip.video))
        assert sample["wav"][44:] == shards.clip_samples(clip.audio).tobytes()


def test_interrupted_run_resumes_and_gives_the_same_bytes(
    data_dir: Path, sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "data"
    written: list[Path] = []
    real = shards._write_shard

    def interrupted_at_the_third(tar: Path, *rest) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(tar)
        real(tar, *rest)

    monkeypatch.setattr(shards, "_write_shard", interrupted_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        shards.make_shards(data_dir, out, 1)
    assert not (out / "train.tsv").exists()
    modified = {tar: tar.stat().st_mtime_ns for tar in written}
    monkeypatch.setattr(shards, "_write_shard", real)
    shards.make_shards(data_dir, out, 1)
    assert {tar: tar.stat().st_mtime_ns for tar in written} == modified
    assert content(out) == content(sharded)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tar: tar.unlink(), "cannot read the shard .*: No such file"),
        (lambda tar: tar.write_bytes(tar.read_bytes()[:5000]), "is damaged; make the shards again"),
        (lambda tar: Path(f"{tar}.json").unlink(), "the index .* is missing or damaged"),
        (lambda tar: Path(f"{tar}.json").write_text("{}", encoding="utf-8"), "the index .* is missing or damaged"),
        (lambda tar: tar.write_bytes(bytes(tar.stat().st_size)), "is damaged; make the shards again"),
        (lambda tar: remove_members(Path(f"{tar}.json")), r"has no 000000\.\w+; make the shards again"),
    ],
)
@pytest.mark.parametrize("stream", ["video", "audio"])
def test_damaged_shard_is_an_error(sharded: Path, tmp_path: Path, damage, message: str, stream) -> None:
    shutil.copytree(sharded / "shards", tmp_path / "shards")
    tar = tmp_path / "shards" / "train-000000.tar"
    damage(tar)
    shards._index.cache_clear()
    read, name = {"video": (shards.clip_frames, "000000.npy"), "audio": (shards.clip_samples, "000000.wav")}[stream]
    with pytest.raises(MediaError, match=message):
        read(tar / name)


def remove_members(index: Path) -> None:
    content = json.loads(index.read_text(encoding="utf-8"))
    index.write_text(json.dumps(content | {"members": {}}), encoding="utf-8")


def flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]


def test_one_flipped_bit_is_detected_and_repaired(data_dir: Path, sharded: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sharded, tmp_path / "data"))
    tar = folder / "shards" / "train-000000.tar"
    intact = tar.read_bytes()
    members = json.loads(Path(f"{tar}.json").read_text(encoding="utf-8"))["members"]
    for name, read in (("000000.npy", shards.clip_frames), ("000000.wav", shards.clip_samples)):
        offset, size, _ = members[name]
        tar.write_bytes(flipped(intact, offset + size // 2))
        with pytest.raises(MediaError, match=rf"{name} in the shard .*\.tar is damaged; make the shards again"):
            read(tar / name)
    assert main(["shards", str(data_dir), str(folder), "--shard-mb", "1"]) == 0
    assert tar.read_bytes() == intact


def test_shards_of_an_earlier_version_are_read(sharded: Path, tmp_path: Path) -> None:
    """Its index has no checksums."""
    folder = Path(shutil.copytree(sharded / "shards", tmp_path / "shards"))
    tar = folder / "train-000000.tar"
    index = json.loads(Path(f"{tar}.json").read_text(encoding="utf-8"))
    index["members"] = {name: row[:2] for name, row in index["members"].items()}
    Path(f"{tar}.json").write_text(json.dumps(index), encoding="utf-8")
    expected = shards.clip_frames(sharded / "shards" / tar.name / "000000.npy")
    assert np.array_equal(shards.clip_frames(tar / "000000.npy"), expected)


@pytest.mark.parametrize("row", ["x", [1], [0, "9"], [-5, 9], [0, 1 << 60], [0, 1.5], None])
def test_an_index_with_impossible_members(sharded: Path, tmp_path: Path, row: object) -> None:
    folder = Path(shutil.copytree(sharded / "shards", tmp_path / "shards"))
    tar = folder / "train-000000.tar"
    Path(f"{tar}.json").write_text(json.dumps({"members": {"000000.npy": row}}), encoding="utf-8")
    with pytest.raises(MediaError, match=r"the index .* is missing or damaged"):
        shards.clip_frames(tar / "000000.npy")


def test_missing_manifest_or_unreadable_clip_is_an_error(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no train.tsv, valid.tsv or test.tsv"):
        shards.make_shards(tmp_path, tmp_path / "out")
    root = tmp_path / "data"
    root.mkdir()
    (root / "train.tsv").write_text(f"{root}\nlost\tv.mp4\ta.wav\t30\t19200\n", encoding="utf-8")
    with pytest.raises(MediaError, match=r"clip 'lost': .*v\.mp4 cannot be read"):
        shards.make_shards(root, tmp_path / "out")
    assert not (tmp_path / "out" / "train.tsv").exists()
