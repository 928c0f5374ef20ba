"""`avhubert serve`: starts the server with the API and the page."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import socket
import tempfile
from functools import partial
from pathlib import Path

import uvicorn

from avhubert.checkpoints import builtin
from avhubert.errors import ConfigError
from avhubert.live.engine import LiveEngine
from avhubert.serve.api import create_app
from avhubert.serve.guard import Guard
from avhubert.serve.limits import LIVE_MESSAGE_BYTES, LIVE_STREAMS, SHUTDOWN_SECONDS, Limits
from avhubert.serve.listen import add_route as add_live
from avhubert.serve.live_page import add_page
from avhubert.serve.live_worker import LiveWorker
from avhubert.serve.protocol import TimeoutProtocol
from avhubert.serve.service import ModelOptions, Service
from avhubert.serve.worker import Worker

HAS_WEBSOCKETS = importlib.util.find_spec("websockets") is not None
_log = logging.getLogger(__name__)


def serve(
    model: str, host: str, port: int, token: str | None, limits: Limits, options: ModelOptions | None = None
) -> None:
    """Runs the server until Ctrl-C or SIGTERM.

    Args:
        model: Model directory, published checkpoint, name on the Hub, or 'builtin'.
        host: Address to listen on.
        port: Port; 0: any free one.
        token: Token that clients must send; None: none is needed.
        limits: Limits of the requests.
        options: How the recognizer computes.

    Raises:
        CheckpointError: `model` is not a recognizer, or the face models are missing or damaged.
        ConfigError: The server cannot listen on the address, the token is empty, or an option cannot be used here.
    """
    from avhubert.checkpoints.load import load_recognizer

    if token is not None and not token.strip():
        raise ConfigError("the token is empty; give one with --token, or leave the option out")
    options = options or ModelOptions()
    listener = _listener(host, port)
    with listener, tempfile.TemporaryDirectory(prefix="avhubert-serve-") as folder:
        jobs = Path(folder) / "jobs"
        jobs.mkdir()
        recognizer = load_recognizer(model)
        worker, note = Worker(limits.queue, jobs), builtin.note(model)
        service = Service(recognizer, Path(model).name, limits, worker, options, note=note)
        service.prepare()
        config = uvicorn.Config(
            build_app(service, token, Path(folder)),
            http=TimeoutProtocol,
            ws="websockets-sansio" if HAS_WEBSOCKETS else "none",
            ws_max_size=LIVE_MESSAGE_BYTES,
            log_level="warning",
            lifespan="on",
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        _log.info("page: %s/   API: %s/v1/transcriptions   (Ctrl-C ends)", address, address)
        _run(config, listener, service.worker)
    _log.info("stopped")


def build_app(service: Service, token: str | None, folder: Path) -> Guard:
    """The API and the page behind the guard; their files are stored in `folder`."""
    uploads = folder / "page"
    uploads.mkdir()
    # Gradio reads these when it is imported; without the first it would create another folder
    os.environ["GRADIO_TEMP_DIR"], os.environ["GRADIO_ANALYTICS_ENABLED"] = str(uploads), "False"
    from avhubert.serve.page import mount

    app = create_app(service)
    if HAS_WEBSOCKETS:
        options = service.options
        engine = partial(LiveEngine, service.recognizer, options.device, options.precision, options.decode)
        add_live(app, LiveWorker(engine, LIVE_STREAMS), token)
        add_page(app, token)
    return Guard(mount(app, service, uploads, live=HAS_WEBSOCKETS), service.limits, token, uploads)


def _run(config: uvicorn.Config, listener: socket.socket, worker: Worker) -> None:
    # uvicorn raises the signal that stopped it again; SIGTERM then becomes a KeyboardInterrupt, as Ctrl-C is
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, previous)
        worker.stop()


def _listener(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        message = error.strerror if isinstance(error, OSError) else str(error)
        reason = str(message).partition(" (while")[0]  # Python appends the address
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}; choose another --host or --port") from error
