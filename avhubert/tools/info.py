"""`avhubert info`: describes models, runs, data directories, label folders, noise folders, recipes and recordings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avhubert.config.command_defaults import BUILTIN_MODEL
from avhubert.constants import FRAME_RATE, SAMPLE_RATE, SPECIAL_SYMBOLS
from avhubert.data.discovery import Recordings, describe_skipped, find_recordings
from avhubert.data.manifest import REJECTED, Clip, read_lines, splits
from avhubert.errors import CheckpointError, DataError, MediaError
from avhubert.files import read_json, read_json_object

if TYPE_CHECKING:
    from avhubert.data.media import DamageLog, StreamChoice
    from avhubert.data.tokenizer import Tokenizer
    from avhubert.data.video import MediaInfo

Description = dict[str, str | int | float]  # name → value in the order of display; the first is `kind`

RUN_SECTIONS = ("train", "data", "model")  # that every resolved.yaml has
# the values of a model that are displayed for a run
MODEL_VALUES_OF_RUN = ("parameters", "encoder", "visual front end", "decoder", "classes", "decoding", "tokenizer")
QUALITY_METRICS = ("pnmi", "purity", "entropy", "empty_clusters")
SYMBOLS_SHOWN = 8  # of a tokenizer
LONGEST_CHECKED_SECONDS = 600  # by the header; longer recordings are not searched for damage
THUMBNAIL = 16  # pixels


def describe(source: str | Path, streams: StreamChoice | None = None) -> Description:
    """Describes a file, a folder or a model on the Hub.

    Args:
        source: The file, folder or name.
        streams: Which of several audio or video streams of a recording are described; None: chosen automatically.

    Raises:
        DataError: `source` is of an unknown kind, or damaged.
        CheckpointError: `source` is a model that cannot be read, or does not exist.
    """
    path = Path(source)
    if path.is_dir() and source != BUILTIN_MODEL:
        return _describe_folder(path)
    try:
        return describe_model(source)
    except CheckpointError:
        if not path.is_file() or path.suffix == ".pt":
            raise
    try:
        return describe_recording(path, streams)
    except MediaError as error:
        raise DataError(
            f"{error}; `avhubert info` also describes checkpoints (.pt) and folders: models, runs, data, labels",
            path=path,
        ) from error


def _describe_folder(path: Path) -> Description:
    for is_of_kind, describe_kind in FOLDER_KINDS:
        if is_of_kind(path):
            return describe_kind(path)
    recordings = find_recordings(path)
    if recordings.files:
        return describe_recordings(path, recordings)
    raise DataError(
        f"{path} is not a folder that `avhubert info` describes: a model (config.json), a run (resolved.yaml), a data "
        "directory or noise ({train,valid,test}.tsv), labels (labels.json), a recipe's directory (iterations.json) or "
        "recordings",
        path=path,
    )


# --------------------------------------------------------------------------- models and runs
def describe_model(source: str | Path) -> Description:
    """Describes a model directory, a published checkpoint or a model on the Hub."""
    from avhubert.checkpoints.card import label_set, result_text
    from avhubert.checkpoints.load import describe as model_values
    from avhubert.checkpoints.load import load
    from avhubert.model.recognizer import Recognizer

    model = load(source)
    description: Description = {name: _text(value) for name, value in model_values(model).items()}
    if model.metadata.labels:
        description["labels"] = "; ".join(map(label_set, model.metadata.labels))
    if model.metadata.results:
        description["results"] = "; ".join(map(result_text, model.metadata.results))
    if isinstance(model, Recognizer) and model.tokenizer is not None:
        description["tokenizer"] = _tokenizer_text(model.tokenizer)
    return description


def describe_run(path: Path) -> Description:
    """Describes a run directory: its settings, progress, last metrics and model."""
    from avhubert.train.log import read_log

    settings = _run_settings(path)
    train, data, model = (settings[section] for section in RUN_SECTIONS)
    log = read_log(path)
    values: dict[str, Any] = {
        "kind": f"run of {'pre-training' if 'masking' in settings else 'fine-tuning'}",
        "step": f"{log.step} of {train.get('max_steps')}",
        "data": data.get("dir"),
        "labels": data.get("labels"),
        "pretrained": model.get("pretrained"),
        "frames per step": train.get("frames_per_step"),
        "seed": settings.get("seed"),
    }
    for split in ("train", "valid"):
        row = log.last(split)
        if row:
            metrics = {name: value for name, value in row.items() if name not in ("step", "split", "seconds")}
            values[f"{split}, step {row['step']}"] = _values_text(metrics)
    if log.unreadable:
        values["unreadable lines of metrics.jsonl"] = log.unreadable
    values["states"] = ", ".join(sorted(file.stem for file in (path / "state").glob("*.pt"))) or "none"
    if (path / "best" / "config.json").is_file():
        values["best model"] = str(path / "best")
    if (path / "config.json").is_file():
        description = describe_model(path)
        values |= {f"model {name}": description[name] for name in description if name in MODEL_VALUES_OF_RUN}
    return {name: _text(value) for name, value in values.items() if value is not None}


def _run_settings(path: Path) -> dict[str, Any]:
    import yaml

    file = path / "resolved.yaml"
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{file} cannot be read, so the settings of the run are unknown", path=file) from error
    if not isinstance(settings, dict) or not all(isinstance(settings.get(name), dict) for name in RUN_SECTIONS):
        raise DataError(f"{file} does not contain the settings of a run; start the run again", path=file)
    return settings


# --------------------------------------------------------------------------- recordings
def describe_recording(path: Path, streams: StreamChoice | None = None) -> Description:
    """Describes a video or audio file: its header, and what is damaged if it is not too long to be read now."""
    from avhubert.data.media import AUTOMATIC, DamageLog
    from avhubert.data.video import probe

    streams, damage = streams or AUTOMATIC, DamageLog()
    media = probe(path, streams, damage)
    description: Description = {"kind": "video" if media.has_video else "audio", "seconds": media.duration_seconds}
    if media.has_video:
        description["video"] = f"{media.width}x{media.height}, {media.fps:.4g} frames per second"
        description["audio"] = "yes" if media.has_audio else "none"
    if media.duration_seconds <= LONGEST_CHECKED_SECONDS:
        _check_recording(path, media, streams, damage)
    else:
        description["damage"] = (
            f"not searched for: the recording is longer than {LONGEST_CHECKED_SECONDS // 60} minutes; `avhubert "
            "transcribe` and `prepare` report damage"
        )
    for number, sentence in enumerate(damage.sentences(), 1):
        description[f"warning {number}"] = sentence
    return description


def _check_recording(path: Path, media: MediaInfo, streams: StreamChoice, damage: DamageLog) -> None:
    """Reads a recording once and records what is damaged."""
    from avhubert.data.audio import read_audio
    from avhubert.data.video import thumbnails

    try:
        if media.has_audio:
            read_audio(path, streams=streams, damage=damage)
        if media.has_video:
            for _ in thumbnails(path, THUMBNAIL, streams, damage):
                pass
    except MediaError as error:
        damage.note(str(error))


def describe_recordings(folder: Path, recordings: Recordings) -> Description:
    """Describes a folder of video and audio files by their headers."""
    from avhubert.data.video import probe

    seconds = {"videos": 0.0, "audio files": 0.0}
    counts = Counter[str]()
    unreadable = []
    for file in recordings.files:
        try:
            media = probe(file)
        except MediaError as error:
            unreadable.append(error.with_path_as(str(file.relative_to(folder))))
            continue
        kind = "videos" if media.has_video else "audio files"
        counts[kind] += 1
        seconds[kind] += media.duration_seconds
    description: Description = {"kind": "folder of recordings"}
    for kind, count in counts.items():
        description[kind] = f"{count:,}, {_duration_text(seconds[kind])}"
    for number, reason in enumerate(unreadable, 1):
        description[f"unreadable {number}"] = reason
    for number, line in enumerate(describe_skipped(recordings.skipped, folder), 1):
        description[f"skipped {number}"] = line.removeprefix("skipped ")
    return description


# --------------------------------------------------------------------------- data, labels, noise, recipes
def _is_noise(path: Path) -> bool:
    """Lines of noise lists are single paths; lines of a manifest, after the first one, contain tabs."""
    lines = [line for file in splits(path) for line in read_lines(file, "list")[:2] if line]
    return bool(lines) and all(line.endswith(".wav") and "\t" not in line for line in lines)


def describe_noise(path: Path) -> Description:
    """Describes a folder of noise lists."""
    from avhubert.data.noise import read_noise_list

    description: Description = {"kind": "noise lists"}
    for file in splits(path):
        entries = read_noise_list(file, file.stem)
        description[file.stem] = f"{len(entries):,} entries, {len(set(entries)):,} files"
    return description


def describe_data(path: Path) -> Description:
    """Describes a data directory: its splits, rejected inputs and tokenizer."""
    from avhubert.data.tokenizer import Tokenizer

    description: Description = {"kind": "data directory"}
    for manifest in splits(path):
        description[manifest.stem] = _split_text(manifest)
    rejected = read_lines(path / REJECTED, "list") if (path / REJECTED).is_file() else []
    if rejected:
        description["rejected"] = f"{len(rejected):,} inputs; the reasons are in {REJECTED}"
    file = path / "tokenizer.model"
    description["tokenizer"] = _tokenizer_text(Tokenizer(file)) if file.is_file() else "none"
    return description


def _split_text(manifest: Path) -> str:
    from avhubert.data.manifest import read_manifest
    from avhubert.data.transcripts import read_transcripts

    clips = read_manifest(manifest)
    parts = [f"{len(clips):,} clips", _duration_text(_clip_seconds(clips))]
    transcripts = manifest.with_suffix(".wrd")
    if transcripts.is_file():
        words = sum(len(text.split()) for text in read_transcripts(transcripts, clips))
        parts.append(f"text of {words:,} words")
    else:
        parts.append("no text")
    parts += [what for suffix, what in ((".phn", "true phones"), (".km", "labels"))
              if manifest.with_suffix(suffix).is_file()]  # fmt: skip
    if speakers := len({clip.speaker for clip in clips} - {""}):
        parts.append(f"{speakers:,} speakers")
    missing = {
        "video": sum(not clip.video_frames for clip in clips),
        "audio": sum(not clip.audio_samples for clip in clips),
    }
    parts += [f"{count:,} without {stream}" for stream, count in missing.items() if count]
    return ", ".join(parts)


def _clip_seconds(clips: list[Clip]) -> float:
    return sum(max(clip.video_frames / FRAME_RATE, clip.audio_samples / SAMPLE_RATE) for clip in clips)


def _duration_text(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def describe_labels(path: Path) -> Description:
    """Describes a label folder: its clusters, files and quality."""
    from avhubert.data.labels import is_described, read_label_info, read_labels

    info = read_label_info(path)
    description: Description = {
        "kind": "labels",
        "clusters": info.clusters,
        "rate": f"{info.rate} labels per second",
        "source": info.source if info.layer is None else f"{info.source}, layer {info.layer}",
    }
    for file in sorted(path.glob("*.km")):
        rows = read_labels(file)
        text = f"{len(rows):,} clips, {sum(map(len, rows)):,} labels"
        if file.stem in info.files and not is_described(file, info):
            text += "; differs from the file that labels.json describes: cluster again"
        description[file.name] = text
    description |= {f"{split}.km": "is missing" for split in info.files if not (path / f"{split}.km").is_file()}
    return description | _quality(path)


def _quality(labels: Path) -> Description:
    """Metrics of quality.json on the test split, else on another one."""
    if not (labels / "quality.json").is_file():
        return {}
    quality = read_json_object(labels / "quality.json")
    split = next((split for split in ("test", "valid", "train") if f"{split}_entropy" in quality), "train")
    return {
        f"{metric.replace('_', ' ')} ({split})": quality[f"{split}_{metric}"]
        for metric in QUALITY_METRICS
        if f"{split}_{metric}" in quality
    }


def describe_recipe(path: Path) -> Description:
    """Describes the directory of `avhubert iterate`: the metrics of each iteration."""
    file = path / "iterations.json"
    iterations = read_json(file)
    if not isinstance(iterations, list) or not all(isinstance(iteration, dict) for iteration in iterations):
        raise DataError(f"{file} does not contain the iterations of a recipe; run `avhubert iterate` again", path=file)
    description: Description = {"kind": "directory of `avhubert iterate`", "iterations done": len(iterations)}
    for iteration in iterations:
        values = {name: value for name, value in iteration.items() if name != "iteration" and value is not None}
        description[f"iteration {iteration.get('iteration')}"] = _values_text(values)
    return description


# the first that matches: a run directory is a model directory too
FOLDER_KINDS: list[tuple[Callable[[Path], bool], Callable[[Path], Description]]] = [
    (lambda path: (path / "resolved.yaml").is_file(), describe_run),
    (lambda path: (path / "config.json").is_file(), describe_model),
    (lambda path: (path / "labels.json").is_file() and not splits(path), describe_labels),
    (lambda path: (path / "iterations.json").is_file(), describe_recipe),
    (_is_noise, describe_noise),
    (lambda path: bool(splits(path)), describe_data),
]


# --------------------------------------------------------------------------- values as text
def _text(value: Any) -> str | int | float:
    """A value for display: lists and tables become text."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return value if isinstance(value, (str, int, float)) else str(value)


def _values_text(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def _tokenizer_text(tokenizer: Tokenizer) -> str:
    symbols = tokenizer.symbols[len(SPECIAL_SYMBOLS) :][:SYMBOLS_SHOWN]
    return f"{tokenizer.vocab_size} symbols: {' '.join(symbols)} …"
