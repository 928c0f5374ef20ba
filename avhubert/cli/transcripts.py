"""`avhubert transcribe`: prints transcripts, warnings and progress."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avhubert.cli.output import show, warn
from avhubert.errors import AvhubertError, one_line
from avhubert.report import progress

if TYPE_CHECKING:
    from rich.progress import Progress

    from avhubert.transcription.batch import BatchOptions, FileResult


def transcribe(sources: Sequence[str | Path], model: str, options: BatchOptions) -> None:
    """Transcribe files; print the transcripts, or the paths of the files that were written.

    Raises:
        AvhubertError: at least one file could not be transcribed.
    """
    from avhubert.data.discovery import describe_skipped
    from avhubert.transcription.batch import find_files, no_progress, transcribe_files

    found = find_files(sources)
    files = found.files
    failed = skipped = 0
    with progress() if sys.stderr.isatty() else contextlib.nullcontext() as bar:
        start_progress = no_progress if bar is None else _start_progress(bar)
        for result in transcribe_files(files, model, options, start_progress):
            failed += result.error is not None
            skipped += result.skipped
            _show_problems(result, options.modality)
            if result.error is None:
                _show_outputs(result, options, several_files=len(files) > 1)
    for line in describe_skipped(found.skipped):
        warn(line)
    if skipped:
        warn(f"{skipped} of {len(files)} were there already")
    if failed:
        raise AvhubertError(f"{failed} of {len(files)} files could not be transcribed")


def _start_progress(bar: Progress) -> Callable[[str, float], Callable[[float], None]]:
    """Starts a task of the progress bar, counted in seconds of the recording."""

    def start(description: str, total_seconds: float) -> Callable[[float], None]:
        task = bar.add_task(description, total=round(total_seconds) or None, unit="s")
        return lambda seconds: bar.update(task, completed=round(seconds))

    return start


def _show_problems(result: FileResult, modality: str) -> None:
    for labelled in result.transcripts:
        what = f"{result.file}, {labelled.label}" if labelled.label else str(result.file)
        transcript = labelled.transcript
        for warning in transcript.warnings:
            warn(f"warning: {what}: {warning}")
        if modality == "auto" and transcript.segments:
            warn(f"{what}: read from {transcript.modality} ({transcript.reason})")
    if result.error is not None:
        warn(result.error)
    for warning in result.warnings:
        warn(f"warning: {warning}")


def _show_outputs(result: FileResult, options: BatchOptions, several_files: bool) -> None:
    from avhubert.transcription.transcript import render

    if options.out:
        for path in result.written:
            show(one_line(str(path)))
        return
    for labelled in result.transcripts:
        text = render(labelled.transcript, options.form)
        labels = ([one_line(str(result.file))] if several_files else []) + ([labelled.label] if labelled.label else [])
        if labels and options.form == "txt":
            text = f"{', '.join(labels)}: {text}"
        if text:  # no captions: nothing, not even an empty line
            show(text.removesuffix("\n"))
