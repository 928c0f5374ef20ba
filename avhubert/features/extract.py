"""Features of one layer, and cluster ids, for the clips of a data directory or for raw video and audio files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avhubert.constants import MODALITIES, SPLITS
from avhubert.errors import ConfigError, DataError, MediaError, one_of
from avhubert.files import atomic_path, output_directory
from avhubert.report import progress

if TYPE_CHECKING:
    import numpy as np

    from avhubert.cluster.label_model import LabelModel
    from avhubert.data.collate import Example
    from avhubert.data.manifest import Clip
    from avhubert.data.media import StreamChoice
    from avhubert.features.layer import LayerExtractor

_log = logging.getLogger(__name__)


def extract_features(
    source: str | Path,
    model: Any,
    layer: int | None = None,
    *,
    out: str | Path,
    split: str | None = None,
    modality: str = "av",
    units: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    streams: StreamChoice | None = None,
) -> list[Path]:
    """Write the features of one layer, float32 [T, D] at 25 Hz, and optionally cluster ids.

    The files are OUT/SPLIT/ID.npy for every clip of a data directory, and OUT/NAME.npy for a raw file. No clip is
    padded: a batch holds one clip or equally long ones.

    Args:
        source: a data directory, a raw video or audio file, or a folder of such files; in a raw video the mouth is
            found first. A file of a folder that cannot be read does not stop the others.
        model: what `avhubert.load` takes, or a loaded model.
        layer: see `AVHubert.forward`.
        out: output folder.
        split: of the data directory; None: all that it has.
        modality: streams to use: av, a or v.
        units: a folder of labels made from a layer of this model. Cluster ids are written too, as OUT/SPLIT.km (a line
            per clip) or OUT/NAME.km, and the labels' layer is the default.
        device: auto, cpu, cuda, cuda:N or mps; see `devices.resolve`.
        precision: auto, fp32, bf16 or fp16; see `devices.resolve`.
        streams: which of several audio or video streams of raw files are read; None: chosen automatically.

    Returns:
        The paths of the files.

    Raises:
        ConfigError: the layer, modality, split, device or precision does not exist; the units are of other features.
        DataError, MediaError: the data directory or a file in it cannot be used; of a folder of raw files, one or more
            could not be read.
    """
    from avhubert.cluster.label_model import read_label_model
    from avhubert.features.layer import LayerExtractor

    source = Path(source)
    if not source.exists():
        raise DataError(f"{source} does not exist; give a data directory or a video or audio file")
    if split is not None and not source.is_dir():
        raise ConfigError(f"{source} is one recording and has no split '{split}'; leave the split out")
    label_model = None if units is None else read_label_model(units)
    if label_model is not None:
        layer = _layer_of_units(label_model, layer, units)
    recordings = _recordings(source) if source.is_dir() and split is None else []
    manifests = _manifests(source, split) if source.is_dir() and not recordings else {}
    out = output_directory(out)
    extractor = LayerExtractor(model, layer, modality, device, precision)
    if label_model is not None:
        _check_model(label_model, extractor, f"the units in {units} were made from another model than {model}")
    if manifests:
        return _extract_clips(source, manifests, extractor, out, label_model)
    if recordings:
        return _extract_files(source, recordings, extractor, out, label_model, streams)
    return _extract_file(source, out / source.stem, extractor, label_model, streams)


def _check_model(label_model: LabelModel, extractor: LayerExtractor, problem: str) -> None:
    """ConfigError if the units were made from another model, where that is known."""
    model_sha256 = extractor.identity.get("model_sha256")
    if model_sha256 and label_model.model_sha256 and model_sha256 != label_model.model_sha256:
        raise ConfigError(f"{problem}; give that model")


def _layer_of_units(label_model: LabelModel, layer: int | None, units: str | Path | None) -> int:
    units_layer = label_model.info.layer
    if units_layer is None:
        raise ConfigError(f"the units in {units} are clusters of {label_model.info.source}, not of a layer of a model")
    if layer not in (None, units_layer):
        raise ConfigError(
            f"the units in {units} are clusters of layer {units_layer}, not of layer {layer}; leave the layer out"
        )
    return units_layer


def _recordings(folder: Path) -> list[Path]:
    """The recordings in a folder that is no data directory; none if it is one. What is skipped is reported."""
    from avhubert.data.discovery import describe_skipped, find_recordings
    from avhubert.data.manifest import splits

    if splits(folder):
        return []
    found = find_recordings(folder)
    for line in describe_skipped(found.skipped, folder):
        _log.warning(line)
    return found.files


def _manifests(data_dir: Path, split: str | None) -> dict[str, list[Clip]]:
    """The clips of each split to extract."""
    from avhubert.data.manifest import read_manifest, splits

    present = [path.stem for path in splits(data_dir)]
    if not present:
        raise DataError(
            f"{data_dir} has no manifest (train.tsv, valid.tsv or test.tsv) and no recordings; give a data directory, "
            "a file or a folder of files"
        )
    if split is not None and split not in present:
        raise ConfigError(one_of("split", split, present))
    chosen = [split] if split is not None else [name for name in SPLITS if name in present]
    return {name: read_manifest(data_dir / f"{name}.tsv") for name in chosen}


def _extract_clips(
    data_dir: Path,
    manifests: dict[str, list[Clip]],
    extractor: LayerExtractor,
    out: Path,
    label_model: LabelModel | None,
) -> list[Path]:
    from avhubert.data.labels import write_labels
    from avhubert.data.preparation import check_crop

    check_crop(data_dir, extractor.preparation, extractor.modality)
    written = []
    with progress() as bar:
        for split, clips in manifests.items():
            task = bar.add_task(f"features: {split}", total=len(clips), unit="clips")
            paths = list(_paths(out / split, clips))
            units: list[np.ndarray | None] = [None] * len(clips)
            for index, features in extractor.extract(clips):
                _save(paths[index], features)
                if label_model is not None:
                    units[index] = _units(features, extractor, label_model)
                bar.advance(task)
            written += paths
            if label_model is not None:
                write_labels(out / f"{split}.km", [row for row in units if row is not None])
                written.append(out / f"{split}.km")
    return written


def _extract_files(
    folder: Path,
    files: list[Path],
    extractor: LayerExtractor,
    out: Path,
    label_model: LabelModel | None,
    streams: StreamChoice | None,
) -> list[Path]:
    names = [file.relative_to(folder).with_suffix("") for file in files]
    counts = Counter(names)
    written, failed = [], 0
    with progress() as bar:
        task = bar.add_task("features", total=len(files), unit="files")
        for file, name in zip(files, names, strict=True):
            target = name if counts[name] == 1 else file.relative_to(folder)
            try:
                written += _extract_file(file, out / target, extractor, label_model, streams)
            except MediaError as error:
                _log.warning("%s", error)
                failed += 1
            bar.advance(task)
    if failed:
        raise DataError(f"{failed} of {len(files)} files of {folder} could not be read", path=folder)
    return written


def _extract_file(
    source: Path,
    target: Path,
    extractor: LayerExtractor,
    label_model: LabelModel | None,
    streams: StreamChoice | None,
) -> list[Path]:
    """Write `target`.npy, and `target`.km with the cluster ids."""
    from avhubert.data.labels import write_labels

    features = extractor.features([_read_raw(source, extractor, streams)])[0]
    written = [target.with_name(f"{target.name}.npy")]
    _save(written[0], features)
    if label_model is not None:
        written.append(target.with_name(f"{target.name}.km"))
        write_labels(written[1], [_units(features, extractor, label_model)])
    return written


def _units(features: np.ndarray, extractor: LayerExtractor, label_model: LabelModel) -> np.ndarray:
    """Cluster ids of features [T, D], rounded as they were for clustering."""
    from avhubert.cluster.kmeans import assign

    return assign(features.astype(extractor.dtype), label_model.centroids, extractor.compute.device)


def _read_raw(source: Path, extractor: LayerExtractor, streams: StreamChoice | None) -> Example:
    """A raw file: the mouth is found and cropped as in preparation, and the audio is read. Logs what is damaged."""
    from avhubert.data.audio import read_audio
    from avhubert.data.media import AUTOMATIC, DamageLog
    from avhubert.features.layer import make_example

    streams = streams or AUTOMATIC
    damage = DamageLog()
    wanted, preparation = MODALITIES[extractor.modality], extractor.preparation
    frames = samples = None
    if "video" in wanted:
        from avhubert.prepare.mouth import mouth_clip

        frames = mouth_clip(source, streams=streams, damage=damage, crop=preparation.crop).frames
    if "audio" in wanted:
        samples = read_audio(source, streams=streams, damage=damage)
    for sentence in damage.sentences():
        _log.warning("%s: %s", source, sentence)
    return make_example(source.stem, frames, samples, preparation=preparation)


def _paths(folder: Path, clips: Sequence[Clip]) -> Iterator[Path]:
    for clip in clips:
        path = folder / f"{clip.id}.npy"
        if Path(clip.id).is_absolute() or ".." in Path(clip.id).parts:
            raise DataError(f"clip id '{clip.id}' would be written outside of {folder}; give it another id")
        yield path


def _save(path: Path, features: np.ndarray) -> None:
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        np.save(temporary, features)
