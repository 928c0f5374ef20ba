"""Part `kills`: every long command is killed at one of its writes, renames or deletions, and started again.

The changes that a command makes in its output folder are counted in an undisturbed run; then the whole process group is
killed at a random one of them, inside a write after half of the bytes. After one or two kills the command runs to its
end, and its output must be that of the undisturbed run, without leftovers.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avhubert.checkpoints.torchfile import TorchFile
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.manifest import read_manifest, write_manifest
from avhubert.train.state import read_state
from tests.faults.flipped_bits import fingerprint
from tests.faults.isolate import Fault
from tests.faults.outcome import ACCEPTED, SKIPPED, Outcome
from tests.faults.part import Case, Part, random_of
from tests.faults.preload import AVAILABLE, Preload, Run
from tests.faults.world import SHORT, SMALL, make_world

CLIPS = 3  # of the corpus that is prepared
TIMES = ("second", "waiting", "utilisation", "stages", "rate_per", "host")  # keys whose values differ in every run
COUNTERS = ("seconds", "interval_seconds", "waiting")  # the same in the saved state of a run
SKIPPED_FILES = (".lock", "report.html")  # pages show durations


@dataclass(frozen=True)
class Command:
    """A command line; {world} has the inputs, {out} is the output folder."""

    name: str
    arguments: str

    def line(self, world: Path, out: Path) -> list[str]:
        return [word.replace("{world}", str(world)).replace("{out}", str(out)) for word in self.arguments.split()]


_TRAIN = " ".join([*SHORT, *SMALL, "train.max_steps=3", "data.dir={world}/data", "model.final_dim=8"])
_HEADS = "model.decoder.layers=1 model.decoder.ffn_embed_dim=32 model.decoder.attention_heads=2"
_FINETUNE = " ".join([*SHORT, "train.max_steps=3", "data.dir={world}/data", "model.pretrained={world}/pretrained"])
_CLUSTER = "cluster {world}/data --device cpu --out {out}/labels"
_RECIPE = "clusters=[6,5,7] teacher_layers=[1,2] train.max_steps=2"
_PSEUDO = "--min-confidence -1000 --labelled {world}/data --split test --device cpu"
COMMANDS = (
    Command("prepare", "prepare folder {world}/corpus {out}/data --workers 1"),
    Command("cluster", f"{_CLUSTER} --features mfcc --clusters 6"),
    Command("cluster of a layer", f"{_CLUSTER} --features {{world}}/pretrained:1 --clusters 5"),
    Command("pretrain", f"pretrain --config-name tiny_iter2 {_TRAIN} data.labels={{world}}/labels run_dir={{out}}/run"),
    Command("iterate", f"iterate --config-name tiny {_TRAIN} {_RECIPE} run_dir={{out}}/run"),
    Command("finetune", f"finetune --config-name tiny {_FINETUNE} {_HEADS} run_dir={{out}}/run"),
    Command("evaluate", "evaluate {world}/recognizer {world}/data --device cpu --out {out}/evaluation"),
    Command("convert", "convert {world}/recognizer.pt {out}/model"),
    Command("convert to fairseq", "convert --to-fairseq {world}/recognizer {out}/model.pt"),
    Command("export", "export {world}/pretrained {out}/onnx --modality a"),
    Command("shards", "shards {world}/data {out}/data --shard-mb 1"),
    Command("pseudo-label", f"pseudo-label {{world}}/recognizer {{world}}/unlabelled {{out}}/mixed {_PSEUDO}"),
    Command("average", "average {world}/run {out}/mean"),
    Command("features", "features {world}/data --model {world}/pretrained --modality a --device cpu --out {out}/new"),
    Command("lm", "lm {world}/data {out}/lm.arpa --order 2"),
)


@dataclass
class Reference:
    """The output of an undisturbed run, and how many changes and bytes it wrote."""

    content: dict[str, str]
    changes: int
    written: int


def content(out: Path) -> dict[str, str]:
    """A hash of every file below `out`, without its path and without durations."""
    return {
        str(path.relative_to(out)): _hash(path, out)
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in SKIPPED_FILES and not _is_hidden(path.relative_to(out))
    }


def _is_hidden(path: Path) -> bool:
    """The journal, whose order differs, and temporary files of a killed command."""
    return "journal" in path.parts or any(part.startswith(".") and ".part" in part for part in path.parts)


def _hash(path: Path, out: Path) -> str:
    if path.suffix == ".pt" and path.parent.name == "state":
        state = read_state(path.parent.parent, int(path.stem.removeprefix("step_")))
        counters = state["counters"]
        state["counters"] = {key: value for key, value in counters.items() if key not in COUNTERS}
        return fingerprint(state)
    if path.suffix == ".pt":
        file = TorchFile(path)
        return fingerprint({name: file.tensor(record) for name, record in file.content["model"].items()})
    data = path.read_bytes().replace(str(out).encode(), b"ROOT")
    if path.suffix in (".json", ".jsonl"):
        values = [
            _without_times(json.loads(line)) for line in ([data] if path.suffix == ".json" else data.splitlines())
        ]
        data = json.dumps(values).encode()
    return hashlib.sha256(data).hexdigest()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if not any(word in key for word in TIMES)}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


class Commands:
    """Runs the commands in one output folder, and knows what an undisturbed run of each writes."""

    def __init__(self, folder: Path) -> None:
        self.world = make_world(folder / "world")
        if not (self.world / "corpus").exists():
            make_corpus(folder / "corpus.part", CLIPS, seed=3)
            for transcript in (folder / "corpus.part").rglob("*.txt"):
                transcript.unlink()  # those of the layout of LRS3 have word times, which a folder's have not
            (folder / "corpus.part").rename(self.world / "corpus")
        unlabelled = self.world / "unlabelled"
        unlabelled.mkdir(exist_ok=True)
        clips = [replace(clip, id=f"new-{clip.id}") for clip in read_manifest(self.world / "data" / "test.tsv")]
        write_manifest(unlabelled / "test.tsv", clips, unlabelled)
        self.out = folder / "out"
        self.preload = Preload(folder / "preload", self.out)
        self._references: dict[str, Reference] = {}

    def empty(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()

    def run(self, command: Command, **faults: int | str) -> Run:
        return self.preload.run(command.line(self.world, self.out), **faults)

    def reference(self, command: Command) -> Reference:
        """Fault if the undisturbed command fails."""
        if command.name not in self._references:
            self.empty()
            run = self.run(command, disk_bytes=1 << 60)
            if run.code != 0:
                raise Fault("undisturbed run fails", run.stderr[-500:])
            self._references[command.name] = Reference(content(self.out), run.changes, run.written)
        return self._references[command.name]

    def compare(self, command: Command) -> None:
        """Fault if the output folder differs from that of the undisturbed run."""
        after, expected = content(self.out), self.reference(command).content
        differing = sorted(name for name in after.keys() & expected.keys() if after[name] != expected[name])
        more, less = sorted(after.keys() - expected.keys()), sorted(expected.keys() - after.keys())
        if differing or more or less:
            verdict = "other bytes" if differing or less else "leftovers"
            raise Fault(verdict, f"other: {differing}; more: {more}; missing: {less}")


def make(folder: Path, seed: int) -> Case:
    if not AVAILABLE:
        return lambda number: Outcome(f"{number}", SKIPPED, "needs Linux and a C compiler")
    commands = Commands(folder)

    def case(number: int) -> Outcome:
        rng = random_of(seed, "kills", number)
        command = COMMANDS[number % len(COMMANDS)]
        name, started, positions = f"{number} {command.name}", time.monotonic(), []
        try:
            changes = commands.reference(command).changes
            commands.empty()
            for _ in range(rng.choice((1, 1, 2))):
                position = rng.randint(1, changes)
                run = commands.run(command, kill_at=position)
                positions.append(str(position) if run.code == -9 else "after the end")
                if run.code not in (0, -9):
                    raise Fault("restart fails", run.stderr[-500:])
            name += f": killed at change {', '.join(positions)} of {changes}"
            run = commands.run(command)
            if run.code != 0:
                raise Fault("restart fails", run.stderr[-500:])
            commands.compare(command)
        except Fault as fault:
            return Outcome(name, fault.verdict, str(fault), time.monotonic() - started)
        return Outcome(name, ACCEPTED, "", time.monotonic() - started)

    return case


PART = Part(
    "kills",
    "SIGKILL at a write (torn in its middle), rename or deletion of prepare, cluster, pretrain, iterate, finetune, "
    "evaluate, convert, export, shards, pseudo-label, average, features, lm, once or twice; started again: the same "
    "bytes, no leftovers",
    200,
    make,
)
