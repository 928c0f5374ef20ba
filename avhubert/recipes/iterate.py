"""All iterations of a pre-training recipe: each clusters features of the previous model and trains on the clusters.

After Shi et al., ICLR 2022, § 3.3. RUN/iterN contains `labels` (the label folder of iteration N) and `model` (the run
directory that was trained on it); RUN/report.html shows every iteration.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avhubert.config import compose
from avhubert.config.schema import RecipeConfig
from avhubert.config.validate import keys, require
from avhubert.errors import ConfigError
from avhubert.files import lock_directory, output_directory, read_json_object
from avhubert.recipes.iteration import Iteration

_log = logging.getLogger(__name__)


def run(
    name: str, overrides: Sequence[str] = (), config_dir: str | Path | None = None, from_iteration: int = 1
) -> Path:
    """Runs recipe `name`; resumes automatically if its run_dir contains finished parts.

    Args:
        name: Name of the recipe.
        overrides: `key=value`. Keys of the recipe (`run_dir`, `seed`, `data.dir`, `presets`, `clusters`,
            `teacher_layers`, `percent`) change the recipe; all others change the preset of every iteration.
        config_dir: Folder of other recipes.
        from_iteration: The first iteration to run; the results of the ones before it are used as they are.

    Returns:
        The run directory.

    Raises:
        ConfigError: The recipe, a preset, a key or a value is unknown; lists of the recipe have different lengths; an
            iteration before `from_iteration` is not finished; existing labels are from another model or setting.
        DataError: See `cluster` and `pretrain`.
        CheckpointError: See `cluster` and `pretrain`.
    """
    from avhubert.recipes.iterate_report import write_report
    from avhubert.train.pretrain import run as pretrain

    recipe, preset_overrides = _recipe(name, overrides, config_dir)
    count = len(recipe.presets)
    if not 1 <= from_iteration <= count:
        raise ConfigError(f"--from-iteration {from_iteration} is not one of this recipe's iterations, 1 to {count}")
    directory = output_directory(recipe.run_dir)
    iterations = _iterations(recipe, directory, preset_overrides)
    with lock_directory(directory):
        for iteration in iterations:
            if iteration.number < from_iteration:
                _require_finished(iteration)
                continue
            _log.info(
                "iteration %d of %d: %d clusters of %s", iteration.number, count, iteration.clusters, iteration.features
            )
            _make_labels(recipe, iteration)
            pretrain(iteration.config)
            write_report(directory, name, iterations[: iteration.number])
    return directory


def _recipe(name: str, overrides: Sequence[str], config_dir: str | Path | None) -> tuple[RecipeConfig, list[str]]:
    """The recipe with its overrides, and the overrides of the presets."""
    recipe_keys = set(keys(RecipeConfig))
    of_recipe = [text for text in overrides if text.lstrip("+~").partition("=")[0] in recipe_keys]
    recipe: RecipeConfig = compose("iterate", name, of_recipe, config_dir)
    require(recipe)
    return recipe, [text for text in overrides if text not in of_recipe]


def _iterations(recipe: RecipeConfig, directory: Path, preset_overrides: Sequence[str]) -> list[Iteration]:
    """All iterations. They are composed before anything runs, so that a wrong key of the last one fails at once."""
    iterations: list[Iteration] = []
    for number, (preset, clusters) in enumerate(zip(recipe.presets, recipe.clusters, strict=True), 1):
        folder = directory / f"iter{number}"
        layer = recipe.teacher_layers[number - 2] if iterations else None
        features = f"{iterations[-1].model}:{layer}" if iterations else "mfcc"
        overrides = [
            f"data.dir={recipe.data.dir}", f"seed={recipe.seed}", *preset_overrides,
            f"run_dir={folder / 'model'}", f"data.labels={folder / 'labels'}",
        ]  # fmt: skip
        config = compose("pretrain", preset, overrides)
        iterations.append(Iteration(number, folder, features, clusters, config))
    return iterations


def _require_finished(iteration: Iteration) -> None:
    from avhubert.train.log import read_log

    step = read_log(iteration.model).last("train").get("step", 0)
    if not (iteration.labels / "labels.json").is_file() or step < iteration.config.train.max_steps:
        raise ConfigError(
            f"iteration {iteration.number} is not finished in {iteration.folder}; start from it, or from an earlier one"
        )


def _make_labels(recipe: RecipeConfig, iteration: Iteration) -> None:
    """Makes the labels if they do not exist; else checks that they are of the model and the settings of the recipe."""
    from avhubert.checkpoints.load import weights_hash
    from avhubert.cluster.labels import cluster
    from avhubert.features.specification import parse

    labels = iteration.labels
    if not (labels / "labels.json").is_file():
        cluster(
            recipe.data.dir, iteration.features, iteration.clusters, labels, seed=recipe.seed, percent=recipe.percent
        )
        return
    specification = parse(iteration.features)
    expected: dict[str, Any] = {"clusters": iteration.clusters, "layer": specification.layer}
    if specification.model is not None:
        expected["model_sha256"] = weights_hash(specification.model)
    record = read_json_object(labels / "labels.json") | read_json_object(labels / "label_model.json")
    differing = [key for key, value in expected.items() if record.get(key) != value]
    if differing:
        raise ConfigError(
            f"{labels} was made with another {' and '.join(differing)} than iteration {iteration.number} of this "
            f"recipe; delete {iteration.folder} (and the iterations after it), or choose another run_dir"
        )
