"""The mean of a run's last states, often a better model than each of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from avhubert.checkpoints.directory import save_model
from avhubert.checkpoints.load import load
from avhubert.errors import CheckpointError, ConfigError
from avhubert.model.recognizer import Recognizer
from avhubert.train.state import read_state, state_path, steps_saved


def average(run: str | Path, out: str | Path, last: int | None = None) -> list[int]:
    """Write to `out` a model directory whose weights are the mean of the `last` newest states in `run`/state.

    Integers, such as batch norm's number of batches, are those of the newest state.

    Args:
        run: a run directory.
        out: the model directory to write.
        last: number of states; None: all (train.keep_last sets how many a run keeps).

    Returns:
        The averaged steps, newest first.

    Raises:
        ConfigError: there are fewer than `last` states; `out` is the run itself, or cannot be written.
        CheckpointError: there are no states, one cannot be read or is of another model.
    """
    run, out = Path(run), Path(out)
    if out.resolve() == run.resolve():
        raise ConfigError(f"{out} is the run that is averaged; choose another folder for the result")
    saved = steps_saved(run)
    if not saved:
        raise CheckpointError(f"{run / 'state'} has no states; give the run_dir of a training")
    steps = saved if last is None else saved[:last]
    if last is not None and len(steps) < last:
        raise ConfigError(
            f"{run / 'state'} has {len(saved)} states, not {last}; give a lower --last, or train with "
            f"train.keep_last={last}"
        )
    model = load(run)
    mean = _mean(run, steps, model.state_dict())
    metadata = dataclasses.replace(model.metadata, step=steps[0], averaged=steps)
    tokenizer = model.require_tokenizer("averaged").serialized if isinstance(model, Recognizer) else None
    save_model(out, model, tokenizer, metadata, mean)
    return steps


def _mean(run: Path, steps: list[int], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean weights of the states, one state at a time in memory; `expected` gives names and shapes."""
    shapes = {name: tensor.shape for name, tensor in expected.items()}
    sums: dict[str, Tensor] = {}
    for step in steps:
        weights = read_state(run, step)["model"]
        if {name: tensor.shape for name, tensor in weights.items()} != shapes:
            raise CheckpointError(f"{state_path(run, step)} is not a state of the model in {run}")
        for name, tensor in weights.items():
            if name not in sums:
                sums[name] = tensor.double() if tensor.is_floating_point() else tensor
            elif tensor.is_floating_point():
                sums[name] += tensor
    return {
        name: (total / len(steps)).to(expected[name].dtype) if expected[name].is_floating_point() else total
        for name, total in sums.items()
    }
