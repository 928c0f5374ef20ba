"""Manifests, transcripts, frame labels, dictionaries, phones and noise lists: read, checked and written only here.

A data directory holds {train,valid,test}.{tsv,wrd} (and .phn for the synthetic corpus), tokenizer.model and
dict.wrd.txt. A label folder holds {train,valid}.km, dict.km.txt and labels.json. All are UTF-8 text, one line a clip.
Frames are video frames at 25 Hz.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avhubert.errors import DataError
from avhubert.files import read_json, sha256, write_json, write_text

FRAME_RATE = 25
SAMPLE_RATE = 16_000
SPECIALS = 4  # a cluster dictionary begins with <s> <pad> </s> <unk>: class = position in the file + 4
DRIFT_SECONDS = 0.1  # labels and frames of a clip may differ by less than this

REJECTED = "rejected.tsv"  # what `avhubert prepare` left out, which may lie beside the manifests


@dataclass(frozen=True)
class Clip:
    """One utterance: a mouth video, its sound and their lengths. Paths are absolute.

    A stream of length 0 is not there, and its path is not looked at.
    """

    id: str
    video: Path
    audio: Path
    video_frames: int  # at 25 Hz
    audio_samples: int  # at 16 kHz

    @property
    def frames(self) -> int:
        """Video frames; of a clip without video as many as its sound lasts."""
        return self.video_frames or round(self.audio_samples * FRAME_RATE / SAMPLE_RATE)

    def streams(self, wanted: Sequence[str]) -> list[str]:
        """Those of `wanted` (audio, video) that the clip has."""
        lengths = {"audio": self.audio_samples, "video": self.video_frames}
        return [stream for stream in wanted if lengths[stream]]


# --------------------------------------------------------------------------- lines of a text file
def _read_lines(path: str | Path, what: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        mend = "prepare the data again or name the right folder"
        if what == "manifest" and not any(Path(path).parent.glob("*.tsv")):
            mend = "name a data directory, which `avhubert prepare` makes of videos"
        if what == "noise list":
            mend = "name a folder or list that `avhubert noise` made"
        raise DataError(f"{what} {path} is missing; {mend}") from error
    except OSError as error:
        raise DataError(f"cannot read {what} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{what} {path} is not UTF-8 text; convert it or make it again") from error
    lines = text.split("\n")  # not splitlines(): a transcript may hold other line separators
    return lines[:-1] if lines[-1] == "" else lines


def _write_lines(path: str | Path, lines: Sequence[str], what: str) -> None:
    for number, line in enumerate(lines, 1):
        if "\n" in line or "\r" in line:
            raise DataError(f"line {number} of {what} {path} would hold a line break ({line!r}); remove it")
    try:
        write_text(path, "".join(f"{line}\n" for line in lines))
    except UnicodeEncodeError as error:
        raise DataError(f"{what} {path} would hold a name that is not valid Unicode; rename that file") from error


def _check_rows(rows: int, clips: int, path: str | Path, what: str) -> None:
    if rows != clips:
        raise DataError(f"{path} has {rows} lines but the manifest lists {clips} clips; make the {what} again for it")


# --------------------------------------------------------------------------- manifests
def splits(folder: str | Path) -> list[Path]:
    """The manifests (or noise lists) in a folder, in the order of use: train, valid, test, others by name."""
    order = {"train": 0, "valid": 1, "test": 2}
    found = (file for file in Path(folder).glob("*.tsv") if file.name != REJECTED)
    return sorted(found, key=lambda file: (order.get(file.stem, 3), file.stem))


def read_manifest(path: str | Path) -> list[Clip]:
    """Clips of a `.tsv`: first line the root, then `id, video, audio, video_frames, audio_samples` with tabs between.

    Both paths are joined to the root unless absolute.

    Raises:
        DataError: the file is missing or not UTF-8, a line does not have that form, an id comes twice.
    """
    lines = _read_lines(path, "manifest")
    if not lines:
        raise DataError(f"manifest {path} is empty; its first line must be the root folder of its paths")
    root = Path(lines[0])
    if not root.is_absolute():
        raise DataError(f"manifest {path}: the first line must be an absolute root folder, not '{lines[0]}'")
    clips: dict[str, Clip] = {}
    for number, line in enumerate(lines[1:], 2):
        fields = line.split("\t")
        if len(fields) != 5:
            raise DataError(
                f"manifest {path}, line {number}: {len(fields)} fields instead of 5 "
                "(id, video, audio, video frames, audio samples, with tabs between)"
            )
        identifier, video, audio, frames, samples = fields
        if not (frames.isdecimal() and samples.isdecimal()):
            raise DataError(
                f"manifest {path}, line {number}: the lengths '{frames}' and '{samples}' must be whole numbers"
            )
        if identifier in clips:
            raise DataError(f"manifest {path}, line {number}: clip '{identifier}' is listed twice; remove one")
        clips[identifier] = Clip(identifier, root / video, root / audio, int(frames), int(samples))
    return list(clips.values())


def write_manifest(path: str | Path, clips: Sequence[Clip], root: str | Path) -> None:
    """Write a `.tsv`; paths below `root` are written relative to it, others absolute.

    Raises:
        DataError: a tab or line break in an id or path, an empty or repeated id.
    """
    root = Path(os.path.abspath(root))
    lines = [str(root)]
    seen: set[str] = set()
    for clip in clips:
        if not clip.id or clip.id in seen:
            raise DataError(f"clip id '{clip.id}' is empty or used twice; every clip needs an id of its own")
        seen.add(clip.id)
        names = [clip.id, _relative(clip.video, root), _relative(clip.audio, root)]
        for name in names:
            if "\t" in name:
                raise DataError(f"'{name}' holds a tab, which separates the fields of {path}; rename it")
        lines.append("\t".join([*names, str(clip.video_frames), str(clip.audio_samples)]))
    _write_lines(path, lines, "manifest")


def _relative(path: Path, root: Path) -> str:
    path = Path(os.path.abspath(path))
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def select(
    clips: Sequence[Clip],
    min_frames: int,
    max_frames: int | None,
    label_sets: Sequence[tuple[Sequence[np.ndarray], int]] = (),
    streams: Sequence[str] = ("audio", "video"),
) -> tuple[list[int], dict[str, list[str]]]:
    """Indices of the clips that training uses, and the ids of the others by reason.

    A clip is left out when it has none of `streams`, is shorter than `min_frames`, longer than `max_frames` (None: no
    limit), or when the labels of one of the `label_sets` (rows, labels per second) last 0.1 s more or less than it.
    """
    kept: list[int] = []
    left_out: dict[str, list[str]] = {}
    for index, clip in enumerate(clips):
        if not clip.streams(streams):
            reason = f"without {' and '.join(streams)}"
        elif clip.frames < min_frames:
            reason = f"shorter than {min_frames} frames"
        elif max_frames is not None and clip.frames > max_frames:
            reason = f"longer than {max_frames} frames"
        elif any(drift_seconds(clip, len(rows[index]), rate) >= DRIFT_SECONDS for rows, rate in label_sets):
            reason = f"labels and frames differ by {DRIFT_SECONDS:g} s or more"
        else:
            kept.append(index)
            continue
        left_out.setdefault(reason, []).append(clip.id)
    return kept, left_out


def drift_seconds(clip: Clip, labels: int, rate: int) -> float:
    """How far the durations of a clip's `labels` (at `rate` per second) and of its frames are apart."""
    return abs(labels / rate - clip.frames / FRAME_RATE)


