"""Part `flips`: one flipped bit, a torn end or a block of zeros in a checkpoint, a shard or a label file is detected.

A reader either refuses the file or returns exactly what was saved: a bit in padding changes nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avhubert.checkpoints.load import load
from avhubert.checkpoints.torchfile import TorchFile
from avhubert.cluster.label_model import read_label_model
from avhubert.data.labels import load_labels
from avhubert.data.manifest import read_manifest
from avhubert.data.shards import clip_frames, clip_samples
from avhubert.model.recognizer import Recognizer
from avhubert.train.state import read_state
from tests.faults import mutations
from tests.faults.isolate import Fault, Limits, isolated
from tests.faults.outcome import Outcome
from tests.faults.part import Case, Part, random_of
from tests.faults.world import make_world


@dataclass(frozen=True)
class Target:
    path: str
    read: Callable[[Path], Any]  # of the damaged file


def fingerprint(value: Any) -> str:
    """A hash of nested values with arrays and tensors."""
    digest = hashlib.sha256()

    def add(node: Any) -> None:
        if isinstance(node, torch.Tensor):
            node = node.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy()
        if isinstance(node, np.ndarray):
            digest.update(f"{node.dtype} {node.shape}".encode() + np.ascontiguousarray(node).tobytes())
        elif isinstance(node, dict):
            for key in sorted(node, key=str):
                digest.update(str(key).encode())
                add(node[key])
        elif isinstance(node, (list, tuple)):
            digest.update(f"{len(node)}".encode())
            for item in node:
                add(item)
        elif dataclasses.is_dataclass(node) and not isinstance(node, type):
            add(vars(node))
        else:
            digest.update(repr(node).encode())

    add(value)
    return digest.hexdigest()


def _model(path: Path) -> Any:
    model = load(path.parent)
    tokenizer = model.tokenizer.serialized if isinstance(model, Recognizer) and model.tokenizer else None
    return model.state_dict(), tokenizer


def _checkpoint(path: Path) -> Any:
    file = TorchFile(path)
    return {name: file.tensor(record) for name, record in file.content["model"].items()}


def _shards(path: Path) -> Any:
    clips = read_manifest(path.parent.parent / "train.tsv")
    return [(clip_frames(clip.video), clip_samples(clip.audio)) for clip in clips if path.name[:16] in str(clip.video)]


def _labels(path: Path) -> Any:
    clips = read_manifest(path.parent.parent / "data" / "train.tsv")
    return load_labels(path.parent, "train", clips), read_label_model(path.parent).centroids


TARGETS = (
    Target("pretrained/model.safetensors", _model),
    Target("recognizer/model.safetensors", _model),
    Target("recognizer/tokenizer.model", _model),
    Target("run/state/step_2.pt", lambda path: read_state(path.parent.parent, 2)),
    Target("recognizer.pt", _checkpoint),
    Target("shards/shards/train-000000.tar", _shards),
    Target("shards/shards/train-000000.tar.json", _shards),
    *(Target(f"labels/{name}", _labels) for name in ("train.km", "labels.json", "centroids.npy", "dict.km.txt")),
)
DAMAGE = (mutations.flip,) * 6 + (mutations.truncate, mutations.zeros)


def make(folder: Path, seed: int) -> Case:
    world = make_world(folder / "world")
    torch.set_num_threads(1)
    work = folder / "flips"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(world, work)
    for manifest in (work / "shards").glob("*.tsv"):
        manifest.write_text(manifest.read_text(encoding="utf-8").replace(str(world), str(work)), encoding="utf-8")
    expected = {target.path: fingerprint(target.read(work / target.path)) for target in TARGETS}

    def case(number: int) -> Outcome:
        rng = random_of(seed, "flips", number)
        target = TARGETS[number % len(TARGETS)]
        path = work / target.path
        intact = path.read_bytes()
        damage: Callable[[bytes, random.Random], bytes] = rng.choice(DAMAGE)
        damaged = damage(intact, rng)

        def read() -> None:
            clip_frames.__globals__["_index"].cache_clear()
            if fingerprint(target.read(path)) != expected[target.path]:
                raise Fault("undetected", f"{len(intact)} bytes")

        path.write_bytes(damaged)
        try:
            return isolated(f"{number} {target.path}: {damage.__name__}", read, work, Limits(20, 1000))
        finally:
            path.write_bytes(intact)

    return case


PART = Part(
    "flips",
    "one flipped bit, a torn end or a block of zeros in weights, tokenizer, state, published checkpoint, shard, index, "
    "labels: refused, or read exactly as saved",
    2000,
    make,
)
