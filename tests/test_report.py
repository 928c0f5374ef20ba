"""Pages are self-contained and escape their text; images and progress bars."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image  # comes with the plotting library

from avhubert.report import Page, contact_sheet, png, progress

pytestmark = pytest.mark.quick


def test_png_is_read_back_exactly() -> None:
    rng = np.random.default_rng(0)
    for shape in ((5, 7), (5, 7, 3)):
        pixels = rng.integers(0, 256, shape, np.uint8)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)


def test_contact_sheet_places_every_image() -> None:
    images = [np.full((4, 6), value, np.uint8) for value in (10, 20, 30)]
    sheet = contact_sheet(images, columns=2)
    assert sheet.shape == (4 * 2 + 2, 6 * 2 + 2)
    assert (sheet[0, 0], sheet[0, 8], sheet[6, 0]) == (10, 20, 30)
    assert sheet[6, 8] == 255


def test_a_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    page = Page("a <b> page")
    page.heading("first & last")
    page.text("x < y")
    page.table(("name", "value"), [("<script>", 0.123456), ("n", 12345)])
    page.plot({"loss": ([0, 1], [2.0, 1.0]), "other": ([0, 1], [1.0, 0.5])}, "step", "loss", "falls", log_y=True)
    page.bars({"a": 1.0}, "count")
    page.histogram([1, 2, 2], "length")
    page.heatmap(np.eye(3), "cluster", "phone", ["p", "b", "m"])
    page.image(np.zeros((3, 3), np.uint8), "black", scale=4)
    page.comparison([("equal", "bin", "bin"), ("substitute", "blue", "red"), ("delete", "at", ""), ("insert", "", "<")])
    page.write(tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "0.1235" in html
    assert "12,345" in html
    assert "bin <del>blue</del> <ins>red</ins> <del>at</del> <ins>&lt;</ins>" in html
    assert html.count("<svg") == 4
    assert "falls" in html
    outside = re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', html)
    assert not outside, outside


def test_progress_shows_the_rate() -> None:
    with progress() as bar:
        task = bar.add_task("work", total=3, unit="clips")
        bar.advance(task, 3)
        assert bar.tasks[0].finished
