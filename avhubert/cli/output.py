"""What the commands print: results to stdout, warnings and errors to stderr; and the library's log messages."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator, Mapping

from avhubert.errors import one_line

# loggers whose messages are not part of a command's output, such as a transcript
NOTICES = ("avhubert.checkpoints.builtin", "avhubert.devices")


def escape_unknown_characters() -> None:
    r"""Let the terminal's streams write characters that their encoding lacks as escapes such as \U0001f600.

    Names of files and transcripts have characters that cp1252, Windows' encoding of a pipe, cannot write.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show(value: object) -> None:
    """Print one line to stdout at once, even into a pipe."""
    print(value, flush=True)


def warn(message: object) -> None:
    """Print one line to stderr, marked as this program's; control characters, as names of files have, are escaped."""
    print(f"avhubert: {one_line(str(message))}", file=sys.stderr, flush=True)


def show_values(values: Mapping[str, object]) -> None:
    """Print names and values in two columns, floats with four significant digits."""
    width = max(len(str(name)) for name in values)
    for name, value in values.items():
        show(f"{name!s:<{width}}  {value:.4g}" if isinstance(value, float) else f"{name!s:<{width}}  {value}")


class TerminalHandler(logging.Handler):
    """Prints the library's log messages: results and progress (INFO) to stdout, the rest to stderr.

    The streams are looked up for each message, so that redirected ones (`contextlib.redirect_stdout`) are used.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        is_result = record.levelno < logging.WARNING and record.name not in NOTICES
        (show if is_result else warn)(self.format(record))


@contextlib.contextmanager
def terminal_logging() -> Iterator[None]:
    """Print the messages of the `avhubert` loggers, from INFO on, while the block runs."""
    logger = logging.getLogger("avhubert")
    handler, level = TerminalHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
