"""What a path is, in a few figures: model, run, data directory, labels, noise, a recipe's directory, recording."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from avhubert.constants import SPECIAL_SYMBOLS
from avhubert.data.manifest import REJECTED, splits
from avhubert.errors import CheckpointError, DataError, MediaError
from avhubert.files import read_json, sha256

FRAMES, SAMPLES = 25 * 3600, 16_000 * 3600  # of an hour


_SECTIONS = ("train", "data", "model")  # of a run's settings, that are told of


SHOWN_SYMBOLS = 8  # of a tokenizer, after the special ones


def describe(source: str | Path) -> dict[str, Any]:
    """Name → value, `kind` first; values are numbers or text.

    Raises:
        DataError: a folder or file of no kind that is known here, or damaged. CheckpointError: a model that cannot be
            read, or a name that is nowhere.
    """
    path = Path(source)
    if path.is_dir():
        for is_of_kind, tell in KINDS:
            if is_of_kind(path):
                return tell(path)
        raise DataError(
            f"{source} is none of the folders that `avhubert info` tells of: a model (config.json), a run "
            "(resolved.yaml), a data directory or noise ({train,valid,test}.tsv), labels (labels.json) or a recipe's "
            "directory (iterations.json)"
        )
    try:
        return _model(source)
    except CheckpointError:
        if not path.is_file() or path.suffix == ".pt":
            raise
    try:
        return _recording(path)
    except MediaError as error:
        raise DataError(
            f"{error}; `avhubert info` also tells of checkpoints (.pt) and of folders: models, runs, data, labels"
        ) from error


# --------------------------------------------------------------------------- models and runs
def _model(source: str | Path) -> dict[str, Any]:
    from avhubert.checkpoints.card import label_set
    from avhubert.checkpoints.load import describe as describe_model
    from avhubert.checkpoints.load import load
    from avhubert.model.recognizer import Recognizer

    model = load(source)
    told = describe_model(model)
    if isinstance(model, Recognizer):
        told["tokenizer"] = _tokenizer(model.tokenizer)
    for name, value in told.items():
        if name == "labels":
            told[name] = "; ".join(map(label_set, model.metadata.labels or []))
        elif isinstance(value, (list, tuple)):
            told[name] = ", ".join(map(str, value))
        elif isinstance(value, dict):
            told[name] = ", ".join(f"{key} {of}" for key, of in value.items())
    return told


def _tokenizer(tokenizer: Any) -> str:

    shown = tokenizer.symbols[len(SPECIAL_SYMBOLS) :][:SHOWN_SYMBOLS]
    return f"{tokenizer.vocab_size} symbols: {' '.join(shown)} …"


def _run(path: Path) -> dict[str, Any]:
    import yaml

    try:
        settings = yaml.safe_load((path / "resolved.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path / 'resolved.yaml'} cannot be read, so the run's settings are not known") from error
    if not isinstance(settings, dict) or not all(isinstance(settings.get(name), dict) for name in _SECTIONS):
        raise DataError(f"{path / 'resolved.yaml'} does not hold a run's settings: start the run again")
    told: dict[str, Any] = {"kind": f"run of {'pre-training' if 'masking' in settings else 'fine-tuning'}"}
    train, data, model = (settings[name] for name in _SECTIONS)
    rows, damaged = _metrics(path / "metrics.jsonl")
    told["step"] = f"{rows[-1]['step'] if rows else 0} of {train.get('max_steps')}"
    told |= {"data": data.get("dir"), "labels": data.get("labels"), "pretrained": model.get("pretrained")}
    told |= {"frames per step": train.get("frames_per_step"), "seed": settings.get("seed")}
    for split in ("train", "valid"):
        last = next((row for row in reversed(rows) if row.get("split") == split), None)
        if last is not None:
            figures = {name: value for name, value in last.items() if name not in ("step", "split", "seconds")}
            told[f"{split}, step {last['step']}"] = ", ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in figures.items()
            )
    if damaged:
        told["unreadable lines of metrics.jsonl"] = damaged
    told["states"] = ", ".join(sorted(file.stem for file in (path / "state").glob("*.pt"))) or "none"
    if (path / "best" / "config.json").is_file():
        told["best model"] = str(path / "best")
    if (path / "config.json").is_file():
        told |= {f"model {name}": value for name, value in _model(path).items() if name in _OF_A_RUNS_MODEL}
    return {name: value for name, value in told.items() if value is not None}


_OF_A_RUNS_MODEL = ("parameters", "encoder", "visual front end", "decoder", "classes", "decoding", "tokenizer")


def _metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines that a run has logged, and how many cannot be read (the last one may be just being written)."""
    rows, damaged = [], 0
    for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            damaged += 1
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows, damaged


