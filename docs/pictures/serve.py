"""Makes the pictures of docs/how-to/serve.md in a Chromium: python docs/pictures/serve.py [FOLDER]

The built-in model reads the sample clip. CHROMIUM names the browser where it is not `chromium` on the PATH.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from avhubert.checkpoints.builtin import SAMPLE

MILLISECONDS = 120_000  # to wait for anything


def main(folder: Path) -> None:
    """Write serve-three.png and serve-error.png."""
    command = [sys.executable, "-m", "avhubert.cli", "serve", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    assert server.stdout is not None
    try:
        address = server.stdout.readline().split()[1]  # page: http://…
        with sync_playwright() as driver:
            chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            take_three(open_page(browser, address), folder)
            take_error(open_page(browser, address), folder)
            browser.close()
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def open_page(browser: Any, address: str) -> Any:
    """The page in a window of its own."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(MILLISECONDS)
    page.goto(address)
    page.wait_for_selector("#transcribe")
    return page


def upload(page: Any, path: Path) -> None:
    """Choose a file."""
    page.set_input_files("#video input[type=file]", str(path))
    page.wait_for_selector("#video video")


def save(page: Any, path: Path) -> None:
    """Write the page as a PNG of 128 colours, a third of the size."""
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(128).save(path, optimize=True)


def take_three(page: Any, folder: Path) -> None:
    """Three transcripts side by side, with noise."""
    upload(page, SAMPLE)
    page.get_by_label("all, side by side").check()
    page.get_by_label("babble of this recording's own voice").check()
    page.click("#transcribe")
    page.wait_for_function("document.querySelectorAll('#said section').length == 3")
    page.wait_for_function("(document.querySelector('#crop video') || {}).readyState >= 2")
    page.wait_for_timeout(1000)  # until the players have drawn a frame
    save(page, folder / "serve-three.png")


def take_error(page: Any, folder: Path) -> None:
    """A text file that was renamed."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "talk.mp4"
        file.write_text("This is text.\n" * 99, encoding="utf-8", newline="\n")
        upload(page, file)
        page.click("#transcribe")
        page.wait_for_function("document.querySelector('#said').innerText.startsWith('the file')")
        save(page, folder / "serve-error.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
