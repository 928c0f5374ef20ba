"""The executors by the name that the option `--executor` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from avhubert.prepare.executors.local import run_locally
from avhubert.prepare.executors.ray import run_on_ray
from avhubert.prepare.records import ClipResult

EXECUTORS: dict[str, Callable[..., Iterator[ClipResult]]] = {"local": run_locally, "ray": run_on_ray}
