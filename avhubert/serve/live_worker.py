"""The thread that reads live streams: the windows of all streams in one batch."""

from __future__ import annotations

import io
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from avhubert.errors import AvhubertError
from avhubert.live.engine import LiveEngine
from avhubert.live.load import Load
from avhubert.live.mouths import MouthTracker
from avhubert.live.records import NOTICE, AudioBlock, LiveEvent, VideoFrame
from avhubert.live.stream import LiveStream, Request
from avhubert.prepare.detectors.selection import default_model
from avhubert.serve.limits import LIVE_PIXELS, LIVE_WAITING, RequestError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Jpeg:
    """A frame as a client sends it."""

    content: bytes
    seconds: float


def decode_jpeg(jpeg: Jpeg) -> VideoFrame:
    """The frame of a JPEG.

    Raises:
        RequestError: It is not a JPEG, or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(jpeg.content), formats=("JPEG",)) as image:
            if image.width * image.height > LIVE_PIXELS:
                raise RequestError(413, f"a frame has more than {LIVE_PIXELS} pixels; send smaller ones")
            return VideoFrame(np.array(image.convert("RGB")), jpeg.seconds)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError(400, "a frame is not a JPEG image") from error


@dataclass
class LiveSession:
    """One client's stream.

    Attributes:
        stream: Its state; only the thread of the worker uses it.
        emit: Takes events, an error, or None after the last event; called in the thread of the worker.
        waiting: Frames and samples that were not read yet.
        dropped: Number of frames that were not read because too many waited.
        finished: Whether the client has sent everything.
    """

    stream: LiveStream
    emit: Callable[[LiveEvent | RequestError | None], None]
    waiting: deque[Jpeg | AudioBlock] = field(default_factory=deque)
    dropped: int = 0
    finished: bool = False


class LiveWorker:
    """Reads the streams of all clients in one thread.

    Attributes:
        limit: Largest number of streams at the same time.
    """

    def __init__(self, engine: Callable[[], LiveEngine], limit: int) -> None:
        """Start without streams; the thread starts with the first one.

        Args:
            engine: Makes the recognizer of the streams, when the first stream begins.
            limit: Largest number of streams at the same time.
        """
        self.limit = limit
        self._make_engine = engine
        self._engine: LiveEngine | None = None
        self._sessions: list[LiveSession] = []
        self._changed = threading.Condition()

    @property
    def streams(self) -> int:
        """Number of streams."""
        return len(self._sessions)

    def open(self, modality: str, emit: Callable[[LiveEvent | RequestError | None], None]) -> LiveSession:
        """Begin a stream.

        Raises:
            RequestError: There are too many streams, or the model does not read the modality.
        """
        with self._changed:
            if len(self._sessions) >= self.limit:
                raise RequestError(429, f"{self.limit} live streams are open, no more are allowed; try again later")
            try:
                if self._engine is None:
                    self._engine = self._make_engine()
                    threading.Thread(target=self._run, name="live recognizer", daemon=True).start()
                lips = modality != "a" and any("v" in supported for supported in self._engine.modalities)
                tracker = MouthTracker(default_model(), self._engine.preparation.crop) if lips else None
                session = LiveSession(LiveStream(self._engine, tracker, modality, Load()), emit)
            except AvhubertError as error:
                raise RequestError(400, str(error)) from error
            self._sessions.append(session)
            return session

    def push(self, session: LiveSession, item: Jpeg | AudioBlock) -> None:
        """Add a frame or samples; a frame is dropped if too much waits."""
        with self._changed:
            if len(session.waiting) > LIVE_WAITING and isinstance(item, Jpeg):
                session.dropped += 1
                return
            session.waiting.append(item)
            self._changed.notify()

    def finish(self, session: LiveSession) -> None:
        """The client has sent everything: read it, emit the last events and None."""
        with self._changed:
            session.finished = True
            self._changed.notify()

    def close(self, session: LiveSession) -> None:
        """Forget a stream; nothing of it is emitted any more."""
        with self._changed:
            if session in self._sessions:
                self._sessions.remove(session)

    # ----------------------------------------------------------------------- the thread
    def _run(self) -> None:
        while True:
            with self._changed:
                while not any(session.waiting or session.finished for session in self._sessions):
                    self._changed.wait()
                work = []
                for session in self._sessions:
                    items = list(session.waiting)
                    session.waiting.clear()
                    if items or session.finished:
                        work.append((session, items, session.finished))
            self._read(work)

    def _read(self, work: list[tuple[LiveSession, list[Jpeg | AudioBlock], bool]]) -> None:
        """Read what has arrived for all streams, and emit what follows."""
        assert self._engine is not None
        requests: list[tuple[LiveSession, Request]] = []
        added: dict[int, int] = {}
        for session, items, last in work:
            session.stream.load.begin()  # the work for other streams counts too: one core does all of it
            try:
                added[id(session)] = self._take(session, items, last)
                requests += [(session, request) for request in session.stream.requests(last)]
            except (RequestError, AvhubertError) as error:
                self._fail(session, error if isinstance(error, RequestError) else RequestError(400, str(error)))
            except Exception:
                _log.exception("a live stream failed")
                self._fail(session, RequestError(500, "the server failed on this stream; see its log"))
        words = self._engine.words([request.features for _, request in requests]) if requests else []
        for (session, request), said in zip(requests, words, strict=True):
            for event in session.stream.accept(request, said):
                session.emit(event)
        for session, _, last in work:
            if id(session) not in added:
                continue
            message = session.stream.load.end(added[id(session)])
            for event in session.stream.notices(message):
                session.emit(event)
            if last:
                if session.dropped:
                    text = f"{session.dropped} frames were dropped: the machine is too slow"
                    session.emit(LiveEvent(NOTICE, 0, 0.0, 0.0, message=text))
                self.close(session)
                session.emit(None)

    def _take(self, session: LiveSession, items: list[Jpeg | AudioBlock], last: bool) -> int:
        added = 0
        frames: list[VideoFrame] = []
        for item in items:
            if isinstance(item, AudioBlock):
                added += session.stream.push(frames, item)
                frames = []
            elif session.stream.reads_video:
                frames.append(decode_jpeg(item))
        added += session.stream.push(frames, None)
        if last:
            session.stream.finish()
        return added

    def _fail(self, session: LiveSession, error: RequestError) -> None:
        self.close(session)
        session.emit(error)
        session.emit(None)
