"""The executors by the name that the option `--executor` takes."""

from __future__ import annotations

from collections.abc import Callable, Generator

from avhubert.prepare.executors.local import run_locally
from avhubert.prepare.executors.ray import run_on_ray
from avhubert.prepare.executors.worker import Outcome

# called with the work, the clips, the number of workers, the seconds without progress, and the settings of the work
EXECUTORS: dict[str, Callable[..., Generator[Outcome, None, None]]] = {"local": run_locally, "ray": run_on_ray}
