"""The executors by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from avhubert.prepare.executors.local import local
from avhubert.prepare.executors.ray import on_ray

if TYPE_CHECKING:
    from avhubert.prepare.records import Done

EXECUTORS: dict[str, Callable[..., Iterator[Done]]] = {"local": local, "ray": on_ray}
