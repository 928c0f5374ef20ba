"""Finding recordings: the file extensions of video and audio, and the one walk through folders of recordings."""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from avhubert.constants import SPLITS


def _extensions(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


VIDEO_EXTENSIONS = _extensions(
    "3g2 3gp 3gpp 264 265 amv asf avi dav divx dv f4v flv h264 h265 hevc ivf m1v m2p m2t m2ts m2v m4v mj2 mjpeg mjpg "
    "mkv mod mov mp4 mp4v mpe mpeg mpg mpv mts mxf nsv nut ogm ogv qt rm rmvb tod ts vob vro webm wmv wtv y4m"
)
AUDIO_EXTENSIONS = _extensions(
    "aac ac3 adts aif aifc aiff amr ape au awb caf dts eac3 ec3 flac gsm m4a m4b m4r mka mp2 mp3 mpa mpc oga ogg opus "
    "ra snd spx tta voc w64 wav wave weba wma wv"
)
MEDIA_EXTENSIONS = VIDEO_EXTENSIONS | AUDIO_EXTENSIONS

# Files that lie beside recordings and that nobody expects to be read as one: not reported.
_OTHER_EXTENSIONS = _extensions(
    "ass bib bmp cfg conf csv cue doc docx eaf gif gitignore heic htm html idx ini ipynb jpe jpeg jpg js json jsonl "
    "km lab log lrc m3u m3u8 md nfo npy npz ods odt onnx pdf phn pickle pkl png ppt pptx properties pt pth py rst rtf "
    "sbv sh smi srt srv1 srv2 srv3 ssa sub svg tex textgrid thm tif tiff toml trn tsv ttml txt url vtt webp wrd xls "
    "xlsx xml xmp yaml yml"
)
_OTHER_NAMES = frozenset(("desktop.ini", "license", "makefile", "readme", "thumbs.db"))
# folders that operating systems and network drives add, without recordings of the user
_SYSTEM_FOLDERS = frozenset(("$recycle.bin", "@eadir", "__macosx", "lost+found", "system volume information"))

# the first bytes of recordings, for files without an extension: downloads are often named "videoplayback"
_SIGNATURES = {
    rb"....ftyp": ".mp4",
    rb"\x1a\x45\xdf\xa3": ".mkv",
    rb"RIFF....AVI ": ".avi",
    rb"RIFF....WAVE": ".wav",
    rb"OggS": ".ogg",
    rb"fLaC": ".flac",
    rb"FLV": ".flv",
    rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11": ".asf",
    rb"\x00\x00\x01\xba": ".mpg",
    rb"ID3": ".mp3",
    rb"FORM....AIF": ".aiff",
    rb"caff": ".caf",
}
_MOST_NAMES = 20  # of skipped files in a message

CAPTIONED = ".captioned.mp4"  # the end of the name of a video that `transcribe --burn-in` writes


@dataclass(frozen=True)
class Skipped:
    """A file or folder that the walk does not read.

    Attributes:
        path: The file or folder.
        reason: Why, for the user; no names in it, so that skipped files can be counted by it.
    """

    path: Path
    reason: str


@dataclass
class Recordings:
    """The recordings in a folder.

    Attributes:
        files: The recordings, sorted.
        skipped: What was skipped and that a user may expect to be read, sorted.
    """

    files: list[Path] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def find_recordings(
    folder: Path, extensions: Collection[str] = MEDIA_EXTENSIONS, without: Sequence[Path] = ()
) -> Recordings:
    """All recordings below a folder, by their file extensions in any case of letters.

    A file without an extension is recognised by its first bytes.

    Links to folders are followed, each folder is read once. Hidden files and folders (`.name`, so also `._name` and
    temporary files of this package) and folders of the system such as `__MACOSX` are ignored. Folders and files that
    this package wrote, below `folder`, are skipped.

    Args:
        folder: The folder.
        extensions: The wanted file extensions, lower case with the dot.
        without: Folders to leave out, such as an output folder.
    """
    recordings = Recordings()
    for path in _walk(folder, {os.path.realpath(path) for path in without}, recordings.skipped):
        extension = path.suffix.lower() or _extension_by_content(path)
        if extension in extensions:
            reason = _unusable(path)
        elif extension in MEDIA_EXTENSIONS:
            reason = "an audio file" if extension in AUDIO_EXTENSIONS else "a video file"
        elif extension in _OTHER_EXTENSIONS or path.name.lower() in _OTHER_NAMES:
            continue
        else:
            reason = _unknown(path)
        if reason is None:
            recordings.files.append(path)
        else:
            recordings.skipped.append(Skipped(path, reason))
    recordings.files.sort()
    recordings.skipped.sort(key=lambda skipped: skipped.path)
    return recordings


def _walk(folder: Path, without: set[str], skipped: list[Skipped]) -> Iterator[Path]:
    """All files, each folder once: first the folders that are no links, so that links never change their names."""
    seen = set(without)
    todo = deque([folder])
    links: deque[Path] = deque()
    while todo or links:
        current = todo.popleft() if todo else links.popleft()
        real = os.path.realpath(current)
        if real in seen:
            continue
        if current is not folder and (reason := _not_entered(current, real)):
            skipped.append(Skipped(current, reason))
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            skipped.append(Skipped(current, f"a folder that cannot be read: {error.strerror}"))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = current / entry.name
            if not _is_directory(entry):
                yield path
            elif entry.name.lower() not in _SYSTEM_FOLDERS:
                (links if entry.is_symlink() else todo).append(path)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _not_entered(folder: Path, real: str) -> str | None:
    """Why a folder below the first one is not read; None if it is."""
    parent = Path(os.path.realpath(folder.parent))
    if Path(real) in (parent, *parent.parents):
        return "a link to a folder that contains it"
    return "a folder that avhubert wrote; name it to read it" if _is_output_folder(folder) else None


def _is_output_folder(folder: Path) -> bool:
    """Whether `avhubert prepare`, `noise` or `iterate` wrote it: a journal, or a manifest or list of absolute paths."""
    try:
        if any(name.endswith(".jsonl") for name in os.listdir(folder / "journal")):
            return True
    except OSError:  # there is none, or no permission
        pass
    for split in SPLITS:
        try:
            with open(folder / f"{split}.tsv", "rb") as file:
                first = file.readline(4096).rstrip(b"\r\n")
        except OSError:
            continue
        if b"\t" not in first and Path(os.fsdecode(first)).is_absolute():
            return True
    return False


def _unusable(path: Path) -> str | None:
    """Why a file with the extension of a recording is skipped; None if it is not."""
    if path.name.lower().endswith(CAPTIONED):
        return "a captioned video that avhubert wrote; name it to read it"
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return "a link to a file that does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if is_file else "not a regular file"


def _extension_by_content(path: Path) -> str:
    """The extension that a file without one would have, by its first bytes; '' if it is no recording."""
    if not path.is_file() or path.name.lower() in _OTHER_NAMES:
        return ""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        return ""
    return next((known for pattern, known in _SIGNATURES.items() if re.match(pattern, start, re.DOTALL)), "")


def _unknown(path: Path) -> str:
    extension = path.suffix.lower()
    known = f"the extension {extension} is not one of a recording" if extension else "a name without extension"
    return f"{known}; name the file to read it"


def describe_skipped(skipped: Sequence[Skipped], folder: Path | None = None) -> list[str]:
    """One line for each reason: how many files were skipped, and their names, relative to `folder`."""
    names: dict[str, list[str]] = {}
    for item in skipped:
        inside = folder is not None and item.path.is_relative_to(folder)
        names.setdefault(item.reason, []).append(str(item.path.relative_to(folder) if inside and folder else item.path))
    return [f"skipped {len(paths)} ({reason}): {_listed(paths)}" for reason, paths in names.items()]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
