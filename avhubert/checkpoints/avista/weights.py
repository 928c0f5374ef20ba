"""The tensors of an AVista model, from `model.safetensors` or `pytorch_model.bin`."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from avhubert.checkpoints.fairseq.names import printable_names
from avhubert.checkpoints.pickles import TensorRecord
from avhubert.checkpoints.torchfile import TorchFile
from avhubert.encoding import placeholder_message
from avhubert.errors import CheckpointError

SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"
MAX_SHARING = 4  # the tensors may have at most this many times the bytes of the file


def weights_file(folder: Path) -> Path:
    """The file with the weights; `model.safetensors` if there are both.

    Raises:
        CheckpointError: There is none, or the weights are split over several files.
    """
    for name in (SAFETENSORS, TORCH):
        if (folder / name).is_file():
            return folder / name
    if any(folder.glob("*.index.json")):
        raise CheckpointError(
            f"{folder} has its weights in several files, which this version does not read: save the model in one file "
            "(max_shard_size)",
            path=folder,
        )
    raise CheckpointError(f"{folder} has neither {SAFETENSORS} nor {TORCH}: copy the weights there", path=folder)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, in the dtypes of the file; nothing in it is executed.

    Raises:
        CheckpointError: The file is damaged, a Git LFS pointer or a web page, or holds something else than tensors.
    """
    if problem := placeholder_message(path):
        raise CheckpointError(problem, path=path)
    if path.suffix == ".bin":
        return _read_torch(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): copy it again", path=path) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    file = TorchFile(path)
    records = file.content
    if not isinstance(records, dict) or not records:
        raise CheckpointError(f"{path} does not hold tensors by name: save the model's state dict", path=path)
    wrong = [
        name for name, record in records.items() if not (isinstance(name, str) and isinstance(record, TensorRecord))
    ]
    if wrong:
        raise CheckpointError(
            f"{path} holds something that is not a tensor with a name: {printable_names(wrong)}", path=path
        )
    lengths = [math.prod(record.size) * record.storage.dtype.itemsize for record in records.values()]
    if sum(min(length, file.length) for length in lengths) > MAX_SHARING * file.length:
        raise CheckpointError(f"{path} is refused: its tensors share their numbers, and are too large without that")
    return {name: file.tensor(record) for name, record in records.items()}
