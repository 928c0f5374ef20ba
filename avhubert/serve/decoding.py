"""Reads uploads in a process that may crash or hang: only the request in question fails, the server goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from avhubert.config.input_preparation import InputPreparation
from avhubert.data.forward import close_passes
from avhubert.data.media import AUTOMATIC, DamageLog, StreamChoice
from avhubert.data.video import MediaInfo, probe
from avhubert.errors import MediaError
from avhubert.processes import Caller, Failure
from avhubert.serve.limits import STALL_SECONDS
from avhubert.transcription.reader import Chunk, Reader

R = TypeVar("R")
MakeReader = Callable[[Path, bool, bool], Reader]


class Decoder:
    """Calls functions in one process, which is replaced when it crashes or hangs. Only one thread may use it.

    Args:
        stall_seconds: A call is given up if it makes no progress for so long.
    """

    def __init__(self, stall_seconds: float = STALL_SECONDS) -> None:
        self._caller = Caller(stall_seconds, _import_readers)
        self.close = self._caller.close

    def call(self, path: Path, function: Callable[[], R]) -> R:
        """The result of a function that can be pickled and that reads the file `path`.

        Raises:
            MediaError: The file cannot be read: the function raised, or its process crashed or hung.
            ConfigError, CheckpointError: The face models cannot be loaded.
        """
        outcome = self._caller.call(function)
        if isinstance(outcome, Failure):
            reason = outcome.reason if str(path) in outcome.reason else f"{path} cannot be read: {outcome.reason}"
            raise MediaError(reason, kind=outcome.kind, path=path)
        return outcome

    def start(self, faces: bool) -> None:
        """Starts the process, and loads the face models in it.

        Raises:
            ConfigError, CheckpointError: The face models cannot be loaded.
        """
        self.call(Path(), _load_face_models if faces else _do_nothing)

    def probe(self, path: Path, streams: StreamChoice = AUTOMATIC, damage: DamageLog | None = None) -> MediaInfo:
        """The streams of a file, as `avhubert.data.video.probe` reads them."""
        media, found = self.call(path, partial(_probe, path, streams))
        if damage is not None:
            damage.merge(found)
        return media


class RemoteReader(Reader):
    """A reader whose file is decoded in the process of a `Decoder`."""

    def __init__(
        self, decoder: Decoder, file: str | Path, use_audio: bool, use_video: bool, make: MakeReader = Reader
    ) -> None:
        """Makes a reader.

        Args:
            decoder: The process.
            file: The file.
            use_audio: Whether audio is read.
            use_video: Whether video is read.
            make: Makes the reader in the process; can be pickled.
        """
        super().__init__(file, use_audio, use_video)
        self._decoder = decoder
        self._make = make

    def read(self, start: int) -> Chunk | None:
        """The chunk that starts at frame `start`; None after the end of the file."""
        path = Path(self.file)
        work = partial(_read, self._make, path, self.use_audio, self.use_video, self.streams, self.preparation, start)
        reading = self._decoder.call(path, work)
        self.use_video = reading.use_video
        self.damage.merge(reading.damage)
        return reading.chunk


@dataclass(frozen=True)
class _Reading:
    """A chunk, and what reading it has changed in its reader."""

    chunk: Chunk | None
    use_video: bool
    damage: DamageLog


# --------------------------------------------------------------------------- in the process
def _import_readers() -> None:
    import avhubert.prepare.mouth  # noqa: F401


def _do_nothing() -> None:
    """Only starts the process."""


def _load_face_models() -> None:
    from avhubert.prepare.detectors.selection import default_model

    default_model()


def _probe(path: Path, streams: StreamChoice) -> tuple[MediaInfo, DamageLog]:
    close_passes()  # over the file of the last request, which may have been given up
    damage = DamageLog()
    return probe(path, streams, damage), damage


def _read(
    make: MakeReader,
    path: Path,
    use_audio: bool,
    use_video: bool,
    streams: StreamChoice,
    preparation: InputPreparation,
    start: int,
) -> _Reading:
    reader = make(path, use_audio, use_video)
    reader.streams, reader.preparation = streams, preparation
    chunk = reader.read(start)
    if chunk is None or chunk.final:
        close_passes()  # Windows deletes no open file
    return _Reading(chunk, reader.use_video, reader.damage)
