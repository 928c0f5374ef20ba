"""uvicorn's HTTP/1.1 protocol with a time limit for the headers of a request, and errors as JSON."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from avhubert.serve.limits import HEADER_SECONDS, error_body


class TimeoutProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose headers do not arrive in time."""

    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the timer of a new connection."""
        super().connection_made(transport)
        self._start_timer()

    def handle_events(self) -> None:
        """Stops the timer when the headers have arrived; starts it when part of the next request has."""
        super().handle_events()
        if self.conn.their_state is not h11.IDLE or not self.conn.trailing_data[0]:
            self._stop_timer()
        elif self.timer is None:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timer of a closed connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Responds to an invalid request; `msg`, which is uvicorn's text, is not sent."""
        self._respond(HTTPStatus.BAD_REQUEST, "this is not a valid HTTP request")

    def _start_timer(self) -> None:
        self.timer = self.loop.call_later(HEADER_SECONDS, self._time_out)

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _time_out(self) -> None:
        self._respond(HTTPStatus.REQUEST_TIMEOUT, "the request was too slow and timed out")

    def _respond(self, status: HTTPStatus, message: str) -> None:
        """Sends the last response of this connection, possibly before the request is complete."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
            return
        body = error_body(message)
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()
