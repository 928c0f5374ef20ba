"""Which kind of checkpoint a path is: decided here, by the files and never by names of organisations."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from avhubert.checkpoints.config_file import CONFIG
from avhubert.encoding import placeholder_message
from avhubert.errors import CheckpointError, DataError
from avhubert.files import read_json_object

FORMAT_KEY, TYPE_KEY = "format", "model_type"
AVISTA_TYPE = "avhubert"
RECOGNIZER, PRETRAINED = "AVHubertForConditionalGeneration", "AVHubertModel"
PUBLISHED_SUFFIXES = (".pt", ".pth")
WHAT_TO_GIVE = (
    "give a model directory (model.safetensors, config.json), a published checkpoint (.pt), an AVista folder, a name "
    "on the Hugging Face Hub (org/name) or `builtin`"
)


class Kind(Enum):
    """The kinds of checkpoints that are read."""

    DIRECTORY = "a model directory of this package"
    FAIRSEQ = "a published checkpoint (.pt)"
    AVISTA = "an AVista model"


def kind_of(path: Path, source: str | Path | None = None) -> Kind:
    """The kind of a file or folder.

    Args:
        path: the file or folder.
        source: how the user named it, for messages; None: `path`.

    Raises:
        CheckpointError: it is no checkpoint, or one of another library.
    """
    if path.is_file() and path.suffix in PUBLISHED_SUFFIXES:
        return Kind.FAIRSEQ
    if path.is_dir() and (path / CONFIG).is_file():
        return kind_of_config(path / CONFIG)
    problem = f"is a folder without a {CONFIG}" if path.is_dir() else "does not exist"
    if path.is_file():
        if message := placeholder_message(path):
            raise CheckpointError(message, path=path)
        problem = "is a file of another kind"
    raise CheckpointError(f"{source or path} {problem}; {WHAT_TO_GIVE}", path=path)


def kind_of_config(path: Path) -> Kind:
    """The kind of the folder of a `config.json`.

    Raises:
        CheckpointError: it cannot be read, or is of another library.
    """
    try:
        content = read_json_object(path)
    except DataError as error:
        raise CheckpointError(str(error), path=path) from error
    if FORMAT_KEY in content or TYPE_KEY not in content:
        return Kind.DIRECTORY  # its reader says what is wrong with it
    architecture(content, path)
    return Kind.AVISTA


def architecture(config: Mapping[str, Any], path: Path) -> str:
    """The architecture that a `config.json` of the library transformers names.

    Raises:
        CheckpointError: it is not one of AVista's.
    """
    kind, names = config.get(TYPE_KEY), config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if kind == AVISTA_TYPE and name in (RECOGNIZER, PRETRAINED):
        return str(name)
    raise CheckpointError(
        f"{path} describes a model of another library (model_type {kind!r}, architecture {name!r}): this version reads "
        f"model_type {AVISTA_TYPE!r} with the architectures {RECOGNIZER} and {PRETRAINED}",
        path=path,
    )
