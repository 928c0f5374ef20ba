"""Frame labels (`.km`), dictionaries and `labels.json`: reading, checking, writing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avhubert.constants import FRAME_RATE, NUM_SPECIALS
from avhubert.data.manifest import DRIFT_SECONDS, Clip, check_row_count, drift_seconds, read_lines, write_lines
from avhubert.errors import DataError
from avhubert.files import read_json, sha256, write_json


@dataclass(frozen=True)
class LabelInfo:
    """How frame labels were made: the content of labels.json in a label folder.

    Attributes:
        rate: labels per second: 100 for MFCC, 25 for a layer of a model.
        clusters: number of clusters; ids are 0 … clusters - 1.
        source: 'mfcc' or the model that computed the features.
        layer: of the model; None for MFCC.
        centroids: SHA-256 of the centroids.
        files: SHA-256 of each split's .km; optional in the file.

    labels.json also has `sha256`, the hash of these values; a file without it, written by hand, is read as it is.
    """

    rate: int
    clusters: int
    source: str
    layer: int | None
    centroids: str
    files: dict[str, str] = field(default_factory=dict)


def read_label_info(folder: str | Path) -> LabelInfo:
    """Read labels.json of a label folder.

    Raises:
        DataError: the file is missing or is not JSON, a key is missing or unknown, a value has the wrong type or is out
            of range, the file was changed after it was written.
    """
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
    if not isinstance(values, dict) or set(values) - {"files", "sha256"} != set(kinds):
        raise DataError(f"{path} must contain the keys {', '.join(kinds)}, optionally files and sha256, and no others")
    saved = values.pop("sha256", None)
    if not isinstance(values.get("files", {}), dict):
        raise DataError(f"{path}: files={values['files']!r} must map each split to the SHA-256 of its .km")
    for name, kind in kinds.items():
        if not isinstance(values[name], kind) or isinstance(values[name], bool):
            raise DataError(f"{path}: {name}={values[name]!r} has the wrong type; see `avhubert cluster`")
    if values["rate"] < 1 or values["clusters"] < 1:
        raise DataError(f"{path}: rate={values['rate']} and clusters={values['clusters']} must be at least 1")
    info = LabelInfo(**values)
    if saved is not None and saved != _hash(info):
        raise DataError(
            f"{path} was changed or damaged after it was written; make the labels again, or delete its key sha256 if "
            "you changed it on purpose"
        )
    return info


def write_label_info(folder: str | Path, info: LabelInfo) -> None:
    """Write labels.json of a label folder."""
    write_json(Path(folder) / "labels.json", {**dataclasses.asdict(info), "sha256": _hash(info)})


def _hash(info: LabelInfo) -> str:
    return hashlib.sha256(json.dumps(dataclasses.asdict(info), sort_keys=True).encode()).hexdigest()


def read_labels(path: str | Path) -> list[np.ndarray]:
    """Read the frame labels of a `.km` file, one line per clip.

    Returns:
        Cluster ids int32 [labels] of each clip.

    Raises:
        DataError: the file is missing or is not Unicode text; a line has an item that is not an integer from 0 to
            2³¹ − 1.
    """
    rows = []
    for number, line in enumerate(read_lines(path, "labels"), 1):
        try:
            wide_row = np.array(line.split(), dtype=np.int64)
            row = wide_row.astype(np.int32)
            if (row != wide_row).any():  # NumPy 1 wraps where NumPy 2 raises OverflowError
                raise OverflowError
        except (ValueError, OverflowError) as error:
            raise DataError(
                f"labels {path}, line {number}: cluster ids must be whole numbers separated by spaces"
            ) from error
        if row.size and row.min() < 0:
            raise DataError(f"labels {path}, line {number}: cluster id {row.min()} is negative")
        rows.append(row)
    return rows


def write_labels(path: str | Path, rows: Sequence[np.ndarray]) -> None:
    """Write frame labels as a `.km` file: one line per clip, of integers [labels]."""
    write_lines(path, [" ".join(map(str, np.asarray(row).tolist())) for row in rows], "labels")


def read_dictionary(path: str | Path) -> list[str]:
    """Read the symbols of a `dict.*.txt` file, whose lines are a symbol, a space and a count.

    Returns:
        The symbols in the order of the file; the class index of a symbol is its position + 4.

    Raises:
        DataError: the file is missing or empty, a line has no count, a symbol is listed twice.
    """
    symbols: dict[str, None] = {}
    for number, line in enumerate(read_lines(path, "dictionary"), 1):
        symbol, _, count = line.rpartition(" ")
        if not symbol or not count.isdecimal():
            raise DataError(f"dictionary {path}, line {number}: '{line}' is not a symbol, a space and a count")
        if symbol in symbols:
            raise DataError(f"dictionary {path}, line {number}: '{symbol}' is listed twice; remove one")
        symbols[symbol] = None
    if not symbols:
        raise DataError(f"dictionary {path} is empty, so a model cannot be trained with it")
    return list(symbols)


def write_dictionary(path: str | Path, counts: Mapping[str, int]) -> None:
    """Write a `dict.*.txt` file with symbols and counts in the order of `counts`."""
    write_lines(path, [f"{symbol} {count}" for symbol, count in counts.items()], "dictionary")


def load_labels(folder: str | Path, split: str, clips: Sequence[Clip]) -> tuple[list[np.ndarray], LabelInfo]:
    """Read the frame labels of a split and check them against the manifest, the dictionary and labels.json.

    The class of a cluster is its position in dict.km.txt + 4. `select` leaves out single clips whose labels and frames
    differ in duration. If most clips differ, this function raises, because the labels have another rate.

    Args:
        folder: the label folder.
        split: train or valid.
        clips: of the split's manifest.

    Returns:
        Class indices int32 [labels] of each clip in the order of the manifest, and how the labels were made.

    Raises:
        DataError: a file is missing or invalid, was changed after it was made, or does not match the manifest; the
            labels have one cluster only.
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
    if split in info.files and not is_described(path, info):
        raise DataError(
            f"{path} is not the file that labels.json describes: it was changed, or was made with other clusters; "
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
        raise DataError(f"{path}: all labels are of one cluster, so a model cannot learn from them; make them again")
    return [classes[row] for row in rows], info


def is_described(path: Path, info: LabelInfo) -> bool:
    """Whether a .km is the file that labels.json describes; an editor may have added a BOM or Windows' line ends."""
    expected = info.files[path.stem]
    if sha256(path) == expected:
        return True
    lines = read_lines(path, "labels")
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest() == expected


def _check_rate(path: Path, rows: Sequence[np.ndarray], clips: Sequence[Clip], rate: int) -> None:
    """Raise DataError if the labels and frames of most clips with labels differ in duration."""
    labelled = [(clip, row) for clip, row in zip(clips, rows, strict=True) if len(row)]
    drifting = [
        (clip, len(row))
        for clip, row in labelled or zip(clips, rows, strict=True)
        if drift_seconds(clip, len(row), rate) >= DRIFT_SECONDS
    ]
    if 2 * len(drifting) > (len(labelled) or len(clips)):
        clip, count = drifting[0]
        raise DataError(
            f"{path} does not match the manifest: clip '{clip.id}' lasts {clip.frames / FRAME_RATE:.2f} s, its "
            f"{count} labels {count / rate:.2f} s at the {rate} per second of labels.json ({len(drifting)} of "
            f"{len(clips)} clips differ by {DRIFT_SECONDS:g} s or more); make the labels again"
        )
