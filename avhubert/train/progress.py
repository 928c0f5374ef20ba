"""Progress bar and signals of a training run."""

from __future__ import annotations

import math
import signal
import threading
from typing import Any

from avhubert.platforms import stop_signals
from avhubert.report import progress


class Signals:
    """A context in which the first SIGTERM, SIGINT or SIGUSR1 is only recorded; a second one has its usual effect."""

    def __init__(self) -> None:
        self.received = False
        self.name = "another rank's signal"
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers in no other thread
            self._before = {kind: signal.signal(kind, self._note) for kind in stop_signals()}
        return self

    def _note(self, number: int, frame: object) -> None:
        self.received, self.name = True, signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def __exit__(self, *error: object) -> None:
        self._restore()


class Bar:
    """Progress over steps on stderr: loss, frames per second, time left."""

    def __init__(self, name: str, done: int, last: int, shown: bool) -> None:
        self._name = name
        self._bar = progress() if shown else None
        if self._bar is not None:
            self._task = self._bar.add_task(name, total=last, completed=done, unit="steps")

    def __enter__(self) -> Bar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, metrics: dict[str, float]) -> None:
        """Show the newest metrics."""
        if self._bar is not None:
            text = (
                f"{self._name} · loss {metrics.get('loss', math.nan):.3f} · {metrics['frames_per_second']:.0f} frames/s"
            )
            self._bar.update(self._task, description=text)

    def advance(self) -> None:
        """Count one step."""
        if self._bar is not None:
            self._bar.advance(self._task)
