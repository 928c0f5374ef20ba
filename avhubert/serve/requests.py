"""What the endpoints share: storing an upload, and waiting for the result of a job."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from avhubert.serve.limits import Limits, RequestError, stopping, timed_out
from avhubert.serve.uploads import JobCancelledError
from avhubert.serve.worker import Job

T = TypeVar("T")


async def store_upload(fields: FormData, folder: Path, example: str) -> Path:
    """Store the file of a form in a folder; the client's name of it is not used.

    Raises:
        RequestError: There is no file, or it is empty; `example` shows how to send one.
    """
    file = fields.get("file")
    if not isinstance(file, UploadFile):
        raise RequestError(400, f"there is no file in the multipart field 'file'; for example: {example}")
    path = folder / "upload"
    await asyncio.to_thread(_store, file, path)
    if path.stat().st_size == 0:
        raise RequestError(422, "the file is empty")
    return path


def _store(file: UploadFile, path: Path) -> None:
    with open(path, "wb") as target:
        shutil.copyfileobj(file.file, target, 1 << 20)


async def result_of(request: Request, job: Job[T], limits: Limits) -> T:
    """Waits for the result of a job; cancels it after the time limit or when the client disconnects."""
    result = asyncio.wrap_future(job.future)
    # reads the error of a job that nobody waits for, else asyncio logs it
    result.add_done_callback(lambda future: future.cancelled() or future.exception())
    disconnect = asyncio.ensure_future(request.receive())
    futures: set[asyncio.Future[Any]] = {result, disconnect}
    try:
        await asyncio.wait(futures, timeout=limits.timeout, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        if disconnect.done():
            raise RequestError(499, "the client has disconnected")
        raise timed_out(limits)
    except JobCancelledError:
        raise stopping() from None
    finally:
        disconnect.cancel()
        job.cancel()
