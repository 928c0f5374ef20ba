"""Configurations of the trainings: schemas, presets, and their checks."""

from avhubert.config.composition import compose, presets
from avhubert.config.schema import SCHEMAS
from avhubert.config.validate import flatten, require

__all__ = ["SCHEMAS", "compose", "flatten", "presets", "require"]
