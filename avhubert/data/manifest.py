"""Manifests, transcripts, cluster labels, dictionaries, phones and noise lists: read, checked and written only here.

One line a clip, in the manifest's order. Formats are the published ones (`docs/architecture.md`, Files).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avhubert.errors import DataError
from avhubert.files import read_json, write_json, write_text

FRAME_RATE = 25  # video frames per second
SPECIALS = 4  # symbols that precede every dictionary's own: class index = position + 4
DRIFT_SECONDS = 0.1  # labels may be this much shorter or longer than their clip


@dataclass(frozen=True)
class Clip:
    """One utterance: absolute paths, length in video frames (25 Hz) and in sound samples (16 kHz)."""

    id: str
    video: Path
    audio: Path
    video_frames: int
    audio_samples: int


@dataclass(frozen=True)
class LabelInfo:
    """What frame labels are: written beside them, checked by every reader.

    rate: labels per second; clusters: K; source: 'mfcc' or the model; layer: of that model; centroids: SHA-256.
    """

    rate: int
    clusters: int
    source: str
    layer: int | None
    centroids: str


def _lines(path: Path, what: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{what} {path} is missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{what} {path} cannot be read: {error}") from error


def _same_count(path: Path, what: str, found: int, clips: Sequence[Clip]) -> None:
    if found != len(clips):
        raise DataError(f"{path} has {found} {what} for {len(clips)} clips of the manifest; make it again")


# --------------------------------------------------------------------------- manifests
def read_manifest(path: str | Path) -> list[Clip]:
    """Read a `.tsv`: the root, then `id, video, audio, video frames, audio samples` a line, tab-separated.

    Paths are joined to the root unless absolute. DataError names the file and line that is wrong.
    """
    path = Path(path)
    lines = _lines(path, "manifest")
    if not lines:
        raise DataError(f"manifest {path} is empty: its first line must be the root folder")
    root = Path(lines[0])
    clips, seen = [], set()
    for number, line in enumerate(lines[1:], 2):
        fields = line.split("\t")
        if len(fields) != 5:
            raise DataError(f"{path}, line {number}: {len(fields)} fields instead of 5 (id, video, audio, frames, samples)")
        identifier, video, audio, frames, samples = fields
        if not (frames.isdecimal() and samples.isdecimal()):
            raise DataError(f"{path}, line {number}: '{frames}' frames and '{samples}' samples must be whole numbers")
        if identifier in seen:
            raise DataError(f"{path}, line {number}: the id '{identifier}' stands there twice")
        seen.add(identifier)
        clips.append(Clip(identifier, root / video, root / audio, int(frames), int(samples)))
    return clips


def write_manifest(path: str | Path, clips: Iterable[Clip], root: str | Path) -> None:
    """Write a `.tsv`; paths below `root` are written relative to it."""
    root = Path(root).absolute()
    rows = [str(root)]
    for clip in clips:
        paths = [str(p.relative_to(root) if p.is_relative_to(root) else p) for p in (clip.video, clip.audio)]
        for text in (clip.id, *paths):
            if any(character in text for character in "\t\n\r"):
                raise DataError(f"'{text!r}' has a tab or line break, which a manifest cannot hold; rename it")
        rows.append("\t".join([clip.id, *paths, str(clip.video_frames), str(clip.audio_samples)]))
    write_text(path, "".join(f"{row}\n" for row in rows))


def select(clips: Sequence[Clip], min_frames: int, max_frames: int | None) -> tuple[list[int], dict[str, list[str]]]:
    """Indices of the clips within the limits, and the ids of the others by reason."""
    kept: list[int] = []
    left_out: dict[str, list[str]] = {}
    for index, clip in enumerate(clips):
        if clip.video_frames < min_frames:
            left_out.setdefault(f"shorter than {min_frames} frames", []).append(clip.id)
        elif max_frames is not None and clip.video_frames > max_frames:
            left_out.setdefault(f"longer than {max_frames} frames", []).append(clip.id)
        else:
            kept.append(index)
    return kept, left_out


# --------------------------------------------------------------------------- transcripts, phones
def read_transcripts(path: str | Path, clips: Sequence[Clip]) -> list[str]:
    """Read a `.wrd`: one line of text a clip."""
    path = Path(path)
    texts = _lines(path, "transcript file")
    _same_count(path, "transcripts", len(texts), clips)
    return texts


def write_transcripts(path: str | Path, texts: Iterable[str]) -> None:
    """Write a `.wrd`."""
    write_text(path, "".join(f"{' '.join(text.split())}\n" for text in texts))


def read_phones(path: str | Path) -> list[list[str]]:
    """Read a `.phn`: the true phone of every 25 Hz frame, one line a clip (synthetic corpus only)."""
    return [line.split() for line in _lines(Path(path), "phone file")]


def write_phones(path: str | Path, rows: Iterable[Sequence[str]]) -> None:
    """Write a `.phn`."""
    write_text(path, "".join(" ".join(row) + "\n" for row in rows))


# --------------------------------------------------------------------------- cluster labels
def read_labels(path: str | Path) -> list[np.ndarray]:
    """Read a `.km`: int32 cluster ids at the label rate, one line a clip."""
    path = Path(path)
    rows = []
    for number, line in enumerate(_lines(path, "label file"), 1):
        try:
            rows.append(np.array(line.split(), dtype=np.int32))
        except ValueError as error:
            raise DataError(f"{path}, line {number}: labels must be whole numbers separated by spaces") from error
    return rows


def write_labels(path: str | Path, rows: Iterable[Sequence[int] | np.ndarray]) -> None:
    """Write a `.km`."""
    write_text(path, "".join(" ".join(map(str, row)) + "\n" for row in rows))


def read_label_info(folder: str | Path) -> LabelInfo:
    """Read `labels.json` of a label folder."""
    path = Path(folder) / "labels.json"
    if not path.is_file():
        raise DataError(
            f"{folder} has no labels.json, so the rate and number of its clusters are unknown; "
            "make the labels with `avhubert cluster`"
        )
    kept = read_json(path)
    names = [item.name for item in dataclasses.fields(LabelInfo)]
    missing = [name for name in names if name not in kept]
    if missing:
        raise DataError(f"{path} does not say {', '.join(missing)}; make the labels with `avhubert cluster`")
    return LabelInfo(**{name: kept[name] for name in names})


def write_label_info(folder: str | Path, info: LabelInfo) -> None:
    """Write `labels.json`."""
    write_json(Path(folder) / "labels.json", dataclasses.asdict(info))


def read_dictionary(path: str | Path) -> list[str]:
    """Symbols of a `dict.*.txt` (`symbol count` a line) in file order; class index = position + 4."""
    path = Path(path)
    symbols = []
    for number, line in enumerate(_lines(path, "dictionary"), 1):
        symbol, _, count = line.rpartition(" ")
        if not symbol or not count.isdecimal():
            raise DataError(f"{path}, line {number}: '{line}' is not of the form 'symbol count'")
        symbols.append(symbol)
    if not symbols:
        raise DataError(f"dictionary {path} is empty")
    return symbols


def write_dictionary(path: str | Path, counts: Mapping[str, int]) -> None:
    """Write a `dict.*.txt`."""
    write_text(path, "".join(f"{symbol} {count}\n" for symbol, count in counts.items()))


def load_labels(folder: str | Path, split: str, clips: Sequence[Clip]) -> tuple[list[np.ndarray], LabelInfo]:
    """Class ids int32 (cluster's place in `dict.km.txt` + 4) of every clip, and what they are.

    Raises DataError for whatever would train silently on wrong targets: another number of rows, an id that
    `labels.json` or the dictionary doesn't know, a rate other than the rows', a length that drifts from the clip's
    by 0.1 s or more.
    """
    folder = Path(folder)
    info = read_label_info(folder)
    symbols = read_dictionary(folder / "dict.km.txt")
    if len(symbols) != info.clusters:
        raise DataError(f"{folder / 'dict.km.txt'} lists {len(symbols)} clusters, labels.json says {info.clusters}")
    path = folder / f"{split}.km"
    rows = read_labels(path)
    _same_count(path, "rows of labels", len(rows), clips)
    classes = np.full(info.clusters, -1, np.int32)
    for position, symbol in enumerate(symbols):
        if not symbol.isdecimal() or int(symbol) >= info.clusters:
            raise DataError(f"{folder / 'dict.km.txt'}: '{symbol}' is not a cluster id below {info.clusters}")
        classes[int(symbol)] = position + SPECIALS
    if (classes < 0).any():
        raise DataError(f"{folder / 'dict.km.txt'} does not list cluster {int((classes < 0).argmax())}")
    _check_lengths(path, rows, clips, info.rate)
    for clip, row in zip(clips, rows, strict=True):
        if len(row) and not (row.min() >= 0 and row.max() < info.clusters):
            wrong = int(row.max() if row.max() >= info.clusters else row.min())
            raise DataError(f"{path}: clip '{clip.id}' has the cluster id {wrong}; labels.json says 0 to {info.clusters - 1}")
    return [classes[row] for row in rows], info


def _check_lengths(path: Path, rows: Sequence[np.ndarray], clips: Sequence[Clip], rate: int) -> None:
    seconds = np.array([len(row) for row in rows]) / rate
    expected = np.array([clip.video_frames for clip in clips]) / FRAME_RATE
    wrong = np.abs(seconds - expected) >= DRIFT_SECONDS
    if not wrong.any():
        return
    first = int(wrong.argmax())
    measured = sum(len(row) for row in rows) / max(expected.sum(), 1e-9)
    if wrong.mean() > 0.5 and abs(measured / rate - 1) > 0.2:
        raise DataError(
            f"{path}: labels.json says {rate} labels a second, but the rows have about {measured:.0f} a second; "
            "these labels belong to another rate or other clips"
        )
    raise DataError(
        f"{path}: the labels of clip '{clips[first].id}' last {seconds[first]:.2f} s and the clip {expected[first]:.2f} s "
        f"({int(wrong.sum())} of {len(clips)} clips differ by {DRIFT_SECONDS} s or more); make the labels again"
    )


# --------------------------------------------------------------------------- noise lists
def read_noise_list(path: str | Path, split: str) -> list[Path]:
    """Wav files of a list (one path a line), or of `{split}.tsv` in a folder that `avhubert noise` wrote."""
    path = Path(path)
    if path.is_dir():
        path = path / f"{split}.tsv"
    found = [path.parent / line.split("\t")[0] for line in _lines(path, "noise list") if line.strip()]
    if not found:
        raise DataError(f"noise list {path} is empty")
    for file in found:
        if not file.is_file():
            raise DataError(f"{path} lists {file}, which does not exist")
    return found
