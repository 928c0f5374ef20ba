"""Manifests: reading, checking, writing, and selecting clips; lines of the text files of a data directory.

A data directory contains {train,valid,test}.{tsv,wrd} (and .phn where true labels are known), tokenizer.model and
dict.wrd.txt. A label folder contains {train,valid}.km, dict.km.txt and labels.json. The .tsv, .wrd, .phn and .km files
are UTF-8 text with one line per clip. Frames are video frames at 25 Hz.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avhubert.constants import FRAME_RATE, SAMPLE_RATE
from avhubert.encoding import MISSING, read_text
from avhubert.errors import DataError
from avhubert.files import write_text

DRIFT_SECONDS = 0.1  # the durations of a clip's labels and of its frames may differ by less than this
REJECTED = "rejected.tsv"  # clips that `avhubert prepare` rejected; not a manifest


@dataclass(frozen=True)
class Clip:
    """One utterance: a mouth video, its audio and their lengths.

    Attributes:
        id: unique in the manifest.
        video: absolute path of the mouth clip; ignored if `video_frames` is 0.
        audio: absolute path of the audio; ignored if `audio_samples` is 0.
        video_frames: at 25 Hz; 0: the clip has no video.
        audio_samples: at 16 kHz; 0: the clip has no audio.
        speaker: who speaks; '' if unknown.
    """

    id: str
    video: Path
    audio: Path
    video_frames: int
    audio_samples: int
    speaker: str = ""

    @property
    def frames(self) -> int:
        """Video frames at 25 Hz; without video, the duration of the audio in such frames."""
        return self.video_frames or round(self.audio_samples * FRAME_RATE / SAMPLE_RATE)

    def streams(self, wanted: Sequence[str]) -> list[str]:
        """The streams in `wanted` ("audio", "video") that the clip has, in that order."""
        lengths = {"audio": self.audio_samples, "video": self.video_frames}
        return [stream for stream in wanted if lengths[stream]]


def read_lines(path: str | Path, what: str) -> list[str]:
    r"""Read the lines of a text file in UTF-8 or UTF-16; only \n and \r\n separate lines.

    Args:
        path: the file.
        what: the kind of the file, for messages.

    Raises:
        DataError: the file is missing, cannot be read or is not Unicode text.
    """
    try:
        text = read_text(path, f"{what} {path}", guess=False).text
    except DataError as error:
        if error.kind != MISSING:
            raise
        remedy = "prepare the data again or give the right folder"
        if what == "manifest" and not any(Path(path).parent.glob("*.tsv")):
            remedy = "give a data directory that `avhubert prepare` wrote"
        if what == "noise list":
            remedy = "give a folder or list that `avhubert noise` made"
        raise DataError(f"{what} {path} is missing; {remedy}", kind=MISSING, path=path) from error
    # not splitlines(): a transcript may contain other line separators
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def write_lines(path: str | Path, lines: Sequence[str], what: str) -> None:
    """Write a UTF-8 text file atomically.

    Args:
        path: the file.
        lines: without line breaks.
        what: the kind of the file, for messages.

    Raises:
        DataError: a line contains a line break or text that is not valid Unicode.
    """
    for number, line in enumerate(lines, 1):
        if "\n" in line or "\r" in line:
            raise DataError(f"line {number} of {what} {path} contains a line break ({line!r}); remove it")
        if "\0" in line:
            raise DataError(f"line {number} of {what} {path} contains a NUL character ({line!r}); remove it")
    text = "".join(f"{line}\n" for line in lines)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{what} {path} contains a name that is not valid Unicode; rename that file") from error
    write_text(path, text)


def check_row_count(rows: int, clips: int, path: str | Path, what: str) -> None:
    """Check that a file has one line per clip.

    Args:
        rows: lines of the file.
        clips: clips of the manifest.
        path: the file, for the message.
        what: the kind of the file, for the message.

    Raises:
        DataError: the numbers differ.
    """
    if rows != clips:
        raise DataError(f"{path} has {rows} lines but the manifest lists {clips} clips; make the {what} again for it")


def splits(folder: str | Path) -> list[Path]:
    """The manifests (or noise lists) in a folder: train, valid, test, then the others by name."""
    order = {"train": 0, "valid": 1, "test": 2}
    files = (file for file in Path(folder).glob("*.tsv") if file.name != REJECTED)
    return sorted(files, key=lambda file: (order.get(file.stem, 3), file.stem))


def read_manifest(path: str | Path) -> list[Clip]:
    """Read the clips of a manifest (`.tsv`).

    The first line is the root folder. Each other line has the fields id, video path, audio path, video frames, audio
    samples and, optionally, speaker, separated by tabs. Relative paths start at the root.

    Raises:
        DataError: the file is missing or is not Unicode text, a line does not have that form, an id is listed twice.
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
        if len(fields) not in (5, 6):
            raise DataError(
                f"manifest {path}, line {number}: {len(fields)} fields instead of 5 or 6 "
                "(id, video, audio, video frames, audio samples and, optionally, speaker, separated by tabs)"
            )
        identifier, video, audio, frames, samples = fields[:5]
        speaker = fields[5] if len(fields) > 5 else ""
        if not (frames.isdecimal() and samples.isdecimal()):
            raise DataError(
                f"manifest {path}, line {number}: the lengths '{frames}' and '{samples}' must be whole numbers"
            )
        if identifier in clips:
            raise DataError(f"manifest {path}, line {number}: clip '{identifier}' is listed twice; remove one")
        clips[identifier] = Clip(identifier, root / video, root / audio, int(frames), int(samples), speaker)
    return list(clips.values())


