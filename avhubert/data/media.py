"""Opening media files: every module that reads audio or video opens its file here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import av

# up to PyAV 18, a title that is not UTF-8 raises an error without this argument; PyAV 19 removed the argument
_ANY_METADATA: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_container(path: str | Path, options: Mapping[str, str] | None = None) -> av.container.InputContainer:
    """Open a local media file for reading.

    Args:
        path: the file.
        options: FFmpeg's options for the container format.

    Raises:
        av.FFmpegError: the file is not a media file.
        OSError: the file is missing or its permissions do not allow reading.
    """
    # with "file:", FFmpeg does not take the part of a name before a colon as a protocol
    container = av.open(f"file:{path}", mode="r", options=dict(options or {}), **_ANY_METADATA)
    return cast(av.container.InputContainer, container)
