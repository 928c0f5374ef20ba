"""Self-contained HTML pages and plots (inline SVG, inline PNG), and progress bars with rate and time left."""

from __future__ import annotations

import base64
import html
import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avhubert.files import write_text

if TYPE_CHECKING:
    from rich.progress import Progress

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1060px;margin:2em auto;padding:0 1em;color:#1c2430;background:#fff}
h1{font-size:1.7em} h2{margin-top:2em;border-bottom:1px solid #d5dbe3;padding-bottom:.2em}
table{border-collapse:collapse;margin:1em 0} th,td{padding:.3em .8em;border-bottom:1px solid #e3e7ed;text-align:left}
td.number{text-align:right;font-variant-numeric:tabular-nums} th{background:#f4f6f9}
figure{margin:1em 0;display:inline-block;vertical-align:top} figcaption{color:#5a6675;font-size:.9em}
img{image-rendering:pixelated;max-width:100%} svg{max-width:100%;height:auto} .note{color:#5a6675}
del{color:#b3261e;background:#fdecea} ins{color:#146c2e;background:#e7f6ec;text-decoration:none}
"""


class Page:
    """An HTML page in one file, built from top to bottom; all text is escaped."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = [f"<h1>{html.escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """Add a section heading."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add a table; numbers are right-aligned, floats have at most four significant digits."""
        head = "".join(f"<th>{html.escape(str(name))}</th>" for name in columns)
        body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
        self._parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")

    def comparison(self, chunks: Sequence[tuple[str, str, str]]) -> None:
        """Add the differences between two texts, from chunks (kind, reference, hypothesis).

        The kind is "equal", "substitute", "delete" or "insert".
        """
        parts = []
        for kind, reference, hypothesis in chunks:
            if kind == "equal":
                parts.append(html.escape(reference))
                continue
            if reference:
                parts.append(f"<del>{html.escape(reference)}</del>")
            if hypothesis:
                parts.append(f"<ins>{html.escape(hypothesis)}</ins>")
        self._parts.append(f"<p>{' '.join(parts)}</p>")

    def image(self, pixels: np.ndarray, caption: str = "", scale: int = 1) -> None:
        """Add an image, uint8 [H, W] gray or [H, W, 3] RGB, enlarged `scale` times."""
        data = base64.b64encode(png(pixels)).decode()
        width = pixels.shape[1] * scale
        self._parts.append(
            f'<figure><img width="{width}" alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def plot(
        self,
        series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
        xlabel: str,
        ylabel: str,
        caption: str = "",
        log_y: bool = False,
    ) -> None:
        """Add a line plot of named series (x values, y values)."""
        figure, axes = _figure()
        for name, (x, y) in series.items():
            axes.plot(x, y, label=name, linewidth=1.5, marker="o" if len(x) < 12 else None)
        if len(series) > 1:
            axes.legend(frameon=False)
        if log_y:
            axes.set_yscale("log")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid(alpha=0.3)
        self._svg(figure, caption)

    def bars(self, values: Mapping[str, float], ylabel: str, caption: str = "") -> None:
        """Add a bar chart of named values."""
        figure, axes = _figure()
        axes.bar(list(values), list(values.values()), color="#4477aa")
        axes.set_ylabel(ylabel)
        self._svg(figure, caption)

    def histogram(self, values: Sequence[float], xlabel: str, caption: str = "", bins: int = 30) -> None:
        """Add a histogram."""
        figure, axes = _figure()
        axes.hist(values, bins=bins, color="#4477aa")
        axes.set_xlabel(xlabel)
        axes.set_ylabel("count")
        self._svg(figure, caption)

    def heatmap(self, values: np.ndarray, xlabel: str, ylabel: str, rows: Sequence[str], caption: str = "") -> None:
        """Add a heat map of a matrix [len(rows), columns]; larger values are darker."""
        figure, axes = _figure(height=max(2.5, 0.16 * len(rows)))
        axes.imshow(values, aspect="auto", cmap="Blues", interpolation="nearest")
        axes.set_yticks(range(len(rows)), rows, fontsize=7)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        self._svg(figure, caption)

    def _svg(self, figure: Any, caption: str) -> None:
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
        svg = buffer.getvalue()
        svg = svg[svg.index("<svg") :]
        self._parts.append(f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>")

    def write(self, path: str | Path) -> None:
        """Write the page, atomically."""
        write_text(
            path,
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
            f"<body>{''.join(self._parts)}</body></html>\n",
        )


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return f"<td>{html.escape(str(value))}</td>"
    text = f"{value:.4g}" if isinstance(value, (float, np.floating)) else f"{value:,}"
    return f'<td class="number">{text}</td>'


def _figure(width: float = 6.4, height: float = 3.4) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def png(pixels: np.ndarray) -> bytes:
    """An image as PNG bytes; uint8 [H, W] gray or [H, W, 3] RGB."""
    pixels = np.ascontiguousarray(pixels, dtype=np.uint8)
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 6)) + chunk(b"IEND", b"")


def contact_sheet(images: Sequence[np.ndarray], columns: int = 10) -> np.ndarray:
    """Images of equal size in rows of `columns`, 2 pixels apart, on white."""
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    sheet = np.full((rows * (height + 2) - 2, columns * (width + 2) - 2, *images[0].shape[2:]), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + 2), (index % columns) * (width + 2)
        sheet[top : top + height, left : left + width] = image
    return sheet


def progress() -> Progress:
    """A progress bar on stderr: description, bar, done/total, rate, time left.

    Use it as a context manager: `task = bar.add_task("preparing", total=n, unit="clips")`, then `bar.advance(task)`.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        """Units per second, over the recent past."""

        def render(self, task: Task) -> Text:
            """The text of the column."""
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.3g} {task.fields.get('unit', 'items')}/s")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(table_column=Column(no_wrap=True)),  # a narrow terminal would break the line
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
