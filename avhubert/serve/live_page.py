"""The page `/live`: captions from the camera and the microphone of the browser."""

from __future__ import annotations

import time
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from avhubert.serve.listen import ticket

PATH = "/live"
CONSENT = "Only for people who agreed to be recorded. Frames and audio are read in memory and are not stored."


def add_page(app: FastAPI, token: str | None) -> None:
    """Add the page to an application; its streams are opened with a ticket in place of the token."""
    html = Path(__file__).with_name("live.html").read_text(encoding="utf-8").replace("CONSENT", CONSENT)

    @app.get(PATH)
    async def live() -> HTMLResponse:
        value = "" if token is None else ticket(token, time.time())
        return HTMLResponse(html.replace("TICKET_VALUE", value), headers={"cache-control": "no-store"})
