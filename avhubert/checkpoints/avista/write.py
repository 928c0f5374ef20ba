"""Writes a converted model directory as the AVista folder that it was made of."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from avhubert.checkpoints.avista.config import Settings
from avhubert.checkpoints.avista.layout import LAYOUT, Layout
from avhubert.checkpoints.avista.names import EMBEDDING, OUTPUT, module_names, newer_name
from avhubert.checkpoints.avista.tokenizer import TOKENIZER_JSON, read_tokenizer
from avhubert.checkpoints.avista.weights import SAFETENSORS
from avhubert.checkpoints.config_file import CONFIG
from avhubert.checkpoints.directory import load_model
from avhubert.checkpoints.fairseq.names import printable_names, published_name
from avhubert.checkpoints.writing import write_archive, write_safetensors
from avhubert.errors import CheckpointError
from avhubert.files import atomic_directory, output_directory, refuse_existing, write_text
from avhubert.model.encoder import AVHubert
from avhubert.model.recognizer import Recognizer


def to_avista(directory: str | Path, folder: str | Path) -> list[str]:
    """Write a model directory that was converted from an AVista folder as such a folder.

    It has the names, dtypes and text files of the original.

    Returns:
        Nothing that a user should know: an empty list.

    Raises:
        CheckpointError: Not a model directory, a damaged one, or one that was not made of an AVista folder.
        ConfigError: `folder` exists or cannot be written.
    """
    directory = Path(directory)
    model = load_model(directory)
    if not (directory / LAYOUT).is_file():
        raise CheckpointError(
            f"{directory} was not converted from an AVista folder (it has no {LAYOUT}), and only such a model has the "
            "tokenizer and the layers of that layout"
        )
    layout = Layout.load(directory / LAYOUT)
    refuse_existing(folder)
    output_directory(Path(folder).parent)
    with atomic_directory(folder) as temporary:
        for name, text in layout.files.items():
            write_text(temporary / name, text)
        state = _state(model, layout, temporary)
        if layout.weights == SAFETENSORS:
            write_safetensors(state, temporary / layout.weights, {"format": "pt"})
        else:
            write_archive(OrderedDict(state), temporary / layout.weights)
    return []


def _state(model: AVHubert | Recognizer, layout: Layout, folder: Path) -> dict[str, Tensor]:
    """The tensors by the names of the folder, in its order of symbols."""
    if isinstance(model, Recognizer):
        table = module_names(model.encoder.config, model.decoder_config)
    else:
        table = module_names(model.config, None)
    tensors = {str(published_name(ours, table)): tensor for ours, tensor in model.state_dict().items()}
    if isinstance(model, Recognizer):
        settings = Settings(folder / CONFIG, tensors)
        size = model.decoder_config.vocab_size
        order = read_tokenizer(folder / TOKENIZER_JSON, settings.special_tokens(), size).order
        back = torch.tensor(order).argsort()
        for name in (EMBEDDING, OUTPUT):
            if name in tensors:
                tensors[name] = tensors[name][back]
        if model.decoder_config.shared_embedding:
            tensors[OUTPUT] = tensors[EMBEDDING]
    tensors |= layout.constants
    missing = [name for name in layout.dtypes if newer_name(name) not in tensors]
    if missing:
        raise CheckpointError(
            f"the model has no tensor for {printable_names(missing)}; convert the AVista folder again"
        )
    return {name: tensors[newer_name(name)].to(dtype).contiguous() for name, dtype in layout.dtypes.items()}
