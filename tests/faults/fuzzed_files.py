"""Part `files`: damaged checkpoints, configurations, manifests, tokenizers, labels, shards and language models.

Nothing in them is executed, nothing is written outside the output folder, each refusal is one sentence, and time and
memory are limited.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from avhubert.checkpoints.load import load
from avhubert.cli.app import main
from avhubert.config import compose
from avhubert.data.labels import load_labels
from avhubert.data.manifest import read_manifest
from avhubert.data.shards import clip_frames, clip_samples
from avhubert.data.tokenizer import Tokenizer
from avhubert.decode.lm.load import load_language_model
from avhubert.evaluation.results import read_hypotheses
from avhubert.train.state import load_newest
from tests.faults import mutations as m
from tests.faults.isolate import Limits, isolated
from tests.faults.outcome import Outcome
from tests.faults.part import Case, Part, random_of
from tests.faults.world import make_world

Read = Callable[[Path, Path], int | None]  # (folder of the case, damaged file) → exit code


@dataclass(frozen=True)
class Target:
    """A file of the small world, who reads it, and how it is damaged."""

    path: str
    read: Read
    mutations: tuple[m.Mutation, ...]

    @property
    def top(self) -> str:
        return self.path.partition("/")[0]


def command(*arguments: str) -> Read:
    """A command line; {} is the folder of the case."""
    return lambda folder, _: main([argument.replace("{}", str(folder)) for argument in arguments])


def call(function: Callable[[Path], object]) -> Read:
    def read(_: Path, path: Path) -> None:
        function(path)

    return read


def _read_labels(path: Path) -> None:
    load_labels(path.parent, "train", read_manifest(path.parent.parent / "data" / "train.tsv"))


def _read_clips(path: Path) -> None:
    for clip in read_manifest(path.parent.parent / "train.tsv"):
        clip_frames(clip.video)
        clip_samples(clip.audio)


def _read_preset(path: Path) -> None:
    compose("pretrain", path.stem, [], path.parent)


def targets(program: str) -> list[Target]:
    """Every kind of file that the package reads, some with several readers."""
    archive = (*m.BYTES, *(m.pickle_attack(program),) * 6, *(m.zip_attack,) * 4)
    array = (*m.BYTES, *(m.numpy_attack(program),) * 5)
    yaml = (*m.TEXT, *(m.yaml_attack(program),) * 12)
    info = {name: command("info", f"{{}}/{name}") for name in ("pretrained", "recognizer", "labels", "data", "run")}
    apply = command(
        "cluster", "{}/data", "--features", "mfcc", "--like", "{}/labels", "--out", "{}/new", "--device", "cpu"
    )
    extract = command(
        "features", "{}/data", "--model", "{}/pretrained", "--modality", "a", "--split", "test", "--out", "{}/out",
        "--device", "cpu",
    )  # fmt: skip
    evaluate = command("evaluate", "{}/recognizer", "{}/data", "--device", "cpu")
    pack = command("shards", "{}/data", "{}/shards", "--shard-mb", "1")
    compare = command("compare", *("{}/evaluation/hypotheses-av-clean.json",) * 2)
    return [
        Target("pretrained.pt", command("convert", "{}/pretrained.pt", "{}/out"), archive),
        Target("recognizer.pt", command("convert", "{}/recognizer.pt", "{}/out"), archive),
        Target("recognizer.pt", call(load), archive),
        Target("pretrained/model.safetensors", info["pretrained"], m.BYTES),
        Target("pretrained/config.json", info["pretrained"], m.JSON),
        Target("recognizer/config.json", evaluate, m.JSON),
        Target("recognizer/tokenizer.model", info["recognizer"], m.BYTES),
        Target("data/tokenizer.model", call(Tokenizer), m.BYTES),
        Target("run/state/step_2.pt", command("average", "{}/run", "{}/out", "--last", "1"), archive),
        Target("run/state/step_2.pt", call(lambda path: load_newest(path.parent.parent)), archive),
        Target("run/resolved.yaml", info["run"], yaml),
        Target("run/metrics.jsonl", info["run"], m.JSON),
        Target("own/preset.yaml", call(_read_preset), yaml),
        *(Target(f"labels/{name}", call(_read_labels), kinds) for name, kinds in (
            ("train.km", m.TEXT), ("dict.km.txt", m.TEXT), ("labels.json", m.JSON),
        )),
        Target("labels/labels.json", info["labels"], m.JSON),
        Target("labels/quality.json", info["labels"], m.JSON),
        *(Target(f"labels/{name}", apply, kinds) for name, kinds in (
            ("centroids.npy", array), ("label_model.json", m.JSON), ("quality.json", m.JSON),
        )),
        *(Target(f"data/{name}", info["data"], m.TEXT) for name in ("train.tsv", "train.wrd", "train.phn")),
        Target("data/test.tsv", extract, m.TEXT),
        Target("data/test.tsv", evaluate, m.TEXT),
        Target("data/train.tsv", command("shards", "{}/data", "{}/out"), m.TEXT),
        Target("data/train.wrd", command("lm", "{}/data", "{}/out.arpa"), m.TEXT),
        Target("shards/shards/train-000000.tar", call(_read_clips), (*m.BYTES, *(m.tar_attack,) * 4)),
        Target("shards/shards/train-000000.tar.json", call(_read_clips), m.JSON),
        Target("shards/shards/train-000000.tar.json", pack, m.JSON),
        Target("evaluation/hypotheses-av-clean.json", call(read_hypotheses), m.JSON),
        Target("evaluation/hypotheses-av-clean.json", compare, m.JSON),
        Target("lm.arpa", _read_language_model, m.TEXT),
    ]  # fmt: skip


def _read_language_model(folder: Path, path: Path) -> None:
    load_language_model(str(path), Tokenizer(folder / "data" / "tokenizer.model"))


def make(folder: Path, seed: int) -> Case:
    world = make_world(folder / "world")
    (world / "own").mkdir(exist_ok=True)
    (world / "own" / "preset.yaml").write_text(
        "defaults: [tiny_iter2, _self_]\nseed: 3\nrun_dir: x\n", encoding="utf-8"
    )
    torch.set_num_threads(1)
    importlib.import_module("matplotlib.font_manager")  # makes its own folders once, outside of the cases
    work = folder / "work"
    marker = folder / "executed"
    listed = targets(f"touch {marker}")

    def case(number: int) -> Outcome:
        rng = random_of(seed, "files", number)
        target = listed[number % len(listed)]
        path = _copy(world, work, target)
        if rng.random() < 0.06:
            how = m.replace_by_special(path, rng)
        else:
            mutation = rng.choice(target.mutations)
            path.write_bytes(mutation(path.read_bytes(), rng))
            how = mutation.__qualname__.replace(".<locals>.mutate", "")
        name = f"{number} {target.path}: {how}"
        outcome = isolated(name, lambda: target.read(work, path), work, Limits(seconds=20, memory_mb=2000))
        if marker.exists():
            marker.unlink()
            return Outcome(name, "executed", "the program in the file was started")
        return outcome

    return case


def _copy(world: Path, work: Path, target: Target) -> Path:
    """A copy of the world whose files are links, with a real copy of the folder that is damaged."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for entry in world.iterdir():
        if entry.name == target.top or entry.name == "shards":
            (shutil.copytree if entry.is_dir() else shutil.copy)(entry, work / entry.name)
        else:
            (work / entry.name).symlink_to(entry)
    for manifest in work.glob("*/*.tsv"):
        if not manifest.parent.is_symlink():
            text = manifest.read_text(encoding="utf-8")
            manifest.write_text(text.replace(text.split("\n")[0], str(manifest.parent), 1), encoding="utf-8")
    return work / target.path


PART = Part(
    "files",
    "damaged and hostile checkpoints, configurations, manifests, tokenizers, labels, shards, language models: nothing "
    "is executed, one sentence each, at most 20 s and 2 GB",
    1000,
    make,
)
