"""`avhubert live`: captions while a person speaks."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from avhubert.cli.arguments import (
    add_compute,
    add_decoding,
    add_recognized_modality,
    add_recognizer,
    decoding_settings,
    position,
)
from avhubert.cli.output import show, warn
from avhubert.cli.parser import Command
from avhubert.errors import ConfigError, one_line

if TYPE_CHECKING:
    from avhubert.live.records import LiveEvent
    from avhubert.live.sources import Counts, Item
    from avhubert.transcription.transcript import Segment


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", metavar="-", help="read what another program writes into the pipe")
    parser.add_argument(
        "--file", type=Path, metavar="FILE", help="a file, read in real time as a camera would deliver it"
    )
    parser.add_argument(
        "--camera", type=position, metavar="N", help="camera number N, from 0, and the default microphone"
    )
    parser.add_argument(
        "--url", metavar="URL", help="a stream of the network, such as rtsp://camera/1; nothing else connects"
    )
    add_recognizer(parser)
    add_recognized_modality(parser)
    parser.add_argument("--srt", type=Path, metavar="FILE", help="also write captions there; the file must not exist")
    parser.add_argument("--json-lines", action="store_true", help="print every event as one line of JSON")
    add_decoding(parser)
    add_compute(parser)


def _live(options: argparse.Namespace) -> None:
    from avhubert.live.recognizer import LiveRecognizer
    from avhubert.live.session import run
    from avhubert.live.sources import Counts

    _check(options)
    counts = Counts()
    with _source(options, counts) as (items, drop):
        recognizer = LiveRecognizer(
            options.model,
            options.modality,
            device=options.device,
            precision=options.precision,
            decode=decoding_settings(options),
        )
        output = _Output(options.srt, options.json_lines)
        try:
            for event in run(recognizer, items, drop, counts):
                output.show(event)
        except KeyboardInterrupt:  # the usual end of a live stream
            for event in recognizer.finish():
                output.show(event)
        finally:
            output.close()


def _check(options: argparse.Namespace) -> None:
    given = [options.source is not None, options.file is not None, options.camera is not None, options.url is not None]
    if options.source not in (None, "-"):
        raise ConfigError(f"to read a file live, write --file {options.source}; `-` reads a pipe")
    if sum(given) != 1:
        raise ConfigError("give one source: --file FILE, --camera N, --url URL, or - for a pipe")
    if options.srt is not None and options.srt.exists():
        raise ConfigError(f"{options.srt} exists; choose another name for --srt, or delete the file")


@contextlib.contextmanager
def _source(options: argparse.Namespace, counts: Counts) -> Iterator[tuple[Iterator[Item], bool]]:
    """Frames and samples of the chosen source, and whether they are dropped when the recogniser is behind."""
    from avhubert.live import sources

    if options.source == "-":
        yield sources.read_items(sources.open_pipe(), sources.PIPE, counts), False
    elif options.url is not None:
        yield sources.read_items(sources.open_url(options.url), options.url, counts), True
    elif options.file is not None:
        items = sources.read_items(sources.open_file(options.file), str(options.file), counts)
        yield sources.in_real_time(items), True
    else:
        camera = sources.Camera(options.camera)
        try:
            yield sources.read_items(camera.container(), f"camera {options.camera}", counts), True
        finally:
            camera.close()


class _Output:
    """Shows events: captions that are completed in place on a terminal, final lines or JSON elsewhere."""

    def __init__(self, srt: Path | None, json_lines: bool) -> None:
        self._srt = srt
        self._json_lines = json_lines
        self._in_place = sys.stdout.isatty() and not json_lines
        self._segments: list[Segment] = []
        self._origin: float | None = None
        self._people: set[int] = set()

    def show(self, event: LiveEvent) -> None:
        if self._origin is None:
            self._origin = event.start
        if self._json_lines:
            show(json.dumps({**dataclasses.asdict(event), "text": event.text}, ensure_ascii=False))
        elif event.kind == "notice":
            warn(event.message)
        elif event.kind == "final":
            self._line(event, "\n")
        elif self._in_place:
            self._line(event, "")
        if event.kind == "final" and self._srt is not None and event.words:
            self._write(event)

    def _line(self, event: LiveEvent, end: str) -> None:
        text = one_line(event.text)
        if event.person is not None:
            self._people.add(event.person)
            text = f"{event.person}: {text}" if len(self._people) > 1 and text else text
        if self._in_place:
            columns = shutil.get_terminal_size().columns - 1
            shown = text if end else text[-columns:]
            print(f"\r\033[K{shown}", end=end if text else "", flush=True)
        elif text:
            show(text)

    def _write(self, event: LiveEvent) -> None:
        from avhubert.files import write_text
        from avhubert.live.session import segment
        from avhubert.transcription.transcript import Transcript, render

        assert self._srt is not None
        self._segments.append(segment(event, self._origin or 0.0, len(self._segments)))
        write_text(self._srt, render(Transcript("", self._segments, event.modality), "srt"))

    def close(self) -> None:
        if self._in_place:
            print("\r\033[K", end="", flush=True)


LIVE = Command(
    "live",
    "show captions while a person speaks: from a camera, a pipe, a network stream or a file",
    "avhubert live --camera 0 --srt talk.srt",
    _arguments,
    _live,
)
