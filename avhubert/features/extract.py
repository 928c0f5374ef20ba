"""Features of one layer, and cluster ids, for the clips of a data directory or one raw video or sound file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avhubert.constants import MODALITIES, SPLITS
from avhubert.errors import ConfigError, DataError, one_of
from avhubert.files import atomic_path, output_directory
from avhubert.report import progress

if TYPE_CHECKING:
    import numpy as np

    from avhubert.cluster.label_model import LabelModel
    from avhubert.data.manifest import Clip
    from avhubert.features.layer import LayerExtractor, Streams


def extract_features(
    source: str | Path,
    model: Any,
    layer: int | None = None,
    *,
    out: str | Path,
    split: str | None = None,
    modality: str = "av",
    units: str | Path | None = None,
) -> list[Path]:
    """Write float32 [T, D] at 25 Hz, OUT/SPLIT/ID.npy for every clip, OUT/NAME.npy for a raw file; returns the paths.

    `source`: a data directory (its `split`, default all that are there) or a raw video or sound file, in which the
    mouth is found first. `model`: what `avhubert.load` takes, or a loaded model. `layer`: see
    `AVHubert.extract_features`. `units`: a folder of labels made from a layer of this model; their ids are written too,
    as OUT/SPLIT.km (a line per clip) or OUT/NAME.km, and their layer is the default. Clips meet no padding: they are
    alone or with equally long ones.

    Raises:
        ConfigError: a layer, modality or split that is not there, units of other features.
        DataError, MediaError: the data directory or a file in it cannot be used.
    """
    from avhubert.cluster.label_model import read_label_model
    from avhubert.features.layer import LayerExtractor

    source = Path(source)
    if not source.exists():
        raise DataError(f"{source} does not exist; give a data directory or a video or sound file")
    if split is not None and not source.is_dir():
        raise ConfigError(f"{source} is one recording and has no split '{split}'; leave the split out")
    label_model = None if units is None else read_label_model(units)
    if label_model is not None:
        layer = _layer_of_units(label_model, layer, units)
    manifests = _manifests(source, split) if source.is_dir() else {}
    out = output_directory(out)
    extractor = LayerExtractor(model, layer, modality)
    if label_model is not None:
        known = extractor.identity.get("model_sha256")
        if known and label_model.model_sha256 and known != label_model.model_sha256:
            raise ConfigError(f"the units in {units} were made from another model than {model}; give that model")
    if source.is_dir():
        return _extract_clips(manifests, extractor, out, label_model)
    return _extract_file(source, extractor, out, label_model)


def _layer_of_units(label_model: LabelModel, layer: int | None, units: str | Path | None) -> int:
    own = label_model.info.layer
    if own is None:
        raise ConfigError(f"the units in {units} are clusters of {label_model.info.source}, not of a layer of a model")
    if layer not in (None, own):
        raise ConfigError(
            f"the units in {units} are clusters of layer {own}, not of layer {layer}; leave the layer out"
        )
    return own


def _manifests(data_dir: Path, split: str | None) -> dict[str, list[Clip]]:
    from avhubert.data.manifest import read_manifest, splits

    present = [path.stem for path in splits(data_dir)]
    if not present:
        raise DataError(
            f"{data_dir} has no manifest (train.tsv, valid.tsv or test.tsv); give a data directory or a file"
        )
    if split is not None and split not in present:
        raise ConfigError(one_of("split", split, present))
    chosen = [split] if split is not None else [name for name in SPLITS if name in present]
    return {name: read_manifest(data_dir / f"{name}.tsv") for name in chosen}


def _extract_clips(
    manifests: dict[str, list[Clip]], extractor: LayerExtractor, out: Path, label_model: LabelModel | None
) -> list[Path]:
    from avhubert.cluster.kmeans import assign
    from avhubert.data.labels import write_labels

    written = []
    with progress() as bar:
        for split, clips in manifests.items():
            task = bar.add_task(f"features: {split}", total=len(clips), unit="clips")
            paths = list(_paths(out / split, clips))
            rows: list[np.ndarray | None] = [None] * len(clips)
            for index, x in extractor.over(clips):
                _save(paths[index], x)
                if label_model is not None:
                    rows[index] = assign(x.astype(extractor.dtype), label_model.centroids)
                bar.advance(task)
            written += paths
            if label_model is not None:
                write_labels(out / f"{split}.km", [row for row in rows if row is not None])
                written.append(out / f"{split}.km")
    return written


def _extract_file(source: Path, extractor: LayerExtractor, out: Path, label_model: LabelModel | None) -> list[Path]:
    from avhubert.cluster.kmeans import assign
    from avhubert.data.labels import write_labels

    x = extractor.compute([_read_raw(source, extractor.modality)])[0]
    written = [out / f"{source.stem}.npy"]
    _save(written[0], x)
    if label_model is not None:
        written.append(out / f"{source.stem}.km")
        write_labels(written[1], [assign(x.astype(extractor.dtype), label_model.centroids)])
    return written


def _read_raw(source: Path, modality: str) -> Streams:
    """The streams of a raw file: the mouth is found and cropped as preparation does it, the sound read beside it."""
    from avhubert.data.audio import read_audio
    from avhubert.features.layer import streams

    frames = None
    if "video" in MODALITIES[modality]:
        from avhubert.prepare.mouth import mouth_clip

        frames = mouth_clip(source).frames
    return streams(frames, read_audio(source) if "audio" in MODALITIES[modality] else None)


def _paths(folder: Path, clips: Sequence[Clip]) -> Iterator[Path]:
    for clip in clips:
        path = folder / f"{clip.id}.npy"
        if Path(clip.id).is_absolute() or ".." in Path(clip.id).parts:
            raise DataError(f"clip id '{clip.id}' would be written outside of {folder}; give it another id")
        yield path


def _save(path: Path, x: np.ndarray) -> None:
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        np.save(temporary, x)
