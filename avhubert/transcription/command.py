"""`avhubert transcribe`: files, folders and patterns to transcripts, printed or written, with progress."""

from __future__ import annotations

import contextlib
import glob
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avhubert.errors import AvhubertError, DataError, MediaError
from avhubert.files import output_directory, write_text
from avhubert.report import progress
from avhubert.transcription.pipeline import Transcription
from avhubert.transcription.transcript import Transcript, render

if TYPE_CHECKING:
    from avhubert.model.recognizer import Recognizer
    from avhubert.transcription.pipeline import Mouth

SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("3gp", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "mxf", "ogv", "ts", "vob"),
        *("webm", "wmv", "aac", "aif", "aiff", "flac", "m4a", "mp3", "oga", "ogg", "opus", "wav", "wma"),
    )
)


def media_files(named: Sequence[str | Path]) -> list[tuple[Path, Path]]:
    """(file, its name for outputs) of files, folders (all media below them) and patterns such as 'talks/*.mp4'.

    The name is relative to the folder that was named. Each file comes once.

    Raises:
        DataError: a folder without any media file, a pattern that matches nothing.
    """
    found: dict[Path, Path] = {}
    for one in named:
        path = Path(one)
        if path.is_dir():
            below = sorted(
                file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
            )
            if not below:
                raise DataError(f"no video or sound file in the folder {path}; files are known by endings such as .mp4")
            found.update({file: file.relative_to(path) for file in below if file not in found})
        elif not path.exists() and glob.has_magic(str(one)):
            matches = [Path(match) for match in sorted(glob.glob(str(one), recursive=True))]
            matches = [match for match in matches if match.is_file()]
            if not matches:
                raise DataError(f"no file matches '{one}'")
            found.update({file: Path(file.name) for file in matches if file not in found})
        else:
            found.setdefault(path, Path(path.name))
    return list(found.items())


def output_names(files: Sequence[tuple[Path, Path]], form: str) -> list[Path]:
    """NAME.`form` of each; files that would share it keep their own ending too, then their folder."""
    plain = [name.with_suffix(f".{form}") for _, name in files]
    count = Counter(plain)
    names = [
        one if count[one] == 1 else name.with_name(f"{name.name}.{form}")
        for one, (_, name) in zip(plain, files, strict=True)
    ]
    count = Counter(names)
    return [
        one if count[one] == 1 else Path(f"{file.parent.name}-{one.name}")
        for one, (file, _) in zip(names, files, strict=True)
    ]


def transcribe_files(
    named: Sequence[str | Path],
    model: str,
    modality: str = "auto",
    form: str = "txt",
    out: str | Path | None = None,
    captioned: bool = False,
    keep: bool = False,
    people: bool = False,
) -> None:
    """Transcribe each file; print, or write `out`/NAME.`form` (and NAME.captioned.mp4 if `captioned`).

    keep: files whose transcript is in `out` already are not done again. people: one transcript for each person who is
    seen, NAME.person1.`form` and so on from left to right. A file that fails is named with its reason, the others are
    still done, and at the end an AvhubertError tells how many failed.
    """
    from avhubert.checkpoints.load import load_recognizer
    from avhubert.transcription.people import check_lips

    files = media_files(named)
    folder = output_directory(out) if out else None
    names = output_names(files, f"person1.{form}" if people else form)
    if len(set(names)) < len(names):
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise DataError(f"two files would be written to {twice}; transcribe them into different folders")
    recognizer = load_recognizer(model)
    if people:
        check_lips(recognizer, modality)
    failed, kept = 0, 0
    with progress() if sys.stderr.isatty() else contextlib.nullcontext() as bar:
        for (file, _), name in zip(files, names, strict=True):
            target = folder / name if folder else None
            if keep and target is not None and target.exists():
                kept += 1
                continue
            try:
                said = []
                for label, running in _readings(file, recognizer, modality, people, bar):
                    transcript = _watched(running, bar)
                    _tell(f"{file}{label and ', '}{label}", transcript, modality)
                    said.append((label, transcript))
            except MediaError as error:
                failed += 1
                print(f"avhubert: {error}", file=sys.stderr)
                continue
            if target is None:
                for label, transcript in said:
                    text = render(transcript, form)
                    before = [str(file)] if len(files) > 1 else []
                    before += [label] if label else []
                    sys.stdout.write(f"{', '.join(before)}: {text}" if before and form == "txt" else text)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if captioned:
                _burn_in(file, said[0][1], running.mouths, target.with_name(f"{target.stem}.captioned.mp4"))
            # the first person's last: where it stands, all are there
            for number, (_, transcript) in reversed(list(enumerate(said, 1))):
                one = target.with_name(target.name.replace(f".person1.{form}", f".person{number}.{form}"))
                write_text(one, render(transcript, form))
                print(one)
    if kept:
        print(f"avhubert: {kept} of {len(files)} were there already", file=sys.stderr)
    if failed:
        raise AvhubertError(f"{failed} of {len(files)} files could not be transcribed")


def _readings(
    file: Path, recognizer: Recognizer, modality: str, people: bool, bar: Any
) -> Iterator[tuple[str, Transcription]]:
    """What is read in a file: the speaker, without a label; or each person, by number."""
    from avhubert.data.video import probe
    from avhubert.transcription.people import PersonTranscription, find_people

    if not people:
        yield "", Transcription(file, recognizer, modality)
        return
    media = probe(file)
    if not media.has_video:
        raise MediaError(f"{file} has no video track, so no person is seen; leave --people out")
    watch = None
    if bar is not None:
        task = bar.add_task(f"faces of {file.name}", total=round(media.duration_seconds) or None, unit="s")
        watch = partial(_advance, bar, task)
    for number, person in enumerate(find_people(file, watch), 1):
        yield f"person {number}", PersonTranscription(file, recognizer, modality, person)


def _advance(bar: Any, task: Any, seconds: float) -> None:
    bar.update(task, completed=round(seconds))


def _tell(what: str, transcript: Transcript, modality: str) -> None:
    for warning in transcript.warnings:
        print(f"avhubert: warning: {what}: {warning}", file=sys.stderr)
    if modality == "auto" and transcript.segments:
        print(f"avhubert: {what}: read from {transcript.modality} ({transcript.reason})", file=sys.stderr)


def _burn_in(file: Path, transcript: Transcript, mouths: Sequence[Mouth], picture: Path) -> None:
    from avhubert.transcription.burn_in import burn_in

    try:
        burn_in(file, transcript, mouths, picture)
        print(picture)
    except MediaError as error:
        print(f"avhubert: warning: {error}", file=sys.stderr)


def _watched(running: Transcription, bar: Any) -> Transcript:
    """The transcript, with the seconds read so far in the bar."""
    if bar is None:
        return running.transcript()
    total = round(running.duration_seconds) or None
    task = bar.add_task(Path(running.file).name, total=total, unit="s")
    for _ in running:
        bar.update(task, completed=round(running.position_seconds))
    bar.update(task, completed=total or round(running.position_seconds))
    return running.transcript()