# --------------------------------------------------------------------------- recordings
def _recording(path: Path) -> dict[str, Any]:
    from avhubert.data.video import probe

    media = probe(path)
    told: dict[str, Any] = {"kind": "video" if media.has_video else "sound", "seconds": media.duration_seconds}
    if media.has_video:
        told["picture"] = f"{media.width}x{media.height}, {media.fps:.4g} frames a second"
        told["sound"] = "yes" if media.has_audio else "none"
    return told


# --------------------------------------------------------------------------- data, labels, noise, recipes
def _is_noise(path: Path) -> bool:
    """Noise lists are lines of one path each; a manifest's lines after the first have tabs."""
    lines = [line for file in splits(path) for line in file.read_text("utf-8", "replace").splitlines()[:2] if line]
    return bool(lines) and all(line.endswith(".wav") and "\t" not in line for line in lines)


def _noise(path: Path) -> dict[str, Any]:
    from avhubert.data.noise import read_noise_list

    told: dict[str, Any] = {"kind": "noise lists"}
    for file in splits(path):
        found = read_noise_list(file, file.stem)
        told[file.stem] = f"{len(found):,} entries, {len(set(found)):,} files"
    return told


def _data(path: Path) -> dict[str, Any]:
    from avhubert.data.manifest import read_manifest
    from avhubert.data.tokenizer import Tokenizer
    from avhubert.data.transcripts import read_transcripts

    told: dict[str, Any] = {"kind": "data directory"}
    for file in splits(path):
        clips = read_manifest(file)
        hours = sum(max(clip.video_frames / FRAMES, clip.audio_samples / SAMPLES) for clip in clips)
        length = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
        parts = [f"{len(clips):,} clips", length]
        if (path / f"{file.stem}.wrd").is_file():
            texts = read_transcripts(path / f"{file.stem}.wrd", clips)
            parts.append(f"text of {sum(len(text.split()) for text in texts):,} words")
        else:
            parts.append("no text")
        parts += [what for suffix, what in ((".phn", "true phones"), (".km", "labels")) if _beside(file, suffix)]
        for what, count in (
            ("picture", sum(not clip.video_frames for clip in clips)),
            ("sound", sum(not clip.audio_samples for clip in clips)),
        ):
            if count:
                parts.append(f"{count:,} without {what}")
        told[file.stem] = ", ".join(parts)
    rejected = (path / REJECTED).read_text().splitlines() if (path / REJECTED).is_file() else []
    if rejected:
        told["left out"] = f"{len(rejected):,} inputs, each with its reason in {REJECTED}"
    has_tokenizer = (path / "tokenizer.model").is_file()
    told["tokenizer"] = _tokenizer(Tokenizer(path / "tokenizer.model")) if has_tokenizer else "none"
    return told


def _beside(manifest: Path, suffix: str) -> bool:
    return manifest.with_suffix(suffix).is_file()


def _labels(path: Path) -> dict[str, Any]:
    from avhubert.data.labels import read_label_info, read_labels

    info = read_label_info(path)
    told: dict[str, Any] = {
        "kind": "labels",
        "clusters": info.clusters,
        "rate": f"{info.rate} labels a second",
        "source": info.source if info.layer is None else f"{info.source}, layer {info.layer}",
    }
    for file in sorted(path.glob("*.km")):
        rows = read_labels(file)
        told[file.name] = f"{len(rows):,} clips, {sum(map(len, rows)):,} labels"
        if file.stem in info.files and info.files[file.stem] != sha256(file):
            told[file.name] += "; not the file that labels.json was written for: cluster again"
    told |= {f"{split}.km": "is missing" for split in info.files if not (path / f"{split}.km").is_file()}
    if (path / "quality.json").is_file():
        quality = read_json(path / "quality.json")
        split = next((split for split in ("test", "valid", "train") if f"{split}_entropy" in quality), "train")
        for name in ("pnmi", "purity", "entropy", "empty_clusters"):
            if f"{split}_{name}" in quality:
                told[f"{name.replace('_', ' ')} ({split})"] = quality[f"{split}_{name}"]
    return told


def _recipe(path: Path) -> dict[str, Any]:
    iterations = read_json(path / "iterations.json")
    if not isinstance(iterations, list) or not all(isinstance(one, dict) for one in iterations):
        raise DataError(f"{path / 'iterations.json'} does not hold a recipe's iterations: run `avhubert iterate` again")
    told: dict[str, Any] = {"kind": "directory of `avhubert iterate`", "iterations done": len(iterations)}
    for one in iterations:
        told[f"iteration {one.get('iteration')}"] = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in one.items()
            if name != "iteration" and value is not None
        )
    return told


# the first that fits: a run directory is a model directory too
KINDS: list[tuple[Callable[[Path], bool], Callable[[Path], dict[str, Any]]]] = [
    (lambda path: (path / "resolved.yaml").is_file(), _run),
    (lambda path: (path / "config.json").is_file(), _model),
    (lambda path: (path / "labels.json").is_file() and not splits(path), _labels),
    (lambda path: (path / "iterations.json").is_file(), _recipe),
    (_is_noise, _noise),
    (lambda path: bool(splits(path)), _data),
]
