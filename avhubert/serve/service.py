"""What the API and the page share: the recognizer, its options, the limits and the worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avhubert.errors import AvhubertError
from avhubert.serve.decoding import Decoder, RemoteReader
from avhubert.serve.limits import Limits
from avhubert.serve.uploads import Checker, JobCancelledError, request_error
from avhubert.serve.worker import Worker
from avhubert.transcription.modality import AUTO
from avhubert.transcription.pipeline import Transcription
from avhubert.transcription.reader import Reader
from avhubert.transcription.transcript import Segment, Transcript

if TYPE_CHECKING:
    from avhubert.model.recognizer import Recognizer


@dataclass(frozen=True)
class ModelOptions:
    """How the recognizer computes; see `avhubert.transcribe`.

    Attributes:
        device: Device of the model.
        precision: Number format of the model's computations.
        decode: Settings of the beam search that replace those of the model.
        vad: 'auto': audio without speech is not read; 'off': all audio is read.
    """

    device: str = AUTO
    precision: str = AUTO
    decode: Mapping[str, Any] | None = None
    vad: str = AUTO


@dataclass(frozen=True)
class Service:
    """The recognizer and everything that its requests need.

    Attributes:
        recognizer: The recognizer.
        name: Name of the model, displayed on the page and in /health.
        limits: Limits of the requests.
        worker: The thread that uses the recognizer.
        options: How the recognizer computes.
        checker: Checks uploaded files.
        decoder: The process that reads them.
        note: What the page says about the model.
    """

    recognizer: Recognizer
    name: str
    limits: Limits
    worker: Worker
    options: ModelOptions = field(default_factory=ModelOptions)
    checker: Checker = field(default_factory=Checker)
    decoder: Decoder = field(default_factory=Decoder)
    note: str = ""

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the recognizer was trained for."""
        return self.recognizer.metadata.supported_modalities()

    def prepare(self) -> None:
        """Does at the start of the server what the first request would do: moves the model, loads the face models.

        Raises:
            CheckpointError: The face models are missing or damaged.
            ConfigError: An option cannot be used on this machine or with this model.
        """
        from avhubert.transcription.decoding import WindowDecoder

        WindowDecoder(self.recognizer, self.options.device, self.options.precision, self.options.decode)
        self.decoder.start(faces=any("v" in modality for modality in self.modalities))

    def check(self, path: Path, stop: threading.Event) -> None:
        """Checks an upload; only for the worker's thread.

        Raises:
            RequestError: The file cannot be read or exceeds a limit.
            JobCancelledError: `stop` was set meanwhile.
        """
        self.checker.check(path, self.limits.max_seconds, stop)

    def transcribe(
        self,
        path: Path,
        modality: str,
        stop: threading.Event,
        reader: Callable[..., Reader] = RemoteReader,
        on_segment: Callable[[Segment], None] = lambda segment: None,
    ) -> Transcript:
        """Transcribes an upload that has been checked; only for the worker's thread.

        Args:
            path: The upload; messages do not contain it.
            modality: Streams to read.
            stop: Ends the transcription when it is set.
            reader: Makes the reader of the file, from the decoder and the arguments that `Transcription` gives.
            on_segment: Called with each segment as soon as it is decoded.

        Raises:
            RequestError: The file cannot be transcribed.
            JobCancelledError: `stop` was set meanwhile.
        """
        try:
            transcription = Transcription(
                path,
                self.recognizer,
                modality,
                device=self.options.device,
                precision=self.options.precision,
                decode=self.options.decode,
                vad=self.options.vad,
                reader=partial(reader, self.decoder),
                read_header=self.decoder.probe,
            )
            for segment in transcription:
                on_segment(segment)
                if stop.is_set():
                    raise JobCancelledError
            return transcription.transcript()
        except AvhubertError as error:
            raise request_error(error, path) from error
