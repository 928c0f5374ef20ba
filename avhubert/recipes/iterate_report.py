"""iterations.json and the report page of `avhubert iterate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avhubert.files import read_json, write_json
from avhubert.recipes.iteration import Iteration
from avhubert.report import Page
from avhubert.train.log import read_log


@dataclass(frozen=True)
class IterationSummary:
    """One row of iterations.json; metrics are None where they are unknown.

    Attributes:
        iteration: Number of the iteration.
        source: Features that were clustered.
        clusters: Number of clusters.
        split: Split that the quality of the labels was measured on.
        pnmi: Phone-normalised mutual information.
        purity: Phone purity.
        cluster_purity: Cluster purity.
        entropy: Entropy of the labels in nats.
        masked_accuracy: Accuracy of the predicted clusters of masked validation frames.
        steps: Optimizer steps.
    """

    iteration: int
    source: str
    clusters: int
    split: str
    pnmi: float | None
    purity: float | None
    cluster_purity: float | None
    entropy: float | None
    masked_accuracy: float | None
    steps: int | None


# columns of the table: heading → field of IterationSummary
COLUMNS = {
    "iteration": "iteration",
    "features": "source",
    "K": "clusters",
    "PNMI": "pnmi",
    "phone purity": "purity",
    "cluster purity": "cluster_purity",
    "entropy, nats": "entropy",
    "masked accuracy": "masked_accuracy",
}


def write_report(directory: Path, name: str, iterations: Sequence[Iteration]) -> None:
    """Writes iterations.json and report.html.

    Args:
        directory: The run directory of the recipe.
        name: Name of the recipe.
        iterations: The finished iterations.
    """
    rows = [asdict(_summary(iteration)) for iteration in iterations]
    write_json(directory / "iterations.json", rows)
    page = Page(f"Iterations of the recipe '{name}'")
    page.text(
        "Label quality on held-out clips against the true phones at 25 Hz, if they are known. Masked accuracy: share "
        "of masked validation frames whose cluster the model of the iteration predicts. Both depend on the number of "
        "clusters: compare iterations of equal K."
    )
    page.table(
        tuple(COLUMNS),
        [tuple("unknown" if row[key] is None else row[key] for key in COLUMNS.values()) for row in rows],
    )
    _plots(page, rows, iterations)
    page.write(directory / "report.html")


def _summary(iteration: Iteration) -> IterationSummary:
    quality = read_json(iteration.labels / "quality.json")
    split = "test" if "test_frames" in quality else "valid"
    log = read_log(iteration.model)
    return IterationSummary(
        iteration=iteration.number,
        source=quality["source"],
        clusters=quality["clusters"],
        split=split,
        pnmi=quality.get(f"{split}_pnmi"),
        purity=quality.get(f"{split}_purity"),
        cluster_purity=quality.get(f"{split}_cluster_purity"),
        entropy=quality.get(f"{split}_entropy"),
        masked_accuracy=log.last("valid").get("masked_accuracy"),
        steps=log.last("train").get("step"),
    )


def _plots(page: Page, rows: Sequence[dict[str, Any]], iterations: Sequence[Iteration]) -> None:
    known = [row for row in rows if row["pnmi"] is not None]
    if known:
        numbers = [row["iteration"] for row in known]
        lines = {
            heading: (numbers, [row[COLUMNS[heading]] for row in known]) for heading in ("PNMI", "phone purity")
        }  # fmt: skip
        page.plot(lines, "iteration", "share", "label quality by iteration")
    curves = {
        f"iteration {iteration.number}": read_log(iteration.model).series("valid", "masked_accuracy")
        for iteration in iterations
    }
    curves = {label: series for label, series in curves.items() if series[0]}
    if curves:
        page.plot(curves, "step", "masked accuracy", "accuracy of the predicted clusters, masked validation frames")
