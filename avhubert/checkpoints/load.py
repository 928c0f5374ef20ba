"""Loads a model from a model directory, a run directory, a published checkpoint or the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from avhubert.checkpoints import builtin, hub
from avhubert.checkpoints.avista import read as avista
from avhubert.checkpoints.avista.config import read_preparation as avista_preparation
from avhubert.checkpoints.avista.weights import SAFETENSORS, TORCH
from avhubert.checkpoints.config_file import read_config
from avhubert.checkpoints.directory import TOKENIZER, check_tokenizer, load_model
from avhubert.checkpoints.fairseq import read as fairseq
from avhubert.checkpoints.kinds import WHAT_TO_GIVE, Kind, kind_of
from avhubert.config.input_preparation import PUBLISHED, InputPreparation
from avhubert.data.tokenizer import Tokenizer
from avhubert.devices import resolve_device, resolve_precision
from avhubert.errors import CheckpointError, DataError
from avhubert.files import sha256
from avhubert.model.encoder import AVHubert
from avhubert.model.recognizer import Recognizer


def load(
    source: str | Path, device: str | torch.device = "cpu", dtype: str | torch.dtype | None = None
) -> AVHubert | Recognizer:
    """A model in evaluation mode; a recognizer comes with `.tokenizer` and `.decode_settings`.

    Args:
        source: a model directory, a run directory (its newest weights), a published checkpoint, an AVista folder,
            "org/name" or "org/name@revision" of the Hugging Face Hub (extra `hub`; from its cache without internet), or
            "builtin", the small model inside the package. A path on this disk takes precedence over a name on the Hub.
            `.metadata` describes the model's origin.
        device: cpu, cuda, cuda:N, mps, or auto (a GPU if there is one).
        dtype: number format of the weights (fp32, bf16, fp16 or a torch dtype); None: fp32. The functions that take
            `precision` keep fp32 weights and lower the precision of the products only, which is more accurate.

    Raises:
        CheckpointError: `source` is none of these, damaged, or cannot be fetched.
        ConfigError: the device is not on this machine, or does not have the number format.
    """
    target = resolve_device(device)
    chosen = dtype if isinstance(dtype, torch.dtype) else None if dtype is None else resolve_precision(dtype, target)
    return _load(source).to(target, chosen)


def _load(source: str | Path) -> AVHubert | Recognizer:
    if not isinstance(source, (str, Path)) or not str(source):
        raise CheckpointError(f"{source!r} is not the name of a model; {WHAT_TO_GIVE}")
    builtin.log_use(source)
    path, origin = locate(source)
    kind = kind_of(path, source)
    if kind is Kind.FAIRSEQ:
        return fairseq.load(path)
    if kind is Kind.AVISTA:
        return avista.load(path, origin)
    model = load_model(path)
    if isinstance(model, Recognizer):
        model.tokenizer = _tokenizer(path, model.decoder_config.vocab_size)
    return model


def locate(source: str | Path) -> tuple[Path, avista.Origin | None]:
    """The file or folder of a model, which is fetched if it is a name on the Hub, and where it came from.

    `builtin` is the folder of the model inside the package.

    Raises:
        CheckpointError: It cannot be fetched.
    """
    path = Path(builtin.resolve(source))
    if path.exists() or not hub.is_name(source):
        return path, None
    path = hub.fetch(str(source))
    return path, avista.Origin(hub.repository(str(source)), path.name)


def read_preparation(source: str | Path) -> InputPreparation:
    """How the inputs of a model are made, without loading its weights.

    Raises:
        CheckpointError: See `load`.
    """
    path, _ = locate(source)
    kind = kind_of(path, source)
    if kind is Kind.FAIRSEQ:
        return PUBLISHED
    return avista_preparation(path) if kind is Kind.AVISTA else read_config(path).metadata.preparation()


def weights_hash(source: str | Path) -> str | None:
    """SHA-256 of a checkpoint file or of the weights in a folder; None if neither is on this disk."""
    path = Path(builtin.resolve(source))
    for file in (path / SAFETENSORS, path / TORCH, path):
        if file.is_file():
            return sha256(file)
    return None


def _tokenizer(path: Path, vocab_size: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer(path / TOKENIZER)
    except DataError as error:
        raise CheckpointError(f"{path} is a recognizer without a usable tokenizer: {error}") from error
    if tokenizer.vocab_size != vocab_size:
        raise CheckpointError(
            f"{path}: its tokenizer has {tokenizer.vocab_size} symbols, its decoder {vocab_size}: they do not belong "
            "together; copy the whole model directory again"
        )
    check_tokenizer(path, tokenizer.serialized)
    return tokenizer


def load_recognizer(source: str | Path | AVHubert | Recognizer) -> Recognizer:
    """A recognizer: the given one, or the one that `load` reads. CheckpointError for a pre-trained model."""
    model = source if isinstance(source, (AVHubert, Recognizer)) else load(source)
    if not isinstance(model, Recognizer):
        name = "the model" if isinstance(source, AVHubert) else source
        raise CheckpointError(
            f"{name} is a pre-trained model without a decoder, and a recognizer is needed; fine-tune it first "
            "(`avhubert finetune`) and give the result"
        )
    return model


def load_encoder(source: str | Path) -> AVHubert:
    """A pre-trained model, read with `load`. CheckpointError for a fine-tuned one."""
    model = load(source)
    if not isinstance(model, AVHubert):
        raise CheckpointError(
            f"{source} is a fine-tuned recognizer, and a pre-trained model is needed; "
            "give the one that it was fine-tuned from"
        )
    return model


def describe(source: str | Path | AVHubert | Recognizer) -> dict[str, Any]:
    """The sizes, decoding settings and metadata of a model: name to value, the kind first."""
    model = load(source) if isinstance(source, (str, Path)) else source
    encoder = model.encoder if isinstance(model, Recognizer) else model
    config = encoder.config
    properties: dict[str, Any] = {
        "kind": "recognizer" if isinstance(model, Recognizer) else "pre-trained model",
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "encoder": f"{config.encoder_layers} layers of {config.encoder_embed_dim}",
        "attention heads": config.encoder_attention_heads,
        "visual front end": f"width {config.visual_width}, blocks {config.visual_blocks}",
    }
    if isinstance(model, Recognizer):
        settings = model.decode_settings
        properties["decoder"] = f"{model.decoder_config.layers} layers, {model.decoder_config.vocab_size} symbols"
        properties["CTC head"] = "yes" if model.ctc is not None else "no"
        properties["decoding"] = f"beam {settings.beam}, length penalty {settings.lenpen:g}"
    elif config.num_classes:
        properties["classes"] = ", ".join(map(str, config.num_classes))
    return properties | {name: value for name, value in model.metadata.to_dict().items() if value not in ({}, [], None)}
