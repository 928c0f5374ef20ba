"""Transcribes many files: finds them, names their outputs, writes transcripts and captioned videos."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avhubert.data.discovery import CAPTIONED, MEDIA_EXTENSIONS, Skipped, describe_skipped, find_recordings
from avhubert.data.media import AUTOMATIC, StreamChoice
from avhubert.errors import DataError, MediaError
from avhubert.files import fitting_name, output_directory
from avhubert.transcription.burn_in import burn_in
from avhubert.transcription.modality import AUTO
from avhubert.transcription.outputs import OutputFolder
from avhubert.transcription.people import PersonTranscription, check_lip_reading, find_people
from avhubert.transcription.pipeline import Transcription
from avhubert.transcription.transcript import Transcript, render

if TYPE_CHECKING:
    from avhubert.model.recognizer import Recognizer

# starts a progress bar with a description and a total in seconds; the result is called with the seconds done so far
StartProgress = Callable[[str, float], Callable[[float], None]]


def no_progress(description: str, total_seconds: float) -> Callable[[float], None]:
    """Displays no progress."""
    return lambda seconds: None


@dataclass(frozen=True)
class MediaFile:
    """A file to transcribe.

    Attributes:
        path: The file.
        name: Name for outputs: the path relative to the folder that the user gave.
    """

    path: Path
    name: Path


@dataclass(frozen=True)
class BatchOptions:
    """How files are transcribed.

    Attributes:
        modality: Streams to read: 'auto', 'av', 'a' or 'v'.
        form: Format of the transcripts: 'txt', 'srt', 'vtt' or 'json'.
        out: Output folder; None: transcripts are returned and not written.
        burn_in: Also write NAME.captioned.mp4, the video with captions.
        skip_existing: Skip files whose outputs are already in `out`, and never replace a transcript there.
        overwrite: Also replace files in `out` that this package did not write, or that were changed since.
        people: One transcript for each visible person, NAME.person1.`form` and so on from left to right.
        device: Device of the model, see `transcribe`.
        precision: Number format of the model's computations, see `transcribe`.
        decode: Settings of the beam search, see `transcribe`.
        streams: Which of several audio or video streams are read.
        vad: 'auto': audio without speech is not read; 'off': all audio is read.
    """

    modality: str = AUTO
    form: str = "txt"
    out: str | Path | None = None
    burn_in: bool = False
    skip_existing: bool = False
    overwrite: bool = False
    people: bool = False
    device: str = AUTO
    precision: str = AUTO
    decode: Mapping[str, Any] | None = None
    streams: StreamChoice = AUTOMATIC
    vad: str = AUTO


@dataclass(frozen=True)
class LabelledTranscript:
    """A transcript and the person it is of, such as 'person 1'; '' if the file has one transcript."""

    label: str
    transcript: Transcript


@dataclass
class FileResult:
    """The result of one file.

    Attributes:
        file: The file.
        transcripts: One transcript, or one for each person.
        written: Paths of the output files.
        warnings: Problems with writing outputs; problems of the recording are in the transcripts.
        error: Why the file could not be transcribed.
        skipped: True if its transcript already existed.
    """

    file: Path
    transcripts: list[LabelledTranscript] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: MediaError | DataError | None = None
    skipped: bool = False


# --------------------------------------------------------------------------- files and names
@dataclass
class FoundFiles:
    """The files that the user's sources name.

    Attributes:
        files: The files to transcribe, each once.
        skipped: What was skipped in folders and by patterns.
    """

    files: list[MediaFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def find_files(sources: Sequence[str | Path]) -> FoundFiles:
    """Each file that `sources` names, once.

    Args:
        sources: Files, whatever their extension; folders (all recordings in them and in their subfolders) and patterns
            such as 'talks/*.mp4'.

    Raises:
        DataError: A folder has no recording, or a pattern matches none.
    """
    names: dict[Path, Path] = {}
    skipped: list[Skipped] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found = _files_in(path, skipped)
        elif not path.exists() and glob.has_magic(str(source)):
            found = _matches(str(source), skipped)
        else:
            found = {path: Path(path.name)}
        for file, name in found.items():
            names.setdefault(file, name)
    originals = names.keys() | {path.with_suffix("") for path in names}
    for path in [path for path in names if path.name.endswith(CAPTIONED)]:
        if path.with_name(path.name.removesuffix(CAPTIONED)) in originals:
            skipped.append(Skipped(path, "a captioned video of another file in the list"))
            del names[path]
    return FoundFiles([MediaFile(path, name) for path, name in names.items()], skipped)


def _files_in(folder: Path, skipped: list[Skipped]) -> dict[Path, Path]:
    found = find_recordings(folder)
    if not found.files:
        known = "files are recognised by extensions such as .mp4"
        problem = f"no video or audio file in the folder {folder}"
        raise DataError("; ".join([problem, *describe_skipped(found.skipped, folder), known]), path=folder)
    skipped += found.skipped
    return {file: file.relative_to(folder) for file in found.files}


def _matches(pattern: str, skipped: list[Skipped]) -> dict[Path, Path]:
    """The files that a pattern matches; if the pattern gives no extension, those with the extension of a recording."""
    files = [path for match in sorted(glob.glob(pattern, recursive=True)) if (path := Path(match)).is_file()]
    if glob.has_magic(Path(pattern).suffix) or not Path(pattern).suffix:
        recordings = [path for path in files if path.suffix.lower() in MEDIA_EXTENSIONS]
        skipped += [Skipped(path, "not the extension of a recording") for path in files if path not in recordings]
        files = recordings
    if not files:
        raise DataError(f"no file matches '{pattern}'")
    return {file: Path(file.name) for file in files}


def output_names(files: Sequence[MediaFile], form: str) -> list[Path]:
    """NAME.`form` of each file; names that would be equal also keep their suffix, then also their folder.

    The end of a very long name is replaced by a part of its hash.
    """
    short = [file.name.with_name(f"{fitting_name(file.name.stem)}.{form}") for file in files]
    count = Counter(short)
    names = [
        name if count[name] == 1 else file.name.with_name(f"{fitting_name(file.name.name)}.{form}")
        for name, file in zip(short, files, strict=True)
    ]
    count = Counter(names)
    return [
        name if count[name] == 1 else Path(f"{file.path.parent.name}-{name.name}")
        for name, file in zip(names, files, strict=True)
    ]


# --------------------------------------------------------------------------- transcription
def transcribe_files(
    files: Sequence[MediaFile],
    model: str | Path | Recognizer,
    options: BatchOptions | None = None,
    start_progress: StartProgress = no_progress,
) -> Iterator[FileResult]:
    """Transcribes files one after the other; a file that fails does not stop the others.

    Raises:
        DataError: Two files would be written to the same output, or a file that this package did not write would be
            replaced.
        ConfigError: The output folder cannot be written, or the model cannot read what is requested.
        CheckpointError: `model` is not a recognizer.
    """
    from avhubert.checkpoints.load import load_recognizer

    options = options or BatchOptions()
    folder = output_directory(options.out) if options.out else None
    names = output_names(files, f"person1.{options.form}" if options.people else options.form)
    if len(set(names)) < len(names):
        duplicate = next(name for name, times in Counter(names).items() if times > 1)
        raise DataError(f"two files would be written to {duplicate}; transcribe them into different folders")
    outputs = OutputFolder(folder, options.overwrite) if folder else None
    if outputs is not None and folder is not None and not options.skip_existing:
        outputs.check([path for name in names for path in _existing_outputs(folder / name, options)])
    recognizer = load_recognizer(model)
    if options.people:
        check_lip_reading(recognizer, options.modality)
    for file, name in zip(files, names, strict=True):
        target = folder / name if folder else None
        if options.skip_existing and target is not None and _is_complete(file.path, target, options):
            yield FileResult(file.path, skipped=True)
        else:
            yield _transcribe_file(file.path, target, outputs, recognizer, options, start_progress)


def _is_complete(file: Path, target: Path, options: BatchOptions) -> bool:
    """Whether all outputs of a file exist."""
    from avhubert.data.video import probe

    if not target.exists():
        return False
    if not options.burn_in or _captioned(target).exists():
        return True
    try:
        return not probe(file).has_video  # an audio file gets no captioned video
    except MediaError:
        return False


def _captioned(target: Path) -> Path:
    """The path of the captioned video beside a transcript."""
    return target.with_name(f"{target.stem}{CAPTIONED}")


def _existing_outputs(target: Path, options: BatchOptions) -> list[Path]:
    """The files that would be replaced."""
    paths = [target]
    if options.people:
        while paths[-1].exists():
            paths.append(_of_person(target, len(paths) + 1, options.form))
    if options.burn_in:
        paths.append(_captioned(target))
    return [path for path in paths if path.exists()]


def _of_person(target: Path, number: int, form: str) -> Path:
    """The path of a person's transcript, given that of the first person."""
    return target.with_name(f"{target.name.removesuffix(f'.person1.{form}')}.person{number}.{form}")


