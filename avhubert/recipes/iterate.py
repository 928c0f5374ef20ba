"""All iterations of a recipe, cluster ⇄ pre-train: each learns the clusters of the one before (ICLR 2022, § 3.3).

RUN/iterN/ keeps together what belongs together: `labels` (with the centroids and the hash of the model behind them) and
`model` (the run directory that learned them). RUN/report.html shows every iteration.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avhubert.config import compose
from avhubert.config.schema import RecipeConfig
from avhubert.config.validate import keys, require
from avhubert.errors import ConfigError
from avhubert.files import lock_directory, output_directory, read_json, write_json
from avhubert.report import Page

FIGURES = ("pnmi", "purity", "cluster_purity", "entropy")


def run(
    name: str, overrides: Sequence[str] = (), config_dir: str | Path | None = None, from_iteration: int = 1
) -> Path:
    """Run recipe `name`, or go on with what its run_dir holds; returns the run directory.

    `overrides`: the recipe's own keys (`run_dir`, `seed`, `data.dir`, `presets`, `clusters`, `teacher_layers`,
    `percent`) are set in it, all others in every iteration's pre-training preset. `from_iteration` takes the iterations
    before it as they are in run_dir.

    Raises:
        ConfigError: an unknown recipe, preset, key or value; lists that do not fit each other; an iteration before
            `from_iteration` that is not there; labels that were made from another model than the one before.
        DataError, CheckpointError: see `cluster` and `pretrain`.
    """
    own = set(keys(RecipeConfig))
    mine = [text for text in overrides if text.lstrip("+~").partition("=")[0] in own]
    others = [text for text in overrides if text not in mine]
    recipe: RecipeConfig = compose("iterate", name, mine, config_dir)
    require(recipe)
    count = len(recipe.presets)
    if not 1 <= from_iteration <= count:
        raise ConfigError(f"--from-iteration {from_iteration} is not one of this recipe's iterations, 1 to {count}")
    directory = output_directory(recipe.run_dir)
    settings = [f"data.dir={recipe.data.dir}", f"seed={recipe.seed}", *others]
    runs = [directory / f"iter{number}" for number in range(1, count + 1)]
    presets = [  # all are composed before anything runs: a wrong key of the last is told at once
        compose("pretrain", preset, [*settings, f"run_dir={run / 'model'}", f"data.labels={run / 'labels'}"])
        for preset, run in zip(recipe.presets, runs, strict=True)
    ]
    with lock_directory(directory):
        for number, (run, preset) in enumerate(zip(runs, presets, strict=True), 1):
            teacher = "mfcc" if number == 1 else f"{runs[number - 2] / 'model'}:{recipe.teacher_layers[number - 2]}"
            if number < from_iteration:
                _require_finished(run, number, preset.train.max_steps)
                continue
            print(f"iteration {number} of {count}: {recipe.clusters[number - 1]} clusters of {teacher}", flush=True)
            _label(recipe, run / "labels", teacher, recipe.clusters[number - 1], number)
            from avhubert.train.pretrain import run as pretrain

            pretrain(preset)
            _report(directory, name, runs[:number])
    return directory


def _require_finished(run: Path, number: int, steps: int) -> None:
    if not (run / "labels" / "labels.json").is_file() or _last(run / "model", "train").get("step", 0) < steps:
        raise ConfigError(f"iteration {number} is not finished in {run}; start from it, or from one before")


def _label(recipe: RecipeConfig, labels: Path, teacher: str, clusters: int, number: int) -> None:
    """Make labels that are not there; refuse those that belong to another model or other settings."""
    from avhubert.cluster.labels import cluster
    from avhubert.features.layer import model_hash
    from avhubert.features.specification import parse

    if not (labels / "labels.json").is_file():
        cluster(recipe.data.dir, teacher, clusters, labels, seed=recipe.seed, percent=recipe.percent)
        return
    spec = parse(teacher)
    wanted: dict[str, Any] = {"clusters": clusters, "layer": spec.layer}
    if spec.model is not None:
        wanted["model_sha256"] = model_hash(spec.model)
    found = read_json(labels / "labels.json") | read_json(labels / "label_model.json")
    differing = [key for key, value in wanted.items() if found.get(key) != value]
    if differing:
        raise ConfigError(
            f"{labels} was made with another {' and '.join(differing)} than iteration {number} of this recipe; "
            f"delete {labels.parent} (and the iterations after it), or choose another run_dir"
        )


# --------------------------------------------------------------------------- the page
def _rows(model: Path, split: str) -> list[dict[str, Any]]:
    path = model / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [row for row in map(json.loads, lines) if row["split"] == split]


def _last(model: Path, split: str) -> dict[str, Any]:
    rows = _rows(model, split)
    return rows[-1] if rows else {}


def _report(directory: Path, name: str, runs: Sequence[Path]) -> None:
    """iterations.json and report.html of the iterations that are done."""
    kept = []
    for number, run in enumerate(runs, 1):
        quality = read_json(run / "labels" / "quality.json")
        split = "test" if "test_frames" in quality else "valid"
        kept.append({
            "iteration": number, "source": quality["source"], "clusters": quality["clusters"], "split": split,
            **{figure: quality.get(f"{split}_{figure}") for figure in FIGURES},
            "masked_accuracy": _last(run / "model", "valid").get("masked_accuracy"),
            "steps": _last(run / "model", "train").get("step"),
        })  # fmt: skip
    write_json(directory / "iterations.json", kept)
    page = Page(f"Iterations of the recipe '{name}'")
    page.text(
        "Labels on held-out clips against the true phones at 25 Hz, where they are known; masked accuracy is the share "
        "of masked validation frames whose cluster the iteration's model guesses. Both depend on the number of "
        "clusters: compare iterations of equal K."
    )
    columns = (
        "iteration",
        "features",
        "K",
        "PNMI",
        "phone purity",
        "cluster purity",
        "entropy, nats",
        "masked accuracy",
    )
    names = ("iteration", "source", "clusters", *FIGURES, "masked_accuracy")
    page.table(columns, [tuple("unknown" if row[key] is None else row[key] for key in names) for row in kept])
    known = [row for row in kept if row["pnmi"] is not None]
    if known:
        xs = [row["iteration"] for row in known]
        shown = {"PNMI": "pnmi", "phone purity": "purity"}
        lines = {label: (xs, [row[figure] for row in known]) for label, figure in shown.items()}
        page.plot(lines, "iteration", "share", "label quality by iteration")
    curves = {}
    for number, run in enumerate(runs, 1):
        rows = _rows(run / "model", "valid")
        if rows:
            curves[f"iteration {number}"] = ([row["step"] for row in rows], [row["masked_accuracy"] for row in rows])
    if curves:
        page.plot(curves, "step", "masked accuracy", "share of masked validation frames guessed right")
    page.write(directory / "report.html")
