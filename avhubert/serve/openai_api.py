"""Endpoints for clients of OpenAI's API: `GET /v1/models` and `POST /v1/audio/transcriptions`.

The unmodified `openai` client works with `base_url=http://HOST:PORT/v1`. Fields and answers are those of
https://platform.openai.com/docs/api-reference/audio/createTranscription.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.datastructures import FormData

from avhubert.errors import one_of
from avhubert.serve.limits import RequestError, stopping, timed_out
from avhubert.serve.requests import result_of, store_upload
from avhubert.serve.service import Service
from avhubert.serve.uploads import JobCancelledError
from avhubert.serve.worker import Admission, Job
from avhubert.transcription.modality import AUTO, CHOICES
from avhubert.transcription.transcript import Segment, Transcript, render

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
GRANULARITIES = ("segment", "word")
ALIAS = "whisper-1"  # the name that clients send by default
EXAMPLE = "client.audio.transcriptions.create(model='whisper-1', file=open('talk.mp4', 'rb'))"
TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no", "")


@dataclass(frozen=True)
class Options:
    """The fields of a request.

    Attributes:
        form: Format of the answer.
        granularities: What `verbose_json` has times of.
        stream: Whether text is sent while the file is read.
        modality: Streams to read; this server's own field.
    """

    form: str = "json"
    granularities: tuple[str, ...] = ("segment",)
    stream: bool = False
    modality: str = AUTO


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the endpoints to an application."""
    created = int(time.time())

    def card() -> dict[str, Any]:
        return {"id": service.name, "object": "model", "created": created, "owned_by": "avhubert"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card()]}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        _check_model(name, service)
        return card()

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(request: Request) -> Response:
        admission = service.worker.admit()
        try:
            path, options = await _receive(request, admission, service)
            job, segments = _submit(service, admission, path, options)
        except BaseException:
            admission.release()
            raise
        if options.stream:
            return await _streamed(job, segments, service)
        return _answer(await result_of(request, job, service.limits), options)


def _check_model(name: str, service: Service) -> None:
    if name not in (service.name, ALIAS):
        raise RequestError(
            404, f"the model '{name}' is not here; this server has '{service.name}' ('{ALIAS}' means it)"
        )


async def _receive(request: Request, admission: Admission, service: Service) -> tuple[Path, Options]:
    """The stored file and the fields of a request.

    Raises:
        RequestError: A field is missing or wrong, or the file is empty.
    """
    async with request.form(max_files=1, max_fields=32, max_part_size=4096) as fields:
        _check_model(str(fields.get("model") or ALIAS), service)
        options = _options(fields)
        return await store_upload(fields, admission.folder, EXAMPLE), options


def _options(fields: FormData) -> Options:
    form = str(fields.get("response_format") or "json")
    if form not in FORMATS:
        raise RequestError(400, one_of("response_format", form, FORMATS))
    given = [str(value) for name in ("timestamp_granularities[]", "timestamp_granularities")
             for value in fields.getlist(name)]  # fmt: skip
    for value in given:
        if value not in GRANULARITIES:
            raise RequestError(400, one_of("timestamp granularity", value, GRANULARITIES))
    if given and form != "verbose_json":
        raise RequestError(400, "timestamp_granularities needs response_format=verbose_json")
    stream = str(fields.get("stream") or "").lower()
    if stream not in TRUE + FALSE:
        raise RequestError(400, f"stream is '{stream}'; it must be true or false")
    modality = str(fields.get("modality") or AUTO)
    if modality not in CHOICES:
        raise RequestError(400, one_of("modality", modality, CHOICES))
    return Options(form, tuple(given) or ("segment",), stream in TRUE, modality)


