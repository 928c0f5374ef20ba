"""The documentation site: it builds without a warning, and its pages load nothing from another host."""

from __future__ import annotations

import functools
import html.parser
import http.server
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.slow
LOADING = {"audio", "embed", "iframe", "img", "link", "object", "script", "source", "track", "video"}


class References(html.parser.HTMLParser):
    """Addresses of other hosts that a page loads by itself; links that a reader may follow are none of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.foreign: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag in LOADING and values.get("rel") not in ("canonical", "next", "prev"):
            addresses = [values.get("src"), values.get("href"), values.get("data")]
            self.foreign += [address for address in addresses if address and urlsplit(address).netloc]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from a copy of the sources."""
    for name in ("material", "mkdocs", "mkdocstrings_handlers"):
        if importlib.util.find_spec(name) is None:
            pytest.skip("the extra `docs` is not installed")
    copy = tmp_path_factory.mktemp("copy")
    for name in ("avhubert", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("mkdocs.yml", "CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, copy)
    subprocess.run([sys.executable, "docs/generate.py"], cwd=copy, check=True)
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build"], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return copy / "site"


def test_no_page_refers_to_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    foreign = {page.name: found for page in pages if (found := References(page.read_text(encoding="utf-8")).foreign)}
    assert not foreign
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import ['\"]?https?:", sheet.read_text(encoding="utf-8")), sheet


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """The site behind a web server."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_browser_asks_no_other_host_and_search_works(site: Path, address: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (apt install chromium, or CHROMIUM=/path)")
    requested: list[str] = []
    failed: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: requested.append(request.url))
        page.on("response", lambda response: failed.append(response.url) if response.status >= 400 else None)
        for path in sorted(site.rglob("*.html")):
            page.goto(f"{address}/{path.relative_to(site)}", wait_until="networkidle")
        page.goto(f"{address}/index.html", wait_until="networkidle")
        page.keyboard.press("/")
        page.keyboard.type("micro-batch", delay=20)
        page.wait_for_selector(".md-search-result__item")
        browser.close()
    assert [url for url in requested if not url.startswith((address, "data:", "blob:"))] == []
    assert failed == []