# --------------------------------------------------------------------------- transcripts and phones
def read_transcripts(path: str | Path, clips: Sequence[Clip]) -> list[str]:
    """Transcripts of a `.wrd`, one line a clip, in the manifest's order; DataError if the counts differ."""
    lines = _read_lines(path, "transcripts")
    _check_rows(len(lines), len(clips), path, "transcripts")
    return lines


def write_transcripts(path: str | Path, texts: Sequence[str]) -> None:
    """Write a `.wrd`; DataError for a line break inside a transcript."""
    _write_lines(path, texts, "transcripts")


def read_phones(path: str | Path) -> list[list[str]]:
    """True phones of a `.phn`: one per 25 Hz frame, one line a clip."""
    return [line.split() for line in _read_lines(path, "phones")]


def write_phones(path: str | Path, rows: Sequence[Sequence[str]]) -> None:
    """Write a `.phn`; DataError for a phone that is empty or holds white space."""
    for row in rows:
        for phone in row:
            if len(phone.split()) != 1 or phone.split()[0] != phone:
                raise DataError(f"'{phone}' cannot be a phone in {path}: it is empty or holds white space")
    _write_lines(path, [" ".join(row) for row in rows], "phones")


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
    for number, line in enumerate(_read_lines(path, "labels"), 1):
        try:
            row = np.array(line.split(), dtype=np.int32)
        except (ValueError, OverflowError) as error:
            raise DataError(f"labels {path}, line {number}: cluster ids must be whole numbers with spaces") from error
        if row.size and row.min() < 0:
            raise DataError(f"labels {path}, line {number}: cluster id {row.min()} is negative")
        rows.append(row)
    return rows


def write_labels(path: str | Path, rows: Sequence[np.ndarray]) -> None:
    """Write a `.km` of integer rows [labels]."""
    _write_lines(path, [" ".join(map(str, np.asarray(row).tolist())) for row in rows], "labels")


def read_dictionary(path: str | Path) -> list[str]:
    """Symbols of a `dict.*.txt` (`symbol count` a line) in file order; class index = position + 4.

    Raises:
        DataError: missing, empty, a line without a count, a symbol that comes twice.
    """
    symbols: dict[str, None] = {}
    for number, line in enumerate(_read_lines(path, "dictionary"), 1):
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
    _write_lines(path, [f"{symbol} {count}" for symbol, count in counts.items()], "dictionary")


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
    classes[[int(symbol) for symbol in symbols]] = np.arange(SPECIALS, SPECIALS + info.clusters)
    path = folder / f"{split}.km"
    rows = read_labels(path)
    if split in info.files and sha256(path) != info.files[split]:
        raise DataError(
            f"{path} is not the file that labels.json describes: it was changed, or belongs to other clusters; "
            "make the labels again"
        )
    _check_rows(len(rows), len(clips), path, "labels")
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


# --------------------------------------------------------------------------- noise
def read_noise_list(path: str | Path, split: str) -> list[Path]:
    """Wav files of a noise list: one path a line, relative ones from the list's folder.

    `path` is a list or a folder with {train,valid,test}.tsv, of which `split` is taken.

    Raises:
        DataError: the list is missing or empty, or names a file that does not exist.
    """
    path = Path(path)
    if path.is_dir():
        path = path / f"{split}.tsv"
    found = [Path(os.path.abspath(path.parent / line)) for line in _read_lines(path, "noise list") if line]
    if not found:
        raise DataError(f"noise list {path} names no files; make one with `avhubert noise`")
    for file in dict.fromkeys(found):  # a balanced list repeats its files
        if not file.is_file():
            raise DataError(f"noise list {path} names {file}, which does not exist; make the list again")
    return found
