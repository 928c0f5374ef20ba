"""What the server lets in: size and pace of a request's body, the token; every refusal is one JSON sentence."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.h11_impl import H11Protocol

from avhubert.config.defaults import MAX_QUEUE, MAX_RECORDING_SECONDS, MAX_UPLOAD_MB, RESPONSE_TIMEOUT

HEAD_SECONDS = 10.0  # for a request's head to arrive
IDLE_SECONDS = 10.0  # without a byte of the body
FIRST_SECONDS = 15.0  # for a body, before its pace counts
SLOWEST_BYTES = 100_000  # a second
LINGER_SECONDS = 2.0  # a refused body is thrown away for so long, that the client may read the answer
OPEN_PATHS = ("/health",)  # asked without the token, by whoever watches the server
UPLOAD_PATH = "/gradio_api/upload"  # of the page
# Gradio's page names scripts and fonts of other hosts, which it can do without
POLICY = b"default-src 'self' blob: data: 'unsafe-inline' 'unsafe-eval'"


@dataclass(frozen=True)
class Limits:
    """max_mb: of a request's body, in 10⁶ bytes; max_seconds: of a recording; queue: requests inside besides the one
    that is transcribed; timeout: seconds from the last byte of a request to its answer."""

    max_mb: float = MAX_UPLOAD_MB
    max_seconds: float = MAX_RECORDING_SECONDS
    queue: int = MAX_QUEUE
    timeout: float = RESPONSE_TIMEOUT

    @property
    def max_bytes(self) -> int:
        return int(self.max_mb * 1_000_000)


class Refused(Exception):
    """A request that gets no transcript: an HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers or {}


class Guard:
    """ASGI middleware around everything: token, then a body no larger and no slower than allowed.

    folder: what the page keeps of uploads; more than all requests together may bring is not taken.
    """

    def __init__(self, app: Any, limits: Limits, token: str | None, folder: Path) -> None:
        self.app, self.limits, self.token, self.folder = app, limits, token, folder

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, send)

    def check(self, scope: Any) -> None:
        """Refused by its head alone."""
        headers = dict(scope["headers"])
        if self.token and scope["path"] not in OPEN_PATHS and not self._knows(headers.get(b"authorization", b"")):
            raise Refused(
                401,
                "this server needs its token: send the header 'Authorization: Bearer TOKEN', "
                "or in a browser the token as the password of any user",
                {"www-authenticate": 'Basic realm="avhubert", charset="UTF-8"'},
            )
        if int(headers.get(b"content-length", 0)) > self.limits.max_bytes:
            raise self.too_large()
        if scope["path"] == UPLOAD_PATH and kept_bytes(self.folder) > self.limits.max_bytes * (1 + self.limits.queue):
            raise Refused(429, "the server keeps as many uploads as it can; try again later", {"retry-after": "60"})

    def _knows(self, header: bytes) -> bool:
        kind, _, given = header.partition(b" ")
        if kind.lower() == b"basic":
            with contextlib.suppress(binascii.Error):
                given = base64.b64decode(given, validate=True).partition(b":")[2]
        elif kind.lower() != b"bearer":
            return False
        assert self.token
        return hmac.compare_digest(given.strip(), self.token.encode())

    def too_large(self) -> Refused:
        return Refused(413, f"the upload is larger than the {self.limits.max_mb:g} MB that this server takes")


def kept_bytes(folder: Path) -> int:
    """Size of all files below a folder; those that vanish meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size
    return total


class _Exchange:
    """One request: what is received is counted and timed; a refusal replaces what the application would answer."""

    def __init__(self, guard: Guard, scope: Any, receive: Any, send: Any) -> None:
        self.guard, self.scope, self._receive, self._send = guard, scope, receive, send
        names = {name for name, _ in scope["headers"]}
        self.unread = bool(names & {b"content-length", b"transfer-encoding"})
        self.received = 0
        self.began = time.monotonic()
        self.started = False  # the answer
        self.refused: Refused | None = None

    async def run(self) -> None:
        try:
            self.guard.check(self.scope)
            await self.guard.app(self.scope, self.receive, self.send)
        except Refused as error:
            self.refused = error
        except ClientDisconnect:
            return  # nobody is left to answer
        except Exception:
            if self.refused is None:
                raise
        if self.refused is not None and not self.started:
            refused, self.refused = self.refused, None
            await self.answer(refused)

    async def receive(self) -> Any:
        if not self.unread:
            return await self._receive()  # only to hear that the client went away
        try:
            message = await asyncio.wait_for(self._receive(), self.seconds_left())
        except asyncio.TimeoutError:
            raise self.refuse(Refused(408, "the upload came too slowly and was given up")) from None
        if message["type"] == "http.disconnect":
            self.unread = False
            return message
        self.received += len(message.get("body", b""))
        self.unread = message.get("more_body", False)
        if self.received > self.guard.limits.max_bytes:
            raise self.refuse(self.guard.too_large())
        return message

    def seconds_left(self) -> float:
        allowed = FIRST_SECONDS + self.received / SLOWEST_BYTES
        return max(0.0, min(IDLE_SECONDS, self.began + allowed - time.monotonic()))

    def refuse(self, refused: Refused) -> Refused:
        self.refused = refused
        return refused

    async def send(self, message: Any) -> None:
        if self.refused is not None and not self.started:
            return
        if message["type"] == "http.response.start":
            self.started = True
            headers = [*message.get("headers", []), (b"content-security-policy", POLICY)]
            message = {**message, "headers": [*headers, (b"connection", b"close")] if self.unread else headers}
        elif self.unread and not message.get("more_body", False):
            # the whole answer first; a connection that is closed with bytes unread would take it back
            await self._send({**message, "more_body": True})
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.drain(), LINGER_SECONDS)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def drain(self) -> None:
        while (await self._receive()).get("more_body", False):
            pass

    async def answer(self, refused: Refused) -> None:
        body = sentence(refused.sentence)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(name.encode(), value.encode()) for name, value in refused.headers.items()]
        await self.send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


def sentence(text: str) -> bytes:
    """The body of every answer that is no transcript."""
    return json.dumps({"error": text}, ensure_ascii=False).encode()


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, that waits for a request's head so long and no longer."""

    waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.wait()

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.their_state is not h11.IDLE or not self.conn.trailing_data[0]:
            self.stop_waiting()
        elif self.waiting is None:
            self.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_waiting()
        super().connection_lost(exc)

    def wait(self) -> None:
        self.waiting = self.loop.call_later(HEAD_SECONDS, self.give_up)

    def stop_waiting(self) -> None:
        if self.waiting is not None:
            self.waiting.cancel()
            self.waiting = None

    def give_up(self) -> None:
        self.end(408, "the request came too slowly and was given up")

    def send_400_response(self, msg: str) -> None:
        self.end(400, "this is not an HTTP request that can be understood")

    def end(self, status: int, text: str) -> None:
        """The last answer on this connection, which may come before any request is whole."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
            return
        body = sentence(text)
        head = f"HTTP/1.1 {status} {'Request Timeout' if status == 408 else 'Bad Request'}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()
