"""The log of unexpected errors, `DST/errors.log`: the traceback of each; and the rejections that refer to it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from avhubert.corpora.sources import Rejection
from avhubert.processes import Failure

ERROR_LOG = "errors.log"


def rejection_of(clip_id: str, failure: Failure) -> Rejection:
    """The rejection of a clip with a failure."""
    hint = f"; see {ERROR_LOG}" if failure.traceback else ""
    return Rejection(clip_id, failure.reason + hint, failure.kind)


def append_error(dst: Path, what: str, traceback: str) -> None:
    """Append a traceback to the log, with the time and what the error was about."""
    time = datetime.now().astimezone().isoformat(timespec="seconds")
    with open(dst / ERROR_LOG, "a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.write(f"{time} {what}\n{traceback}\n")
