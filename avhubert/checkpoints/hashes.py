"""Hashes by which a checkpoint that was damaged on disk or in transfer is detected.

The header of `model.safetensors` has the SHA-256 of all tensors, and that of `tokenizer.model` for a recognizer. They
are in one file with the weights, so that a killed command cannot leave weights with the hash of others. A file without
hashes, of another program or an earlier version, is read as it is. Archives of `torch.save` have their own checksums.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

TENSORS, TOKENIZER = "sha256", "tokenizer_sha256"  # keys in the metadata of the safetensors header
_FORMAT = {"format": "pt"}  # what other readers of safetensors expect


def header(state: Mapping[str, Tensor], tokenizer: bytes | None) -> dict[str, str]:
    """The metadata of `model.safetensors` for these tensors and this serialized tokenizer."""
    metadata = {**_FORMAT, TENSORS: of_tensors(state)}
    if tokenizer is not None:
        metadata[TOKENIZER] = of_bytes(tokenizer)
    return metadata


def of_tensors(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and contents, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def of_bytes(content: bytes) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


def damaged_zip_member(path: Path) -> str | None:
    """The first member of an archive of `torch.save` whose CRC-32 is not that of its content; None if all are right.

    torch writes these checksums and does not compare them when it reads.

    Raises:
        zipfile.BadZipFile, OSError: the archive cannot be read.
    """
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()
