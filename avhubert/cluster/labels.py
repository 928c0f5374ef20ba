"""Frame labels for pre-training: features → k-means learned on `train` → cluster ids of every split; the label model.

A label model that exists labels another corpus with the same clusters (`apply`): pre-training goes on with its ids.

A label folder holds {split}.km, dict.km.txt, labels.json (what readers check), the label model (centroids.npy and
label_model.json, by which another corpus gets the same cluster ids), quality.json and report.html.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avhubert.cluster.kmeans import fit
from avhubert.cluster.label_model import centroids_hash, read_label_model
from avhubert.cluster.label_report import label_report
from avhubert.cluster.split_labels import label_splits
from avhubert.constants import SPLITS
from avhubert.data.labels import LabelInfo, write_label_info
from avhubert.data.manifest import Clip, read_manifest
from avhubert.errors import ConfigError, DataError
from avhubert.features.extractors import Extractor, extractor
from avhubert.features.shards import Shards, write_shards
from avhubert.features.specification import parse
from avhubert.files import atomic_directory, lock_directory, output_directory, read_json, sha256, write_json


def cluster(
    data_dir: str | Path,
    features: str,
    clusters: int,
    out: str | Path,
    seed: int = 0,
    percent: float = 100.0,
    splits: Sequence[str] = SPLITS,
) -> dict[str, Any]:
    """Learn `clusters` clusters on `percent` % of the train clips, label every split that `data_dir` has, write `out`.

    `features`: `mfcc` or MODEL:LAYER. Returns what quality.json holds: settings and, for every split, `SPLIT_entropy`
    (nats) and, where the true phones are known ({split}.phn), `SPLIT_pnmi`, `SPLIT_purity` and `SPLIT_cluster_purity`
    at 25 Hz. Features go to a folder beside `out` until the end, so a killed run goes on where it was, and one refused
    for its clusters need not compute them again; `out` appears only complete.

    Raises:
        ConfigError: a malformed or impossible specification or number, or `out` holds something other than labels.
        DataError: no train.tsv, fewer frames than clusters, over 5 % of the clusters empty.
    """
    spec = parse(features)
    if clusters < 2:
        raise ConfigError(f"--clusters {clusters} is too few: at least 2 are needed to tell frames apart")
    if not 0 < percent <= 100:
        raise ConfigError(f"--percent {percent:g} is not a share of the clips: give more than 0 and at most 100")
    data_dir = Path(data_dir)
    if not (data_dir / "train.tsv").is_file():
        raise DataError(f"{data_dir} has no train.tsv, from which clusters are learned; give a data directory")
    source = extractor(spec)
    with _features(data_dir, source, out, splits) as (manifests, shards):
        chosen = _chosen(len(manifests["train"]), percent, seed)
        found = fit(lambda: shards["train"].clips(chosen), clusters, seed)
        info = LabelInfo(spec.rate, clusters, spec.model or "mfcc", spec.layer, centroids_hash(found.centroids))
        settings = {
            "features": str(spec), **source.identity, "seed": seed, "percent": percent, "learned_clips": len(chosen)
        }  # fmt: skip
        learned = {
            "learned_frames": found.rows, "inertia_per_frame": found.inertia / found.rows, "passes": found.passes
        }  # fmt: skip
        return _write(out, data_dir, manifests, shards, info, found.centroids, settings, learned)


def apply(
    data_dir: str | Path, features: str, labels: str | Path, out: str | Path, splits: Sequence[str] = SPLITS
) -> dict[str, Any]:
    """Label every split that `data_dir` has by the label model of the folder `labels`, write `out`; as `cluster`.

    `features` is that of `labels`: `mfcc`, or the same layer of the same model, wherever its file now is. Clusters that
    stay empty are no error here: another corpus may lack what they stand for.

    Raises:
        ConfigError: other features than those that the label model was learned from; `out` as in `cluster`.
        DataError: no label model, or no manifests.
    """
    spec, model = parse(features), read_label_model(labels)
    source = extractor(spec)
    if spec.layer != model.info.layer or source.identity.get("model_sha256") != model.model_sha256:
        own = "mfcc" if model.info.layer is None else f"layer {model.info.layer} of the model {model.info.source}"
        raise ConfigError(f"the label model in {labels} was learned from {own}, not from {spec}; give --features of it")
    if Path(out).resolve() == Path(labels).resolve():
        raise ConfigError(f"--out {out} is the label model itself; choose another folder")
    with _features(Path(data_dir), source, out, splits) as (manifests, shards):
        settings = read_json(Path(labels) / "label_model.json") | {"features": str(spec), "applied_from": str(labels)}
        learned = {"learned_frames": read_json(Path(labels) / "quality.json")["learned_frames"]}
        return _write(out, Path(data_dir), manifests, shards, model.info, model.centroids, settings, learned)


@contextlib.contextmanager
def _features(
    data_dir: Path, source: Extractor, out: str | Path, splits: Sequence[str]
) -> Iterator[tuple[dict[str, list[Clip]], dict[str, Shards]]]:
    """Manifests and features of every split that is there; the features are deleted once the labels are written."""
    out = Path(out).absolute()
    if out.exists() and not (out / "labels.json").exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} holds something other than labels; choose another --out")
    manifests = {split: read_manifest(data_dir / f"{split}.tsv") for split in splits if _exists(data_dir, split)}
    if not any(manifests.values()) or not manifests.get("train", True):
        raise DataError(f"{data_dir / 'train.tsv'} lists no clips; prepare the data again")
    work = output_directory(out.parent / f".{out.name}.features")
    with lock_directory(work):
        yield manifests, {split: write_shards(work / split, clips, source, split) for split, clips in manifests.items()}
    shutil.rmtree(work)


def _write(
    out: str | Path,
    data_dir: Path,
    manifests: dict[str, list[Clip]],
    shards: dict[str, Shards],
    info: LabelInfo,
    centroids: np.ndarray,
    settings: dict[str, Any],
    learned: dict[str, Any],
) -> dict[str, Any]:
    """The label folder, complete or not at all; returns what its quality.json holds."""
    with atomic_directory(Path(out).absolute()) as folder:
        np.save(folder / "centroids.npy", centroids)
        write_json(folder / "label_model.json", settings)
        results = label_splits(folder, data_dir, manifests, shards, info, centroids, "applied_from" not in settings)
        hashes = {split: sha256(folder / f"{split}.km") for split in manifests}
        write_label_info(folder, dataclasses.replace(info, files=hashes))
        figures: dict[str, Any] = {
            "source": settings["features"], "rate": info.rate, "clusters": info.clusters, **learned
        }  # fmt: skip
        for split, result in results.items():
            figures.update({f"{split}_{name}": value for name, value in result.figures().items()})
        write_json(folder / "quality.json", figures)
        label_report(figures, results).write(folder / "report.html")
        return figures


def _exists(data_dir: Path, split: str) -> bool:
    return (data_dir / f"{split}.tsv").is_file()


def _chosen(clips: int, percent: float, seed: int) -> list[int]:
    """Positions of the clips that k-means learns from: ceil of the share, drawn with the seed."""
    count = min(clips, math.ceil(percent / 100 * clips))
    return sorted(np.random.default_rng(seed).permutation(clips)[:count].tolist())
