"""WebSocket `/v1/listen`: a client sends frames and samples while it records, and gets the text as it is recognised.

The client's first message is JSON: `{"type": "start", "token": …, "modality": "auto", "sample_rate": 16000}`. Then
binary messages: a byte that is 1 (a JPEG image) or 2 (samples, int16 little endian, mono), eight bytes with the time in
seconds (float64, little endian; frames and samples by the same clock), and the image or the samples. `{"type": "stop"}`
ends the stream. The server sends events as JSON, `{"type": "end"}` after the last one, and
`{"type": "error", "message": …}` before it closes a connection for an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import hmac
import json
import math
import struct
import time
from collections import deque
from typing import Any

import av
import numpy as np
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from avhubert.constants import SAMPLE_RATE
from avhubert.errors import one_of
from avhubert.live.records import FINAL, PARTIAL, AudioBlock, LiveEvent
from avhubert.serve.limits import (
    LIVE_BYTES_PER_SECOND,
    LIVE_IDLE_SECONDS,
    LIVE_SECONDS,
    LIVE_SEND_SECONDS,
    LIVE_START_SECONDS,
    RequestError,
)
from avhubert.serve.live_worker import Jpeg, LiveSession, LiveWorker
from avhubert.transcription.modality import AUTO, CHOICES

PATH = "/v1/listen"
IMAGE, SAMPLES = 1, 2  # first byte of a binary message
HEADER = struct.Struct("<Bd")
RATES = (8000, 192_000)  # lowest and highest sample rate, Hz
TICKET_SECONDS = 12 * 3600  # for which a page may open streams
CLOSE_CODES = {401: 1008, 429: 1013, 500: 1011, 503: 1001}  # by status; 1007 for all others

Output = LiveEvent | RequestError | None


def ticket(token: str, now: float) -> str:
    """What a page sends in place of the token, which browsers cannot put into the headers of a WebSocket."""
    expiry = str(int(now + TICKET_SECONDS))
    return f"{expiry}.{_signature(token, expiry)}"


def is_ticket(value: str, token: str, now: float) -> bool:
    """Whether a value is a ticket that is still valid."""
    expiry, _, signature = value.partition(".")
    valid = hmac.compare_digest(signature.encode(), _signature(token, expiry).encode())
    return valid and expiry.isdigit() and now <= int(expiry)


def _signature(token: str, expiry: str) -> str:
    return hmac.new(token.encode(), f"listen {expiry}".encode(), hashlib.sha256).hexdigest()


def add_route(app: FastAPI, worker: LiveWorker, token: str | None) -> None:
    """Add the endpoint to an application; `token`: what a client must send, None: nothing."""

    @app.websocket(PATH)
    async def listen(socket: WebSocket) -> None:
        await socket.accept()
        await _Connection(socket, worker, token).run()


class _Outbox:
    """Events for a client; where many wait, partial texts that are out of date are dropped."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: deque[Output] = deque()
        self._ready = asyncio.Event()

    def put(self, event: Output) -> None:
        """Add an event; from any thread."""
        with contextlib.suppress(RuntimeError):  # the server has stopped
            self._loop.call_soon_threadsafe(self._put, event)

    def _put(self, event: Output) -> None:
        last = self._events[-1] if self._events else None
        if (
            isinstance(last, LiveEvent)
            and isinstance(event, LiveEvent)
            and last.kind == PARTIAL
            and event.kind in (PARTIAL, FINAL)
            and last.utterance == event.utterance
        ):
            self._events.pop()
        self._events.append(event)
        self._ready.set()

    async def get(self) -> Output:
        while not self._events:
            self._ready.clear()
            await self._ready.wait()
        return self._events.popleft()


