"""Frame labels for pre-training: features → k-means learned on `train` → cluster ids of every split.

A label folder holds {split}.km, dict.km.txt, labels.json (what readers check), the label model (centroids.npy and
label_model.json), quality.json (metrics) and report.html. With an existing label model, another corpus gets the same
clusters (`apply`), so that pre-training can continue on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avhubert.cluster.kmeans import fit
from avhubert.cluster.label_model import CENTROIDS, SETTINGS, LabelModel, centroids_hash, read_label_model
from avhubert.cluster.label_report import label_report
from avhubert.cluster.split_labels import SplitFeatures, write_split_labels
from avhubert.constants import SPLITS
from avhubert.data.labels import LabelInfo, write_label_info
from avhubert.data.manifest import Clip, read_manifest
from avhubert.devices import AUTO, resolve_device
from avhubert.errors import ConfigError, DataError, list_names
from avhubert.features.extractors import Extractor, make_extractor
from avhubert.features.shards import Shards, write_shards
from avhubert.features.specification import MFCC, parse
from avhubert.files import (
    atomic_directory,
    lock_directory,
    output_directory,
    read_json_object,
    remove_directory_leftovers,
    write_json,
)

_log = logging.getLogger(__name__)

METRICS_FILE = "quality.json"


def cluster(
    data_dir: str | Path,
    features: str,
    clusters: int,
    out: str | Path,
    seed: int = 0,
    percent: float = 100.0,
    splits: Sequence[str] = SPLITS,
    device: str = AUTO,
    precision: str = AUTO,
) -> dict[str, Any]:
    """Learn clusters on the training clips, label every split of a data directory and write a label folder.

    Until the end, features are kept in a folder beside `out`, so that an interrupted run resumes, and another number of
    clusters needs no new features. `out` appears only when it is complete.

    Args:
        data_dir: the data directory.
        features: `mfcc` or MODEL:LAYER.
        clusters: number of clusters.
        out: the label folder.
        seed: of the choice of clips and of k-means.
        percent: percentage of the training clips that k-means uses.
        splits: those to label, of those that exist.
        device: of the model and of k-means, see `devices.resolve`.
        precision: of the model, see `devices.resolve`.

    Returns:
        The contents of quality.json: settings and, for every split, `SPLIT_entropy` (nats) and, if the true phones are
        known ({split}.phn), `SPLIT_pnmi`, `SPLIT_purity` and `SPLIT_cluster_purity` at 25 Hz.

    Raises:
        ConfigError: the specification, a number, the device or the precision is impossible, or `out` holds something
            other than labels.
        DataError: no train.tsv, no training clip has audio (MFCC), fewer frames than clusters, over 5 % of the clusters
            empty.
    """
    spec = parse(features)
    if clusters < 2:
        raise ConfigError(f"--clusters {clusters} is too few: at least 2 are needed to distinguish frames")
    if not 0 < percent <= 100:
        raise ConfigError(f"--percent {percent:g} is not a share of the clips: give more than 0 and at most 100")
    data_dir = Path(data_dir)
    if not (data_dir / "train.tsv").is_file():
        raise DataError(f"{data_dir} has no train.tsv, from which clusters are learned; give a data directory")
    target = resolve_device(device)
    extractor = make_extractor(spec, device, precision)
    with _features(data_dir, extractor, out, splits) as split_features:
        chosen = _draw_clips(len(split_features.clips["train"]), percent, seed)
        kmeans = fit(lambda: split_features.shards["train"].clips(chosen), clusters, seed, device=target)
        info = LabelInfo(spec.rate, clusters, spec.model or MFCC, spec.layer, centroids_hash(kmeans.centroids))
        model = LabelModel(info, kmeans.centroids, extractor.identity.get("model_sha256"))
        settings = {
            "features": str(spec), **extractor.identity, "seed": seed, "percent": percent, "learned_clips": len(chosen)
        }  # fmt: skip
        learned = {
            "learned_frames": kmeans.rows, "inertia_per_frame": kmeans.inertia / kmeans.rows, "passes": kmeans.passes
        }  # fmt: skip
        return _write_labels(out, split_features, model, settings, learned, target)


def apply(
    data_dir: str | Path,
    features: str,
    labels: str | Path,
    out: str | Path,
    splits: Sequence[str] = SPLITS,
    device: str = AUTO,
    precision: str = AUTO,
) -> dict[str, Any]:
    """Label every split of a data directory with the clusters of an existing label folder; otherwise as `cluster`.

    Empty clusters are accepted: another corpus may lack what they represent.

    Args:
        data_dir: the data directory.
        features: the features that `labels` was made from, the model's path may have changed.
        labels: the existing label folder.
        out: the label folder to write.
        splits: those to label, of those that exist.
        device: of the model and of the distances, see `devices.resolve`.
        precision: of the model, see `devices.resolve`.

    Raises:
        ConfigError: the label model was learned from other features; `out`, device and precision as in `cluster`.
        DataError: `labels` has no label model, or `data_dir` no manifests.
    """
    spec, model = parse(features), read_label_model(labels)
    target = resolve_device(device)
    extractor = make_extractor(spec, device, precision)
    if spec.layer != model.info.layer or extractor.identity.get("model_sha256") != model.model_sha256:
        source = MFCC if model.info.layer is None else f"layer {model.info.layer} of the model {model.info.source}"
        raise ConfigError(
            f"the label model in {labels} was learned from {source}, not from {spec}; give --features of it"
        )
    if Path(out).resolve() == Path(labels).resolve():
        raise ConfigError(f"--out {out} is the label model itself; choose another folder")
    with _features(Path(data_dir), extractor, out, splits) as split_features:
        settings = read_json_object(Path(labels) / SETTINGS) | {"features": str(spec), "applied_from": str(labels)}
        learned = {"learned_frames": read_json_object(Path(labels) / METRICS_FILE).get("learned_frames", 0)}
        return _write_labels(out, split_features, model, settings, learned, target, allow_empty=True)


@contextlib.contextmanager
def _features(data_dir: Path, extractor: Extractor, out: str | Path, splits: Sequence[str]) -> Iterator[SplitFeatures]:
    """Features of every split that exists; they are deleted when the block ends well."""
    out = Path(out).absolute()
    if out.exists() and not (out / "labels.json").exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} holds something other than labels; choose another --out")
    present = [split for split in splits if (data_dir / f"{split}.tsv").is_file()]
    manifests = {split: read_manifest(data_dir / f"{split}.tsv") for split in present}
    if not any(manifests.values()) or not manifests.get("train", True):
        raise DataError(f"{data_dir / 'train.tsv'} lists no clips; prepare the data again")
    work = output_directory(out.parent / f".{out.name}.features")
    with lock_directory(work):
        remove_directory_leftovers(out)
        shards = {split: write_shards(work / split, clips, extractor, split) for split, clips in manifests.items()}
        _report_clips_without_features(manifests, shards)
        yield SplitFeatures(data_dir, manifests, shards)
    shutil.rmtree(work)


def _report_clips_without_features(manifests: Mapping[str, Sequence[Clip]], shards: Mapping[str, Shards]) -> None:
    """Name the clips without audio, which have no MFCC and get no labels; DataError if there is no other clip."""
    lengths = {split: shards[split].frames for split in manifests}
    without = [
        clip.id
        for split, clips in manifests.items()
        for clip, frames in zip(clips, lengths[split], strict=True)
        if not frames
    ]
    if without and not any(lengths.get("train", [1])):
        raise DataError("no training clip has audio, so there are no MFCC; cluster a layer of a model instead")
    if without:
        _log.warning(
            "%d clips have no audio, so no MFCC and no labels: %s; pre-training leaves them out until labels are made "
            "from a layer of a model",
            len(without),
            list_names(without),
        )


def _write_labels(
    out: str | Path,
    features: SplitFeatures,
    model: LabelModel,
    settings: dict[str, Any],
    learned: dict[str, Any],
    device: torch.device,
    allow_empty: bool = False,
) -> dict[str, Any]:
    """Write the label folder, complete or not at all; returns the contents of quality.json."""
    info = model.info
    with atomic_directory(Path(out).absolute()) as folder:
        np.save(folder / CENTROIDS, model.centroids)
        write_json(folder / SETTINGS, settings)
        splits = write_split_labels(folder, features, model, device, allow_empty)
        hashes = {split: labels.sha256 for split, labels in splits.items()}
        write_label_info(folder, dataclasses.replace(info, files=hashes))
        metrics: dict[str, Any] = {
            "source": settings["features"], "rate": info.rate, "clusters": info.clusters, **learned
        }  # fmt: skip
        for split, labels in splits.items():
            metrics.update({f"{split}_{name}": value for name, value in labels.metrics().items()})
        write_json(folder / METRICS_FILE, metrics)
        label_report(metrics, splits).write(folder / "report.html")
        return metrics


def _draw_clips(clips: int, percent: float, seed: int) -> list[int]:
    """Positions of the clips that k-means learns from: a share, rounded up."""
    count = min(clips, math.ceil(percent / 100 * clips))
    positions: list[int] = np.random.default_rng(seed).permutation(clips)[:count].tolist()
    return sorted(positions)
