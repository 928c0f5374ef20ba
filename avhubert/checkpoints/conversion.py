"""Converts a checkpoint of any other kind to a model directory."""

from __future__ import annotations

from pathlib import Path

from avhubert.checkpoints.avista import read as avista
from avhubert.checkpoints.fairseq import read as fairseq
from avhubert.checkpoints.kinds import Kind, kind_of
from avhubert.checkpoints.load import locate
from avhubert.errors import CheckpointError


def convert(source: str | Path, directory: str | Path) -> list[str]:
    """Write the model directory of a published checkpoint, or of an AVista folder or repository.

    Returns:
        What the user should know, such as settings that were assumed, a sentence each.

    Raises:
        CheckpointError: `source` is neither, or cannot be read.
        ConfigError: `directory` exists or cannot be written.
    """
    path, origin = locate(source)
    kind = kind_of(path, source)
    if kind is Kind.DIRECTORY:
        raise CheckpointError(
            f"{source} is a model directory already; --to-fairseq and --to-avista make the other formats of one"
        )
    return avista.convert(path, directory, origin) if kind is Kind.AVISTA else fairseq.convert(path, directory)
