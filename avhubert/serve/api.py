"""The HTTP API: `GET /health`, `POST /v1/transcriptions`, and the endpoints for clients of OpenAI's API."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from avhubert import __version__
from avhubert.errors import one_of
from avhubert.serve.limits import RequestError, error_body
from avhubert.serve.openai_api import add_routes as add_openai_routes
from avhubert.serve.requests import result_of, store_upload
from avhubert.serve.service import Service
from avhubert.serve.worker import Admission
from avhubert.transcription.modality import AUTO, CHOICES
from avhubert.transcription.transcript import Transcript, render

FORMATS = {"json": "json", "verbose_json": "json", "txt": "txt", "text": "txt", "srt": "srt", "vtt": "vtt"}
MEDIA_TYPES = {"json": "application/json", "txt": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt"}


@dataclass(frozen=True)
class Upload:
    """The fields of a request: the uploaded file, the streams to read, and the format of the transcript."""

    path: Path
    modality: str
    form: str


def create_app(service: Service) -> FastAPI:
    """The API without the page."""
    # FastAPI's documentation pages would load scripts from other hosts
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _handle_errors(app)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "model": service.name,
            "modalities": list(service.modalities),
            "queue": service.worker.admitted,
            "queue_limit": 1 + service.limits.queue,
            "version": __version__,
        }

    @app.post("/v1/transcriptions")
    async def transcriptions(request: Request) -> Response:
        admission = service.worker.admit()
        try:
            upload = await _receive(request, admission)
            job = service.worker.submit(admission, partial(_transcribe, service, upload))
        except BaseException:
            admission.release()
            raise
        transcript = await result_of(request, job, service.limits)
        return Response(render(transcript, upload.form), media_type=MEDIA_TYPES[upload.form])

    add_openai_routes(app, service)

    # without these routes the page would respond
    @app.api_route("/health", methods=["POST", "PUT", "PATCH", "DELETE"])
    async def wrong_method(request: Request) -> None:
        raise RequestError(405, f"/health does not support {request.method}", {"allow": "GET"})

    @app.api_route("/v1/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def not_found(rest: str) -> None:
        raise RequestError(404, "there is nothing here; the API is POST /v1/transcriptions and GET /health")

    return app


def _handle_errors(app: FastAPI) -> None:
    """Makes every error of the application a JSON sentence."""

    @app.exception_handler(RequestError)
    async def request_error(request: Request, error: RequestError) -> Response:
        return _error_response(error, request)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        not_found = error.status_code == 404
        message = "there is nothing here" if not_found else f"the request is not valid: {error.detail}"
        return _error_response(RequestError(error.status_code, message, dict(error.headers or {})), request)

    @app.exception_handler(Exception)
    async def unexpected_error(request: Request, error: Exception) -> Response:
        return _error_response(RequestError(500, "the server failed on this request; see its log"), request)


def _error_response(error: RequestError, request: Request) -> Response:
    return Response(error_body(error.message, request.url.path), error.status, error.headers, "application/json")


def _transcribe(service: Service, upload: Upload, stop: threading.Event) -> Transcript:
    service.check(upload.path, stop)
    return service.transcribe(upload.path, upload.modality, stop)


async def _receive(request: Request, admission: Admission) -> Upload:
    """Reads the body of a request; the file is stored in the folder of the admission.

    Raises:
        RequestError: A field is missing or wrong, or the file is empty.
    """
    async with request.form(max_files=1, max_fields=16, max_part_size=4096) as fields:
        modality = str(fields.get("modality") or AUTO)
        if modality not in CHOICES:
            raise RequestError(400, one_of("modality", modality, CHOICES))
        form = str(fields.get("format") or fields.get("response_format") or "json")
        if form not in FORMATS:
            raise RequestError(400, one_of("format", form, FORMATS))
        path = await store_upload(fields, admission.folder, "curl -F file=@talk.mp4 …")
    return Upload(path, modality, FORMATS[form])
