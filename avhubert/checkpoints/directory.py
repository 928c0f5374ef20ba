"""Model directories: `model.safetensors`, `config.json`, `README.md` and perhaps `tokenizer.model`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from avhubert import files
from avhubert.checkpoints import hashes
from avhubert.checkpoints.card import card
from avhubert.checkpoints.config_file import CONFIG, ModelFile, read_config
from avhubert.checkpoints.writing import write_safetensors
from avhubert.encoding import placeholder_message
from avhubert.errors import CheckpointError, ConfigError, list_names
from avhubert.model.empty import empty_weights, fill_weights
from avhubert.model.encoder import AVHubert
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer

WEIGHTS, TOKENIZER, CARD = "model.safetensors", "tokenizer.model", "README.md"


def save_model(
    directory: str | Path,
    model: AVHubert | Recognizer,
    tokenizer: bytes | None = None,
    metadata: ModelMetadata | None = None,
    weights: dict[str, Tensor] | None = None,
    name: str | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model directory. Each file is written whole or not at all; other files in the directory stay.

    Args:
        directory: Made if needed.
        model: The model.
        tokenizer: A serialized SentencePiece model.
        metadata: For `config.json` and the card; `model.metadata` is not used.
        weights: The whole state, if `model` has only a part of it (several devices).
        name: The name on the Hugging Face Hub that the card shows in its example.
        dtype: Number format in which the file has the weights; None: theirs. Every format is read as fp32.

    Raises:
        ConfigError: The directory cannot be written.
        CheckpointError: A weight is too large for `dtype`, or no number.
    """
    directory = files.output_directory(directory)
    config = ModelFile.of(model, metadata or ModelMetadata())
    if tokenizer is not None:
        with files.atomic_path(directory / TOKENIZER) as temporary:
            temporary.write_bytes(tokenizer)
    whole = model.state_dict() if weights is None else weights
    state = {name: _stored(name, tensor, dtype) for name, tensor in whole.items()}
    write_safetensors(state, directory / WEIGHTS, hashes.header(state, tokenizer))
    files.write_text(directory / CARD, card(config, sum(p.numel() for p in model.parameters()), name))
    files.write_json(directory / CONFIG, config.to_dict())  # last: a folder with it is a model directory


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    stored = tensor.detach().cpu().contiguous()
    if dtype is None or not stored.is_floating_point():
        return stored
    converted = stored.to(dtype)
    if not converted.isfinite().all():
        raise CheckpointError(f"{name} has numbers that {str(dtype).removeprefix('torch.')} cannot represent")
    return converted


def save(model: AVHubert | Recognizer, directory: str | Path) -> None:
    """Write a model with its metadata, and a recognizer with its tokenizer, as a directory that `load` reads.

    Raises:
        ConfigError: The recognizer has no tokenizer, or the directory cannot be written.
    """
    if isinstance(model, AVHubert):
        save_model(directory, model, metadata=model.metadata)
        return
    save_model(directory, model, model.require_tokenizer("saved").serialized, model.metadata)


def load_model(directory: str | Path) -> AVHubert | Recognizer:
    """The model of a model directory with its metadata, on the CPU and in evaluation mode, without a tokenizer.

    Raises:
        CheckpointError: Not a model directory, missing or unknown keys, tensors of other names or shapes, or a file
            that differs from the one that was saved.
    """
    directory = Path(directory)
    config = read_config(directory)
    path = directory / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{directory} has a {CONFIG} but no {WEIGHTS}: copy the whole model directory again")
    if problem := placeholder_message(path):
        raise CheckpointError(problem, path=path)
    try:
        state = load_file(path)
        saved = _metadata(path)
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): copy it again") from error
    with ThreadPoolExecutor(1) as pool:  # the hash takes about as long as the copy
        digest = pool.submit(hashes.of_tensors, state)
        try:
            model = _build(config)
            _fill(model, state, path)
        finally:  # damage is the cause of other errors
            if saved.get(hashes.TENSORS, digest.result()) != digest.result():
                raise CheckpointError(f"{path} is damaged: its numbers are not those that were saved; copy it again")
    model.metadata = config.metadata
    return model.eval()


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def check_tokenizer(directory: Path, tokenizer: bytes) -> None:
    """CheckpointError if the weights in a model directory were saved with another tokenizer."""
    saved = _metadata(directory / WEIGHTS).get(hashes.TOKENIZER)
    if saved is not None and hashes.of_bytes(tokenizer) != saved:
        raise CheckpointError(
            f"{directory / TOKENIZER} is damaged, or not the tokenizer that was saved with {WEIGHTS}; copy the whole "
            "model directory again"
        )


def _build(config: ModelFile) -> AVHubert | Recognizer:
    try:
        with empty_weights():
            if config.decoder is None:
                return AVHubert(config.model)
            recognizer = Recognizer.from_config(config.model, config.decoder)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    assert config.decode is not None
    recognizer.decode_settings = config.decode
    return recognizer


def _fill(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    for what, names in (("lacks", expected.keys() - state.keys()), ("has the unknown", state.keys() - expected.keys())):
        if names:
            raise CheckpointError(
                f"{path} {what} tensor {list_names(sorted(names), quoted=True)}: it is not of this {CONFIG}"
            )
    for name, tensor in expected.items():
        if tensor.shape != state[name].shape:
            raise CheckpointError(
                f"{path}: {name} is {list(state[name].shape)}, {CONFIG} asks for {list(tensor.shape)}:"
                " they do not belong together"
            )
    fill_weights(model, state)
