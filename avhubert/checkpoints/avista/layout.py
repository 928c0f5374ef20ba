"""What an AVista folder holds besides the numbers of our model, kept for the way back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from avhubert.checkpoints.writing import write_safetensors
from avhubert.errors import CheckpointError

LAYOUT = "avista.safetensors"  # in the directory of a converted model
_KEY = "avista"
DTYPES = {
    str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int64)
}


@dataclass(frozen=True)
class Layout:
    """The layout of a folder.

    Attributes:
        weights: Name of the file with the weights.
        dtypes: Dtype of each tensor, by its name in that file.
        constants: Tensors that our model does not have, by name.
        files: Content of each text file.
    """

    weights: str
    dtypes: dict[str, torch.dtype]
    constants: dict[str, Tensor]
    files: dict[str, str]

    def save(self, path: Path) -> None:
        """Write the layout as one safetensors file."""
        dtypes = {name: str(dtype).removeprefix("torch.") for name, dtype in self.dtypes.items()}
        described = {"weights": self.weights, "dtypes": dtypes, "files": self.files}
        write_safetensors(self.constants, path, {_KEY: json.dumps(described)})

    @classmethod
    def load(cls, path: Path) -> Layout:
        """Read what `save` wrote. CheckpointError if it is damaged."""
        try:
            with safe_open(path, "pt") as file:
                described = json.loads(file.metadata()[_KEY])
                constants = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            dtypes = {str(name): DTYPES[dtype] for name, dtype in described["dtypes"].items()}
            files = {Path(name).name: str(text) for name, text in described["files"].items()}
            return cls(Path(described["weights"]).name, dtypes, constants, files)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); convert the AVista folder again", path=path) from error
