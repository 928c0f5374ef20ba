"""ASGI middleware: checks the token, and the size and the rate of each request's body."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect

from avhubert.serve.limits import (
    DRAIN_SECONDS,
    GRACE_SECONDS,
    IDLE_SECONDS,
    MIN_BYTES_PER_SECOND,
    Limits,
    RequestError,
    error_body,
    too_large,
)

OPEN_PATHS = ("/health",)  # available without the token, for monitoring
OPEN_SOCKETS = ("/v1/listen",)  # checks the token itself: browsers send no headers with a WebSocket
UPLOAD_PATH = "/gradio_api/upload"  # of the page
# Gradio's page refers to scripts and fonts of other hosts, which it can do without
POLICY = b"default-src 'self' blob: data: 'unsafe-inline' 'unsafe-eval'"

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """Middleware around the API and the page.

    Attributes:
        app: The application behind it.
        limits: Limits of the requests.
        token: Token that clients must send; None: none is needed.
        folder: Folder of the page's uploads, whose total size is limited too.
    """

    def __init__(self, app: Application, limits: Limits, token: str | None, folder: Path) -> None:
        self.app = app
        self.limits = limits
        self.token = token
        self.folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request (ASGI)."""
        if scope["type"] == "http":
            await _Request(self, scope, receive, send).run()
        elif scope["type"] == "lifespan" or (scope["type"] == "websocket" and scope["path"] in OPEN_SOCKETS):
            await self.app(scope, receive, send)

    def check(self, scope: Scope) -> None:
        """Checks the headers of a request.

        Raises:
            RequestError: The token is missing or wrong, the body is too large, or the page's folder is full.
        """
        headers = dict(scope["headers"])
        if self.token and scope["path"] not in OPEN_PATHS and not self._has_token(headers.get(b"authorization", b"")):
            raise RequestError(
                401,
                "this server needs its token: send the header 'Authorization: Bearer TOKEN', "
                "or in a browser the token as the password of any user",
                {"www-authenticate": 'Basic realm="avhubert", charset="UTF-8"'},
            )
        if int(headers.get(b"content-length", 0)) > self.limits.max_bytes:
            raise too_large(self.limits)
        if scope["path"] == UPLOAD_PATH and folder_size(self.folder) > self.limits.max_bytes * (1 + self.limits.queue):
            raise RequestError(429, "the server's storage for uploads is full; try again later", {"retry-after": "60"})

    def _has_token(self, header: bytes) -> bool:
        scheme, _, value = header.partition(b" ")
        if scheme.lower() == b"basic":
            with contextlib.suppress(binascii.Error):
                value = base64.b64decode(value, validate=True).partition(b":")[2]
        elif scheme.lower() != b"bearer":
            return False
        assert self.token
        return hmac.compare_digest(value.strip(), self.token.encode())


def folder_size(folder: Path) -> int:
    """Total size of all files in a folder; files that are deleted meanwhile do not count."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total


class _Request:
    """One request: limits the size and the rate of its body; an error replaces the application's response."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard = guard
        self.scope = scope
        self._receive = receive
        self._send = send
        names = {name for name, _ in scope["headers"]}
        self.body_pending = bool(names & {b"content-length", b"transfer-encoding"})
        self.received = 0  # bytes of the body
        self.start_time = time.monotonic()
        self.response_started = False
        self.error: RequestError | None = None

    async def run(self) -> None:
        try:
            self.guard.check(self.scope)
            await self.guard.app(self.scope, self.receive, self.send)
        except RequestError as error:
            self.error = error
        except ClientDisconnect:
            return  # nobody is left to respond to
        except Exception:
            if self.error is None:
                raise
        if self.error is not None and not self.response_started:
            await self.respond(self.error)

    async def receive(self) -> Message:
        if not self.body_pending:
            return await self._receive()  # only to learn that the client has disconnected
        try:
            message = await asyncio.wait_for(self._receive(), self.seconds_left())
        except asyncio.TimeoutError:
            self.error = RequestError(408, "the upload was too slow and timed out")
            raise self.error from None
        if message["type"] == "http.disconnect":
            self.body_pending = False
            return message
        self.received += len(message.get("body", b""))
        self.body_pending = message.get("more_body", False)
        if self.received > self.guard.limits.max_bytes:
            self.error = too_large(self.guard.limits)
            raise self.error
        return message

    def seconds_left(self) -> float:
        """Time for the next part of the body."""
        allowed = GRACE_SECONDS + self.received / MIN_BYTES_PER_SECOND
        return max(0.0, min(IDLE_SECONDS, self.start_time + allowed - time.monotonic()))

    async def send(self, message: Message) -> None:
        if self.error is not None and not self.response_started:
            return
        if message["type"] == "http.response.start":
            self.response_started = True
            headers = [*message.get("headers", []), (b"content-security-policy", POLICY)]
            if self.body_pending:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        elif self.body_pending and not message.get("more_body", False):
            # the whole response first: a connection that is closed with unread bytes is reset, and the response lost
            await self._send({**message, "more_body": True})
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.drain(), DRAIN_SECONDS)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def drain(self) -> None:
        """Reads and discards the rest of the body."""
        while (await self._receive()).get("more_body", False):
            pass

    async def respond(self, error: RequestError) -> None:
        body = error_body(error.message, self.scope["path"])
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
        self.error = None  # `send` drops the messages of the application, but not these
        await self.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})
