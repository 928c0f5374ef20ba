"""The HTTP API: `GET /health`, `POST /v1/transcriptions`; and the server with the page."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException
from fastapi.responses import Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException

from avhubert import __version__
from avhubert.errors import ConfigError, one_of
from avhubert.serve.limits import Guard, Limits, PatientProtocol, Refused, sentence
from avhubert.serve.media import Checker, Stopped, transcribe_upload
from avhubert.serve.worker import Job, Place, Worker
from avhubert.transcription.transcript import render

if TYPE_CHECKING:
    from avhubert.model.recognizer import Recognizer

MODALITIES = ("auto", "v", "a", "av")
FORMATS = {"json": "json", "verbose_json": "json", "txt": "txt", "text": "txt", "srt": "srt", "vtt": "vtt"}
TYPES = {"json": "application/json", "txt": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt"}
SHUTDOWN_SECONDS = 3


def create_app(recognizer: Recognizer, name: str, limits: Limits, worker: Worker, checker: Checker) -> FastAPI:
    """The API alone. `name` of the model, as /health tells it."""
    # the pages of documentation that FastAPI would add load scripts from elsewhere
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return _error(error.status, error.sentence, error.headers)

    @app.exception_handler(StarletteHTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        return _error(error.status_code, _plain(error), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return _error(500, "the server failed at this request; its log says why", {})

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "model": name,
            "modalities": list(recognizer.metadata.supported_modalities()),
            "queue": worker.inside,
            "queue_limit": 1 + limits.queue,
            "version": __version__,
        }

    @app.post("/v1/transcriptions")
    async def transcriptions(request: Request) -> Response:
        place = worker.admit()
        try:
            path, modality, form = await _received(request, place)
            work = partial(transcribe_upload, path, recognizer, modality, checker, limits.max_seconds)
            job = worker.submit(place, work)
        except BaseException:
            place.leave()
            raise
        transcript = await _result(request, job, limits.timeout)
        return Response(render(transcript, form), media_type=TYPES[form])

    @app.api_route("/health", methods=["POST", "PUT", "PATCH", "DELETE"])
    async def only_asked(request: Request) -> None:  # the page behind would answer in its own way
        raise Refused(405, f"/health does not take {request.method}", {"allow": "GET"})

    @app.api_route("/v1/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def nothing(rest: str) -> Response:
        raise Refused(404, "there is nothing here; the API is POST /v1/transcriptions and GET /health")

    return app


def _error(status: int, text: str, headers: dict[str, str]) -> Response:
    return Response(sentence(text), status, headers, "application/json")


def _plain(error: HTTPException) -> str:
    if error.status_code == 404:
        return "there is nothing here"
    return f"the request cannot be understood: {error.detail}"


async def _received(request: Request, place: Place) -> tuple[Path, str, str]:
    """The upload in the place's folder, the modality and the form of the answer."""
    async with request.form(max_files=1, max_fields=16, max_part_size=4096) as fields:
        file = fields.get("file")
        if not isinstance(file, UploadFile):
            raise Refused(400, "there is no file in the multipart field 'file'; for example: curl -F file=@talk.mp4 …")
        modality = str(fields.get("modality") or "auto")
        if modality not in MODALITIES:
            raise Refused(400, one_of("modality", modality, MODALITIES))
        form = str(fields.get("format") or fields.get("response_format") or "json")
        if form not in FORMATS:
            raise Refused(400, one_of("format", form, FORMATS))
        # what the sender calls the file is not looked at
        path = place.folder / "upload"
        await asyncio.to_thread(_keep, file, path)
    if path.stat().st_size == 0:
        raise Refused(422, "the file is empty")
    return path, modality, FORMATS[form]


def _keep(file: UploadFile, path: Path) -> None:
    with open(path, "wb") as target:
        shutil.copyfileobj(file.file, target, 1 << 20)


async def _result(request: Request, job: Job, timeout: float) -> Any:
    """The job's result, unless it takes too long or nobody waits for it any more."""
    done = asyncio.wrap_future(job.future)
    done.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # heard, even where nobody waits
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({done, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if done.done():
            return done.result()
        if gone.done():
            raise Refused(499, "the client went away")
        raise Refused(504, f"there was no transcript within the {timeout:g} s that this server allows")
    except Stopped:
        raise Refused(503, "the server is stopping") from None
    finally:
        gone.cancel()
        job.give_up()


# --------------------------------------------------------------------------- the command
def serve(model: str, host: str, port: int, token: str | None, limits: Limits) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        CheckpointError: not a recognizer, or the face models are neither here nor to be had.
        ConfigError: the address cannot be listened on, or the token is empty.
    """
    from avhubert.checkpoints.load import load_recognizer
    from avhubert.prepare.mouth import default_model

    if token is not None and not token.strip():
        raise ConfigError("the token is empty; give one with --token, or leave the option out")
    listener = _listener(host, port)
    recognizer = load_recognizer(model)
    if any("v" in modality for modality in recognizer.metadata.supported_modalities()):
        default_model()  # now, rather than at the first request
    with listener, tempfile.TemporaryDirectory(prefix="avhubert-serve-") as folder:
        application, worker = assemble(recognizer, Path(model).name, limits, token, Path(folder))
        config = uvicorn.Config(
            application, http=PatientProtocol, ws="none", log_level="warning", lifespan="on", server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )  # fmt: skip
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        print(f"page: {address}/   API: {address}/v1/transcriptions   (Ctrl-C ends)", flush=True)
        # uvicorn raises again the signal that stopped it: both are an orderly end here
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGTERM, before)
            worker.stop()
    print("stopped", flush=True)


def assemble(
    recognizer: Recognizer, name: str, limits: Limits, token: str | None, folder: Path
) -> tuple[Guard, Worker]:
    """API and page behind the guard; all their files are below `folder`."""
    uploads, jobs = folder / "page", folder / "jobs"
    uploads.mkdir()
    jobs.mkdir()
    worker, checker = Worker(limits.queue, jobs), Checker()
    app = create_app(recognizer, name, limits, worker, checker)
    # Gradio reads these when it is imported; without the first it would make a folder beside ours
    os.environ["GRADIO_TEMP_DIR"], os.environ["GRADIO_ANALYTICS_ENABLED"] = str(uploads), "False"
    from avhubert.serve.page import mount

    app = mount(app, recognizer, name, limits, worker, checker, uploads)
    return Guard(app, limits, token, uploads), worker


def _listener(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        told = error.strerror if isinstance(error, OSError) else str(error)
        reason = str(told).partition(" (while")[0]  # Python repeats the address
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}; choose another --host or --port") from error
