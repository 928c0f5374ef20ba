"""The parts of a published checkpoint that a model directory does not need, kept for the way back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from safetensors import SafetensorError, safe_open
from torch import Tensor

from avhubert.checkpoints.writing import write_safetensors
from avhubert.errors import CheckpointError

EXTRAS = "published.safetensors"  # in the directory of a converted model


class Dictionary(TypedDict):
    """Symbols by id, and how often each occurred in the training data."""

    symbols: list[str]
    count: list[int]


@dataclass(frozen=True)
class Extras:
    """What a published checkpoint holds besides the tensors and sizes of our model.

    Attributes:
        tensors: By published name; our recognizer does not have them.
        cfg: The configuration: dicts, lists and scalars.
        dictionaries: One for each set of cluster labels.
        words: The tokens of a recognizer.
    """

    tensors: dict[str, Tensor]
    cfg: dict[str, Any]
    dictionaries: list[Dictionary]
    words: Dictionary | None

    def save(self, path: Path) -> None:
        """Write the extras as one safetensors file."""
        described = {"cfg": self.cfg, "dictionaries": self.dictionaries, "words": self.words}
        write_safetensors(self.tensors, path, {"published": json.dumps(described)})

    @classmethod
    def load(cls, path: Path) -> Extras:
        """Read what `save` wrote. CheckpointError if it is damaged."""
        try:
            with safe_open(path, "pt") as file:
                described = json.loads(file.metadata()["published"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls(tensors, described["cfg"], described["dictionaries"], described["words"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); convert the published file again") from error
