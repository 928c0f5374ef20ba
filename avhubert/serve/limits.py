"""Limits of the server, and the error of a request that exceeds them."""

from __future__ import annotations

import json
from dataclasses import dataclass

MAX_UPLOAD_MB = 100.0  # 10⁶ bytes
MAX_RECORDING_SECONDS = 300.0
MAX_QUEUE = 16  # waiting requests
RESPONSE_TIMEOUT = 300.0  # seconds

HEADER_SECONDS = 10.0  # for the headers of a request to arrive
IDLE_SECONDS = 10.0  # without a byte of the body
GRACE_SECONDS = 15.0  # for a body, before its rate counts
MIN_BYTES_PER_SECOND = 100_000  # of a body
DRAIN_SECONDS = 2.0  # a rejected body is read and discarded for so long, so that the client can read the response
MAX_PIXELS = 4096 * 2304  # of a video frame
MAX_FPS = 250
DURATION_TOLERANCE = 1.0  # seconds; containers round durations
CHECK_MEMORY = 1_500_000_000  # bytes that the process that checks uploads may use
STALL_SECONDS = 30.0  # in which nothing of an upload is decoded, after which it is given up
PAGE_FILE_SECONDS = 600  # uploads and mouth videos of the page are deleted after this time
SHUTDOWN_SECONDS = 3  # for running responses when the server stops
LIVE_STREAMS = 8  # at the same time
LIVE_PIXELS = 1920 * 1080  # of a frame
LIVE_MESSAGE_BYTES = 2_000_000  # of one message
LIVE_BYTES_PER_SECOND = 6_000_000  # of one stream
LIVE_SECONDS = 6 * 3600.0  # longest stream
LIVE_START_SECONDS, LIVE_IDLE_SECONDS = 10.0, 30.0  # for the first message, and between two messages
LIVE_SEND_SECONDS = 10.0  # for a client to take an event
LIVE_WAITING = 250  # frames and blocks that wait before frames are dropped
OPENAI_PATHS = ("/v1/audio/", "/v1/models")  # whose errors have the form of OpenAI's API
MAX_RETRY_SECONDS = 60  # longest Retry-After


@dataclass(frozen=True)
class Limits:
    """Limits that the user can choose.

    Attributes:
        max_mb: Largest body of a request in 10⁶ bytes.
        max_seconds: Longest recording in seconds.
        queue: Number of requests that may wait while one is transcribed.
        timeout: Seconds from the last byte of a request to its response.
    """

    max_mb: float = MAX_UPLOAD_MB
    max_seconds: float = MAX_RECORDING_SECONDS
    queue: int = MAX_QUEUE
    timeout: float = RESPONSE_TIMEOUT

    @property
    def max_bytes(self) -> int:
        """Largest body of a request in bytes."""
        return int(self.max_mb * 1_000_000)


class RequestError(Exception):
    """A request without a transcript.

    Attributes:
        status: HTTP status code.
        message: One sentence for the client.
        headers: Additional headers of the response.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


def too_large(limits: Limits) -> RequestError:
    """The error of an upload that exceeds the size limit."""
    return RequestError(413, f"the upload is larger than the {limits.max_mb:g} MB that this server accepts")


def too_long(max_seconds: float) -> RequestError:
    """The error of a recording that exceeds the duration limit."""
    return RequestError(413, f"the recording is longer than the {max_seconds:g} s that this server accepts")


def timed_out(limits: Limits) -> RequestError:
    """The error of a transcription that exceeds the time limit."""
    return RequestError(504, f"there was no transcript within the {limits.timeout:g} s that this server allows")


def stopping() -> RequestError:
    """The error of a request that the shutdown of the server interrupts."""
    return RequestError(503, "the server is stopping")


def error_body(message: str, path: str = "") -> bytes:
    """The JSON body of a response without a transcript, in the form that clients of the path expect."""
    error: object = message
    if path.startswith(OPENAI_PATHS):
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return json.dumps({"error": error}, ensure_ascii=False).encode()
