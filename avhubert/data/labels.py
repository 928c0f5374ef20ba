"""Frame labels (`.km`), their dictionary and `labels.json`: read, check, write."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avhubert.constants import FRAME_RATE, NUM_SPECIALS
from avhubert.data.manifest import DRIFT_SECONDS, Clip, check_row_count, drift_seconds, read_lines, write_lines
from avhubert.errors import DataError
from avhubert.files import read_json, sha256, write_json


# --------------------------------------------------------------------------- frame labels
@dataclass(frozen=True)
class LabelInfo:
    """What lies beside a `.km` as labels.json: how its labels were made."""

    rate: int  # labels per second: 100 for MFCC, 25 for a model's layer
    clusters: int  # ids are 0 … clusters - 1
    source: str  # 'mfcc' or the model that the features came from
    layer: int | None  # the model's layer; None for MFCC
    centroids: str  # SHA-256 of the centroids
    files: dict[str, str] = field(default_factory=dict)  # SHA-256 of each split's .km; may be left out by hand


def read_label_info(folder: str | Path) -> LabelInfo:
    """labels.json of a label folder; DataError if it is missing or does not hold what it must."""
    path = Path(folder) / "labels.json"
    if not path.exists():
        raise DataError(
            f"{path} is missing, so the rate and number of clusters of the labels are not known; "
            "make labels with `avhubert cluster` or write it by hand"
        )
    values = read_json(path)
    kinds: dict[str, tuple[type, ...]] = {
        "rate": (int,), "clusters": (int,), "source": (str,), "layer": (int, type(None)), "centroids": (str,),
    }  # fmt: skip
    if not isinstance(values, dict) or set(values) - {"files"} != set(kinds):
        raise DataError(f"{path} must hold {', '.join(kinds)}, perhaps files, and nothing else")
    if not isinstance(values.get("files", {}), dict):
        raise DataError(f"{path}: files={values['files']!r} must give the SHA-256 of each split's .km")
    for name, kind in kinds.items():
        if not isinstance(values[name], kind) or isinstance(values[name], bool):
            raise DataError(f"{path}: {name}={values[name]!r} is not of the right kind; see `avhubert cluster`")
    if values["rate"] < 1 or values["clusters"] < 1:
        raise DataError(f"{path}: rate={values['rate']} and clusters={values['clusters']} must be at least 1")
    return LabelInfo(**values)


def write_label_info(folder: str | Path, info: LabelInfo) -> None:
    """Write labels.json."""
    write_json(Path(folder) / "labels.json", dataclasses.asdict(info))


def read_labels(path: str | Path) -> list[np.ndarray]:
    """Cluster ids of a `.km`, int32 [labels], one line a clip; DataError names a line that is not whole numbers."""
    rows = []
    for number, line in enumerate(read_lines(path, "labels"), 1):
        try:
            wide = np.array(line.split(), dtype=np.int64)
            row = wide.astype(np.int32)
            if (row != wide).any():  # NumPy 1 wraps where NumPy 2 raises OverflowError
                raise OverflowError
        except (ValueError, OverflowError) as error:
            raise DataError(f"labels {path}, line {number}: cluster ids must be whole numbers with spaces") from error
        if row.size and row.min() < 0:
            raise DataError(f"labels {path}, line {number}: cluster id {row.min()} is negative")
        rows.append(row)
    return rows


def write_labels(path: str | Path, rows: Sequence[np.ndarray]) -> None:
    """Write a `.km` of integer rows [labels]."""
    write_lines(path, [" ".join(map(str, np.asarray(row).tolist())) for row in rows], "labels")


def read_dictionary(path: str | Path) -> list[str]:
    """Symbols of a `dict.*.txt` (`symbol count` a line) in file order; class index = position + 4.

    Raises:
        DataError: missing, empty, a line without a count, a symbol that comes twice.
    """
    symbols: dict[str, None] = {}
    for number, line in enumerate(read_lines(path, "dictionary"), 1):
        symbol, _, count = line.rpartition(" ")
        if not symbol or not count.isdecimal():
            raise DataError(f"dictionary {path}, line {number}: '{line}' is not a symbol, a space and a count")
        if symbol in symbols:
            raise DataError(f"dictionary {path}, line {number}: '{symbol}' comes twice; remove one")
        symbols[symbol] = None
    if not symbols:
        raise DataError(f"dictionary {path} is empty; a model trained with it would learn nothing")
    return list(symbols)


def write_dictionary(path: str | Path, counts: Mapping[str, int]) -> None:
    """Write a `dict.*.txt` in the order of `counts`."""
    write_lines(path, [f"{symbol} {count}" for symbol, count in counts.items()], "dictionary")


def load_labels(folder: str | Path, split: str, clips: Sequence[Clip]) -> tuple[list[np.ndarray], LabelInfo]:
    """Class indices of a split, int32 [labels] per clip in the manifest's order, and how they were made.

    A class is the cluster's position in dict.km.txt + 4. Single clips whose labels drift from their frames are for
    `select` to leave out; here labels are refused when most of them do, since then they belong to another rate.

    Raises:
        DataError: a file is missing, the number of rows, the clusters of labels.json and dict.km.txt or the rate
            do not fit, a cluster is not in the dictionary.
    """
    folder = Path(folder)
    info = read_label_info(folder)
    dictionary = folder / "dict.km.txt"
    symbols = read_dictionary(dictionary)
    if sorted(symbols) != sorted(map(str, range(info.clusters))):
        raise DataError(
            f"{dictionary} has {len(symbols)} symbols but labels.json says {info.clusters} clusters: "
            f"it must list 0 to {info.clusters - 1}, each once; make the labels again"
        )
    classes = np.empty(info.clusters, np.int32)
    classes[[int(symbol) for symbol in symbols]] = np.arange(NUM_SPECIALS, NUM_SPECIALS + info.clusters)
    path = folder / f"{split}.km"
    rows = read_labels(path)
    if split in info.files and sha256(path) != info.files[split]:
        raise DataError(
            f"{path} is not the file that labels.json describes: it was changed, or belongs to other clusters; "
            "make the labels again"
        )
    check_row_count(len(rows), len(clips), path, "labels")
    _check_rate(path, rows, clips, info.rate)
    for clip, row in zip(clips, rows, strict=True):
        if row.size and row.max() >= info.clusters:
            raise DataError(
                f"{path}: clip '{clip.id}' has cluster {row.max()} but labels.json says {info.clusters} clusters; "
                "make the labels again"
            )
    if info.clusters > 1 and len(set().union(*(np.unique(row).tolist() for row in rows))) < 2:
        raise DataError(f"{path}: all labels are of one cluster, from which nothing can be learned; make them again")
    return [classes[row] for row in rows], info


def _check_rate(path: Path, rows: Sequence[np.ndarray], clips: Sequence[Clip], rate: int) -> None:
    drifting = [
        (clip, len(row))
        for clip, row in zip(clips, rows, strict=True)
        if drift_seconds(clip, len(row), rate) >= DRIFT_SECONDS
    ]
    if 2 * len(drifting) > len(clips):
        clip, count = drifting[0]
        raise DataError(
            f"{path} does not fit the manifest: clip '{clip.id}' lasts {clip.frames / FRAME_RATE:.2f} s, its "
            f"{count} labels {count / rate:.2f} s at the {rate} per second of labels.json ({len(drifting)} of "
            f"{len(clips)} clips differ by {DRIFT_SECONDS:g} s or more); make the labels again"
        )
