"""Writes a model directory as a published checkpoint (`.pt`), for the original code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avhubert.checkpoints import builtin
from avhubert.checkpoints.config_file import LATER_KEYS, ModelFile, read_config
from avhubert.checkpoints.directory import TOKENIZER, load_model
from avhubert.checkpoints.fairseq.config import finetuning_cfg, pretraining_cfg, training_history
from avhubert.checkpoints.fairseq.extras import EXTRAS, Dictionary, Extras
from avhubert.checkpoints.fairseq.names import ENCODER, module_names, printable_names, published_name
from avhubert.checkpoints.fairseq.objects import PICKLE_MODULE, PickledDictionary, PickledTokenizer
from avhubert.checkpoints.writing import write_archive
from avhubert.config.schema import DecoderConfig, ModelConfig
from avhubert.constants import SPECIAL_SYMBOLS
from avhubert.data.tokenizer import Tokenizer
from avhubert.errors import CheckpointError, DataError
from avhubert.files import atomic_path, output_directory, refuse_existing

ORIGINAL_SIZES = {"visual_width": 64, "visual_blocks": [2, 2, 2, 2]}  # fixed in the original code


def to_fairseq(directory: str | Path, path: str | Path) -> list[str]:
    """Write a model directory as a published checkpoint.

    A model that was converted from a checkpoint gets back the names, shapes, configuration and dictionaries of that
    file. A model of this package gets a configuration with the original's keys. A CTC head is left out.

    Returns:
        What the original code cannot represent, a sentence each.

    Raises:
        CheckpointError: Not a model directory, or a damaged one.
        ConfigError: `path` exists or cannot be written.
    """
    directory = Path(builtin.resolve(directory))
    model = load_model(directory)
    refuse_existing(path)
    config = read_config(directory)
    _check_decoder(directory, config.decoder)
    table = module_names(config.model, config.decoder)
    state = model.state_dict()
    published = {name: published_name(name, table) for name in state}
    tensors = {theirs: state[ours] for ours, theirs in published.items() if theirs is not None}
    tokenizer = _read_tokenizer(directory) if config.decoder is not None else None
    if (directory / EXTRAS).is_file():
        extras = Extras.load(directory / EXTRAS)
    else:
        extras = _new_extras(config, tokenizer)
    content = _content(config, tensors, extras, tokenizer)
    output_directory(Path(path).parent)
    with atomic_path(path) as temporary:
        write_archive(content, temporary, PICKLE_MODULE)
    return _notes(config.model, [ours for ours, theirs in published.items() if theirs is None])


def _check_decoder(directory: Path, decoder: DecoderConfig | None) -> None:
    """CheckpointError if the original code cannot build the decoder."""
    if decoder is None:
        return
    options = [key for key in LATER_KEYS[DecoderConfig] if getattr(decoder, key) != getattr(DecoderConfig(), key)]
    if options:
        raise CheckpointError(
            f"{directory}: the published format has no decoder with "
            + ", ".join(f"{key}={getattr(decoder, key)}" for key in options)
        )


def _content(
    config: ModelFile, tensors: dict[str, Tensor], extras: Extras, tokenizer: Tokenizer | None
) -> dict[str, Any]:
    """The object of the checkpoint."""
    state: dict[str, Any] = {"dictionaries": [PickledDictionary(dictionary) for dictionary in extras.dictionaries]}
    if tokenizer is not None:
        assert extras.words is not None
        state["target_dictionary"] = PickledDictionary(extras.words)
        state["s2s_tokenizer"] = PickledTokenizer(tokenizer.serialized)
    return {
        "args": None, "cfg": extras.cfg, "model": {**tensors, **extras.tensors}, "criterion": None,
        "optimizer_history": [training_history(config.decoder, config.metadata)], "task_state": state,
        "extra_state": {"train_iterator": {"epoch": 1}}, "last_optimizer_state": None,
    }  # fmt: skip


def _notes(encoder: ModelConfig, left_out: list[str]) -> list[str]:
    notes = []
    if left_out:
        notes.append(f"left out, for the published layout has no CTC head: {printable_names(left_out)}")
    other_sizes = [
        f"{key}={getattr(encoder, key)}" for key, value in ORIGINAL_SIZES.items() if getattr(encoder, key) != value
    ]
    if other_sizes:
        notes.append(f"the published code cannot build {', '.join(other_sizes)}; only this package reads the file")
    return notes


def _read_tokenizer(directory: Path) -> Tokenizer:
    try:
        return Tokenizer(directory / TOKENIZER)
    except DataError as error:
        raise CheckpointError(f"{directory} is a recognizer without a usable tokenizer: {error}") from error


def _new_extras(config: ModelFile, tokenizer: Tokenizer | None) -> Extras:
    """The extras of a model that was trained by this package."""
    encoder, decoder = config.model, config.decoder
    classes = encoder.num_classes or [len(SPECIAL_SYMBOLS)]
    dictionaries: list[Dictionary] = []
    for count in classes:
        symbols = [*SPECIAL_SYMBOLS, *map(str, range(count - len(SPECIAL_SYMBOLS)))]
        dictionaries.append({"symbols": symbols, "count": [1] * count})
    cfg = pretraining_cfg(encoder, config.metadata)
    if decoder is None:
        return Extras({}, cfg, dictionaries, None)
    assert tokenizer is not None
    masked_width = encoder.audio_feat_dim if encoder.masking_type == "input" else encoder.encoder_embed_dim
    tensors = {  # the original expects them and never uses them
        ENCODER + "mask_emb": torch.zeros(masked_width),
        ENCODER + "label_embs_concat": torch.zeros(sum(classes), encoder.final_dim),
    }
    words: Dictionary = {"symbols": tokenizer.symbols, "count": [1] * tokenizer.vocab_size}
    return Extras(tensors, finetuning_cfg(encoder, decoder, config.metadata, cfg), dictionaries, words)
