"""Trains the built-in model from the GRID corpus and synthetic faces, and puts it into the package.

    python scripts/train_builtin.py GRID runs/builtin            # GRID: the folders that `avhubert prepare grid` reads
    python scripts/train_builtin.py GRID runs/builtin --ship     # also replaces the model of the package

Stages: synthetic faces with pre-training (`avhubert demo`) → GRID → synthetic voices → one data directory →
fine-tuning → mean of the last states → evaluation → half precision and the card. Started again, it resumes. Settings
are in one file, scripts/train_builtin.yaml. Needs the extras `prepare` and `synth`.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from builtin_data import Utterance, make_voices, read_split, repeated, trimmed, word_tokenizer, write_split
from ship_builtin import ship

from avhubert.cli.output import terminal_logging
from avhubert.config import compose
from avhubert.corpora.noise import make_noise
from avhubert.data.tokenizer import Tokenizer
from avhubert.evaluation.evaluate import evaluate
from avhubert.files import atomic_directory
from avhubert.prepare.pipeline import prepare
from avhubert.prepare.speaker_splits import OTHERS
from avhubert.recipes import demo
from avhubert.train import finetune
from avhubert.train.average import average

PRESET = Path(__file__).with_suffix(".yaml")
SNRS: tuple[tuple[int | None, tuple[str, ...]], ...] = ((None, ("v", "a", "av")), (0, ("a", "av")))  # dB, modalities
_log = logging.getLogger("avhubert.train_builtin")


@dataclass(frozen=True)
class GridSettings:
    """Which clips of GRID are trained on; see the preset."""

    split: str
    held_out: list[str] = field(default_factory=list)
    repeat: dict[str, int] = field(default_factory=dict)

    @property
    def directory(self) -> str:
        """The data directory that the rule makes, below the output of `avhubert prepare grid`."""
        return self.split.rpartition(":")[2]


@dataclass(frozen=True)
class Settings:
    """The keys of a preset, described in scripts/train_builtin.yaml."""

    seed: int
    demo: str
    voices: int
    grid: GridSettings
    repeat_synthetic: int
    max_frames_around: int
    average: int
    ctc_weight: float
    finetune: list[str]

    @classmethod
    def read(cls, path: Path) -> Settings:
        """The settings of a preset, whose keys must be exactly these."""
        values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = {item.name for item in fields(cls)}
        if values.keys() != names:
            raise SystemExit(f"{path}: the keys must be {', '.join(sorted(names))}; see {PRESET}")
        return cls(**values | {"grid": GridSettings(**values["grid"])})


def run(grid: Path, out: Path, settings: Settings, workers: int | None = None) -> Path:
    """Train the model; everything that exists already is kept.

    Returns:
        The folder of the model.
    """
    out = out.resolve()
    demo.run(out / "demo", settings.demo, settings.seed)
    prepare("grid", grid, out / "grid", workers=workers, seed=settings.seed, split=settings.grid.split)
    data = out / "data"
    if not (data / "complete").exists():
        _combine(out, settings, word_tokenizer())
        make_noise("babble", data / "all", out / "noise", seed=settings.seed)
        (data / "complete").touch()
    config = [f"run_dir={out / 'run'}", f"data.dir={data / 'all'}", f"model.pretrained={out / 'demo' / 'model'}"]
    config += [f"seed={settings.seed}", f"data.noise={out / 'noise'}", f"train.keep_last={settings.average}"]
    finetune.run(compose("finetune", "tiny", [*config, *settings.finetune, f"decode.ctc_weight={settings.ctc_weight}"]))
    model = out / "model"
    if not model.exists():
        with atomic_directory(model) as temporary:
            average(out / "run", temporary, settings.average)
    _evaluate(model, out, settings)
    return model


def _combine(out: Path, settings: Settings, tokenizer: Tokenizer) -> None:
    """Data directories: `all` to train, and test sets `seen`, `unseen` (both GRID) and `synthetic`."""
    prepared, synthetic, data = out / "grid" / settings.grid.directory, out / "demo" / "data" / "433h", out / "data"
    held_out = set(settings.grid.held_out)
    train: list[Utterance] = []
    for split in ("train", OTHERS):
        if (prepared / f"{split}.tsv").is_file():
            train += trimmed(prepared, split, out / "trimmed", settings.max_frames_around, settings.seed)
    train = [utterance for utterance in train if utterance.clip.speaker not in held_out]
    if not train:
        raise SystemExit(f"{prepared} has no clips of a speaker to train on; see `grid` in the preset")
    rows = repeated(train, settings.grid.repeat)
    rows += [utterance for utterance in read_split(synthetic, "train") for _ in range(settings.repeat_synthetic)]
    rows += make_voices(out / "voices", settings.voices, settings.seed)
    write_split(data / "all", "train", rows, tokenizer)
    write_split(data / "all", "valid", read_split(prepared, "valid"), tokenizer)
    speakers = {utterance.clip.speaker for utterance in train}
    test = [*read_split(prepared, "test"), *read_split(prepared, OTHERS)]
    sets = {
        "seen": [utterance for utterance in read_split(prepared, "test") if utterance.clip.speaker in speakers],
        "unseen": [utterance for utterance in test if utterance.clip.speaker not in speakers],
        "synthetic": read_split(synthetic, "test"),
    }
    for name, utterances in sets.items():
        if utterances:
            write_split(data / name, "test", utterances, tokenizer)
    _log.info("%d clips of GRID, %d lines of the training manifest", len(train), len(rows))


def result_files(out: Path) -> list[Path]:
    """The results of the evaluations, in a fixed order."""
    return sorted((out / "evaluation").glob("*/results.json"))


def _evaluate(model: Path, out: Path, settings: Settings) -> None:
    for directory in sorted(path.parent for path in (out / "data").glob("*/test.tsv")):
        for snr, modalities in SNRS:
            folder = out / "evaluation" / f"{directory.name}-{'clean' if snr is None else f'{snr}dB'}"
            if (folder / "results.json").exists():
                continue
            noise = None if snr is None else out / "noise"
            decode = {"ctc_weight": settings.ctc_weight}
            evaluate(model, directory, modality=modalities, noise=noise, snrs=[snr], out=folder, decode=decode)


def main() -> None:
    """Run the stages with the preset that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, help="the GRID corpus")
    parser.add_argument("out", type=Path, help="folder for everything that is made")
    parser.add_argument("--preset", type=Path, default=PRESET, help=f"settings (default {PRESET.name})")
    parser.add_argument("--workers", type=int, help="processes of the preparation (default: one per core)")
    parser.add_argument("--ship", action="store_true", help="put the model into the package")
    options = parser.parse_args()
    with terminal_logging():
        options.out.mkdir(parents=True, exist_ok=True)
        settings = Settings.read(options.preset)
        kept = options.out / "preset.yaml"
        if kept.exists() and Settings.read(kept) != settings:
            raise SystemExit(f"{options.out} was made with other settings ({kept}); choose another folder")
        shutil.copyfile(options.preset, kept)
        model = run(options.grid, options.out, settings, options.workers)
        results = result_files(options.out.resolve())
        if options.ship:
            ship(model, results)
        _log.info("model: %s", model)


if __name__ == "__main__":
    main()
