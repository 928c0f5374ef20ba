"""Manifests, transcripts, frame labels, dictionaries, phones and noise lists: read, checked and written only here.

A data directory holds {train,valid,test}.{tsv,wrd} (and .phn for the synthetic corpus), tokenizer.model and
dict.wrd.txt. A label folder holds {train,valid}.km, dict.km.txt and labels.json. All are UTF-8 text, one line a clip.
Frames are video frames at 25 Hz.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avhubert.constants import FRAME_RATE, SAMPLE_RATE
from avhubert.errors import DataError
from avhubert.files import write_text

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
def read_lines(path: str | Path, what: str) -> list[str]:
    """The lines of a text file; `what` names its kind in messages.

    Raises:
        DataError: the file is missing, cannot be read or is not UTF-8.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        remedy = "prepare the data again or name the right folder"
        if what == "manifest" and not any(Path(path).parent.glob("*.tsv")):
            remedy = "name a data directory, as `avhubert prepare` writes it"
        if what == "noise list":
            remedy = "name a folder or list that `avhubert noise` made"
        raise DataError(f"{what} {path} is missing; {remedy}") from error
    except OSError as error:
        raise DataError(f"cannot read {what} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{what} {path} is not UTF-8 text; convert it or make it again") from error
    lines = text.split("\n")  # not splitlines(): a transcript may contain other line separators
    return lines[:-1] if lines[-1] == "" else lines


def write_lines(path: str | Path, lines: Sequence[str], what: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        DataError: a line contains a line break or text that is not valid Unicode.
    """
    for number, line in enumerate(lines, 1):
        if "\n" in line or "\r" in line:
            raise DataError(f"line {number} of {what} {path} contains a line break ({line!r}); remove it")
    try:
        write_text(path, "".join(f"{line}\n" for line in lines))
    except UnicodeEncodeError as error:
        raise DataError(f"{what} {path} contains a name that is not valid Unicode; rename that file") from error


def check_row_count(rows: int, clips: int, path: str | Path, what: str) -> None:
    """Raise DataError unless a file has one row per clip."""
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
    lines = read_lines(path, "manifest")
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
    write_lines(path, lines, "manifest")


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