# --------------------------------------------------------------------------- answers
def _answer(transcript: Transcript, options: Options) -> Response:
    if options.form == "json":
        return Response(json.dumps({"text": transcript.text}, ensure_ascii=False), media_type="application/json")
    if options.form == "verbose_json":
        content = verbose(transcript, options.granularities)
        return Response(json.dumps(content, ensure_ascii=False), media_type="application/json")
    form = "txt" if options.form == "text" else options.form
    return Response(render(transcript, form), media_type="text/plain")


def verbose(transcript: Transcript, granularities: tuple[str, ...]) -> dict[str, Any]:
    """The JSON object of `verbose_json`."""
    duration = max((segment.end for segment in transcript.segments), default=0.0)
    # the language of the training transcripts is not recorded
    content: dict[str, Any] = {"task": "transcribe", "language": "", "duration": duration, "text": transcript.text}
    if "segment" in granularities:
        content["segments"] = [_segment(number, segment) for number, segment in enumerate(transcript.segments)]
    if "word" in granularities:
        content["words"] = [
            {"word": word.text, "start": word.start, "end": word.end, "confidence": word.confidence}
            for word in transcript.words
        ]
    return content


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    """A segment with all fields that clients expect; those that this package does not compute are neutral."""
    return {
        "id": number, "seek": 0, "start": segment.start, "end": segment.end, "text": segment.text, "tokens": [],
        "temperature": 0.0, "avg_logprob": segment.score, "compression_ratio": 1.0, "no_speech_prob": 0.0,
        "modality": segment.modality,
    }  # fmt: skip


# --------------------------------------------------------------------------- streaming
Pieces = asyncio.Queue[Segment | BaseException | Transcript]


def _submit(service: Service, admission: Admission, path: Path, options: Options) -> tuple[Job[Transcript], Pieces]:
    """Start the transcription; the queue gets each segment, then the transcript or the error."""
    loop = asyncio.get_running_loop()
    pieces: Pieces = asyncio.Queue()

    def put(piece: Segment | BaseException | Transcript) -> None:
        loop.call_soon_threadsafe(pieces.put_nowait, piece)

    def work(stop: threading.Event) -> Transcript:
        try:
            service.check(path, stop)
            transcript = service.transcribe(path, options.modality, stop, on_segment=put)
        except BaseException as error:
            put(error)
            raise
        put(transcript)
        return transcript

    return service.worker.submit(admission, work), pieces


async def _streamed(job: Job[Transcript], pieces: Pieces, service: Service) -> Response:
    """Server-sent events; an error before the first of them has a status of its own."""
    job.future.add_done_callback(lambda future: future.cancelled() or future.exception())
    try:
        first = await asyncio.wait_for(pieces.get(), service.limits.timeout)
    except asyncio.TimeoutError:
        job.cancel()
        raise timed_out(service.limits) from None
    except BaseException:
        job.cancel()
        raise
    if isinstance(first, BaseException):
        raise _told(first)
    return StreamingResponse(_events(first, job, pieces, service), media_type="text/event-stream")


async def _events(
    first: Segment | Transcript, job: Job[Transcript], pieces: Pieces, service: Service
) -> AsyncIterator[bytes]:
    piece: Segment | BaseException | Transcript = first
    before = ""
    try:
        while isinstance(piece, Segment):
            if piece.text:
                yield _event({"type": "transcript.text.delta", "delta": before + piece.text})
                before = " "
            piece = await asyncio.wait_for(pieces.get(), service.limits.timeout)
        if isinstance(piece, Transcript):
            yield _event({"type": "transcript.text.done", "text": piece.text})
            yield b"data: [DONE]\n\n"
        else:
            yield _event({"error": {"message": _told(piece).message, "type": "server_error"}})
    except asyncio.TimeoutError:
        yield _event({"error": {"message": timed_out(service.limits).message, "type": "server_error"}})
    finally:
        job.cancel()  # the client has disconnected, or all was sent


def _told(error: BaseException) -> RequestError:
    if isinstance(error, RequestError):
        return error
    if isinstance(error, JobCancelledError):
        return stopping()
    return RequestError(500, "the server failed on this request; see its log")


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()