class _Connection:
    """One client."""

    def __init__(self, socket: WebSocket, worker: LiveWorker, token: str | None) -> None:
        self.socket = socket
        self.worker = worker
        self.token = token
        self.rate = SAMPLE_RATE
        self.resampler: Any = None
        self.received = 0
        self.begun = time.monotonic()

    async def run(self) -> None:
        """Serve the client until one of the two ends the stream."""
        session: LiveSession | None = None
        tasks: set[asyncio.Task[None]] = set()
        try:
            outbox = _Outbox()
            modality = await self._start()
            session = await asyncio.to_thread(self.worker.open, modality, outbox.put)
            await self._send({"type": "ready"})
            tasks = {asyncio.create_task(self._receive_all(session)), asyncio.create_task(self._send_all(outbox))}
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            await self._send({"type": "end"})
            await self.socket.close()
        except RequestError as error:
            await self._refuse(error)
        except asyncio.CancelledError:  # the server is stopping, and has waited for the last events long enough
            return
        except (WebSocketDisconnect, asyncio.TimeoutError, RuntimeError):
            with contextlib.suppress(Exception):  # a client that does not read
                await asyncio.wait_for(self.socket.close(1008), 1)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # else asyncio logs their errors
            if session is not None:
                self.worker.close(session)

    async def _start(self) -> str:
        """The modality of the first message.

        Raises:
            RequestError: There is no such message in time, or the token or a value is wrong.
        """
        try:
            message = await asyncio.wait_for(self.socket.receive(), LIVE_START_SECONDS)
        except asyncio.TimeoutError:
            raise RequestError(408, "there was no start message in time") from None
        start = _parsed(message)
        if start.get("type") != "start":
            raise RequestError(400, 'the first message must be {"type": "start"}, as JSON')
        if self.token is not None and not self._is_allowed(start.get("token")):
            raise RequestError(401, "this server needs its token: send it in the start message")
        rate = start.get("sample_rate", SAMPLE_RATE)
        if type(rate) is not int or not RATES[0] <= rate <= RATES[1]:
            raise RequestError(400, f"sample_rate must be a whole number from {RATES[0]} to {RATES[1]}")
        self.rate = rate
        if rate != SAMPLE_RATE:
            self.resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        modality = start.get("modality", AUTO)
        if modality not in CHOICES:
            raise RequestError(400, one_of("modality", modality, CHOICES))
        return str(modality)

    def _is_allowed(self, given: object) -> bool:
        assert self.token is not None
        authorization = self.socket.headers.get("authorization", "").removeprefix("Bearer ")
        for value in (given, authorization):
            if isinstance(value, str) and (
                hmac.compare_digest(value.encode(), self.token.encode()) or is_ticket(value, self.token, time.time())
            ):
                return True
        return False

    async def _receive_all(self, session: LiveSession) -> None:
        while True:
            try:
                message = await asyncio.wait_for(self.socket.receive(), LIVE_IDLE_SECONDS)
            except asyncio.TimeoutError:
                raise RequestError(408, f"nothing was sent for {LIVE_IDLE_SECONDS:g} s") from None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1000))
            content = message.get("bytes")
            if content is None:
                if _parsed(message).get("type") != "stop":
                    raise RequestError(400, 'the only text message in a stream is {"type": "stop"}')
                self.worker.finish(session)
                return
            self._count(len(content))
            self.worker.push(session, self._item(content))

    def _count(self, size: int) -> None:
        self.received += size
        seconds = time.monotonic() - self.begun
        if seconds > LIVE_SECONDS:
            raise RequestError(413, f"the stream is longer than the {LIVE_SECONDS / 3600:g} hours that are allowed")
        if self.received > LIVE_BYTES_PER_SECOND * (seconds + 10):
            raise RequestError(413, f"the stream has more than {LIVE_BYTES_PER_SECOND} bytes per second; send less")

    def _item(self, content: bytes) -> Jpeg | AudioBlock:
        """The frame or the samples of a binary message.

        Raises:
            RequestError: It is neither.
        """
        if len(content) <= HEADER.size or content[0] not in (IMAGE, SAMPLES):
            raise RequestError(400, "a binary message must begin with 1 (JPEG) or 2 (samples) and the time as float64")
        kind, seconds = HEADER.unpack_from(content)
        if not math.isfinite(seconds):
            raise RequestError(400, "the time of a message must be a finite number of seconds")
        body = content[HEADER.size :]
        if kind == IMAGE:
            return Jpeg(body, seconds)
        if len(body) % 2:
            raise RequestError(400, "samples must be int16: an even number of bytes")
        return AudioBlock(self._resampled(np.frombuffer(body, "<i2").astype(np.int16)), seconds)

    def _resampled(self, samples: np.ndarray) -> np.ndarray:
        if self.resampler is None:
            return samples
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = self.rate
        parts = [part.to_ndarray()[0] for part in self.resampler.resample(frame)]
        return np.concatenate([np.zeros(0, np.int16), *parts])

    async def _send_all(self, outbox: _Outbox) -> None:
        while (event := await outbox.get()) is not None:
            if isinstance(event, RequestError):
                raise event
            await self._send({"type": event.kind, **_content(event)})

    async def _send(self, content: dict[str, Any]) -> None:
        text = json.dumps(content, ensure_ascii=False)
        await asyncio.wait_for(self.socket.send_text(text), LIVE_SEND_SECONDS)

    async def _refuse(self, error: RequestError) -> None:
        with contextlib.suppress(WebSocketDisconnect, asyncio.TimeoutError, RuntimeError):
            await self._send({"type": "error", "message": error.message})
            await self.socket.close(CLOSE_CODES.get(error.status, 1007))


def _content(event: LiveEvent) -> dict[str, Any]:
    content = dataclasses.asdict(event)
    del content["kind"]
    return {**content, "text": event.text}


def _parsed(message: Any) -> dict[str, Any]:
    """The JSON object of a text message; empty for anything else."""
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    with contextlib.suppress(json.JSONDecodeError, TypeError, RecursionError):
        content = json.loads(message.get("text") or "")
        if isinstance(content, dict):
            return content
    return {}