def write_manifest(path: str | Path, clips: Sequence[Clip], root: str | Path) -> None:
    """Write a manifest (`.tsv`) atomically, with the column `speaker` if the speaker of a clip is known.

    Args:
        path: the file.
        clips: in the order of the lines.
        root: the root folder; paths below it are written relative to it, others as absolute paths.

    Raises:
        DataError: an id or path contains a tab or line break or is not valid Unicode, an id is empty or used twice.
    """
    root = Path(os.path.abspath(root))
    lines = [str(root)]
    seen: set[str] = set()
    with_speakers = any(clip.speaker for clip in clips)
    for clip in clips:
        if not clip.id or clip.id in seen:
            raise DataError(f"clip id '{clip.id}' is empty or used twice; every clip needs a unique id")
        seen.add(clip.id)
        names = [clip.id, _relative(clip.video, root), _relative(clip.audio, root)]
        for name in (*names, clip.speaker):
            if "\t" in name:
                raise DataError(f"'{name}' contains a tab, which separates the fields of {path}; rename it")
        speaker = [clip.speaker] if with_speakers else []
        lines.append("\t".join([*names, str(clip.video_frames), str(clip.audio_samples), *speaker]))
    write_lines(path, lines, "manifest")


def _relative(path: Path, root: Path) -> str:
    path = Path(os.path.abspath(path))
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def select(
    clips: Sequence[Clip],
    min_frames: int,
    max_frames: int | None,
    label_sets: Sequence[tuple[Sequence[np.ndarray], int]] = (),
    streams: Sequence[str] = ("audio", "video"),
) -> tuple[list[int], dict[str, list[str]]]:
    """Select the clips for training by streams, length and labels.

    Args:
        clips: of a manifest.
        min_frames: shorter clips are left out.
        max_frames: longer clips are left out; None: no limit.
        label_sets: per label set the rows of labels in the order of the clips, and labels per second. A clip is left
            out if it has no labels, or if their duration differs from its own by 0.1 s or more.
        streams: a clip with none of them is left out.

    Returns:
        The indices of the selected clips, and the ids of the others by reason.
    """
    selected: list[int] = []
    left_out: dict[str, list[str]] = {}
    for index, clip in enumerate(clips):
        if not clip.streams(streams):
            reason = f"without {' and '.join(streams)}"
        elif clip.frames < min_frames:
            reason = f"shorter than {min_frames} frames"
        elif max_frames is not None and clip.frames > max_frames:
            reason = f"longer than {max_frames} frames"
        elif not all(len(rows[index]) for rows, _ in label_sets):
            reason = "without labels"
        elif any(drift_seconds(clip, len(rows[index]), rate) >= DRIFT_SECONDS for rows, rate in label_sets):
            reason = f"labels and frames differ by {DRIFT_SECONDS:g} s or more"
        else:
            selected.append(index)
            continue
        left_out.setdefault(reason, []).append(clip.id)
    return selected, left_out


def drift_seconds(clip: Clip, labels: int, rate: int) -> float:
    """Difference in seconds between the duration of `labels` labels at `rate` per second and that of the clip."""
    return abs(labels / rate - clip.frames / FRAME_RATE)