def _transcribe_file(
    file: Path,
    target: Path | None,
    outputs: OutputFolder | None,
    recognizer: Recognizer,
    options: BatchOptions,
    start_progress: StartProgress,
) -> FileResult:
    result = FileResult(file)
    try:
        for label, transcription in _transcriptions(file, recognizer, options, start_progress):
            transcript = _run(transcription, start_progress)
            result.transcripts.append(LabelledTranscript(label, transcript))
    except MediaError as error:
        result.error = error
        return result
    if target is not None and outputs is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if options.burn_in and not (options.skip_existing and _captioned(target).exists()):
                _write_captioned(transcription, result, _captioned(target), outputs)
            if not (options.skip_existing and target.exists()):  # it may have been corrected by hand
                _write_transcripts(result, target, options, outputs)
        except DataError as error:  # the file was made while the recording was transcribed
            result.error = error
    return result


def _transcriptions(
    file: Path, recognizer: Recognizer, options: BatchOptions, start_progress: StartProgress
) -> Iterator[tuple[str, Transcription]]:
    """The label and the transcription of the speaker, or of each person."""
    from avhubert.data.video import probe

    compute: dict[str, Any] = {"device": options.device, "precision": options.precision, "decode": options.decode}
    compute["streams"] = options.streams
    if not options.people:
        yield "", Transcription(file, recognizer, options.modality, vad=options.vad, **compute)
        return
    media = probe(file, options.streams)
    if not media.has_video:
        raise MediaError(f"{file} has no video track, so no person is seen; leave --people out", path=file)
    report = start_progress(f"faces of {file.name}", media.duration_seconds)
    people = find_people(file, report, options.streams, recognizer.metadata.preparation().crop)
    for number, person in enumerate(people, 1):
        yield f"person {number}", PersonTranscription(file, recognizer, person, options.modality, **compute)


def _run(transcription: Transcription, start_progress: StartProgress) -> Transcript:
    """The transcript; reports progress after each segment."""
    report = start_progress(Path(transcription.file).name, transcription.duration_seconds)
    for _ in transcription:
        report(transcription.position_seconds)
    report(transcription.duration_seconds or transcription.position_seconds)
    return transcription.transcript()


def _write_captioned(transcription: Transcription, result: FileResult, target: Path, outputs: OutputFolder) -> None:
    outputs.check([target])
    try:
        result.warnings += burn_in(
            transcription.file,
            result.transcripts[0].transcript,
            transcription.mouths,
            target,
            transcription.reader.streams,
        )
        outputs.add(target)
        result.written.append(target)
    except MediaError as error:
        result.warnings.append(str(error))


def _write_transcripts(result: FileResult, target: Path, options: BatchOptions, outputs: OutputFolder) -> None:
    """Writes the transcript of each person; the first person's last, because --skip-existing looks for that one."""
    for number, labelled in reversed(list(enumerate(result.transcripts, 1))):
        path = _of_person(target, number, options.form) if options.people else target
        outputs.write(path, render(labelled.transcript, options.form))
        result.written.append(path)
