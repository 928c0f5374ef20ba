"""Writes a model directory as a checkpoint in the published format."""

from __future__ import annotations

import json
import pickle
import types
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from avhubert.checkpoints.config_file import ModelFile, read_config
from avhubert.checkpoints.directory import TOKENIZER, load_model
from avhubert.checkpoints.fairseq.config import finetuning_cfg, pretraining_cfg, training_history
from avhubert.checkpoints.fairseq.names import ENCODER, module_names, published_name, quoted_names
from avhubert.checkpoints.fairseq.read import KEPT, refuse_existing
from avhubert.config.schema import ModelConfig
from avhubert.constants import SPECIAL_SYMBOLS
from avhubert.data.tokenizer import Tokenizer
from avhubert.errors import CheckpointError, DataError
from avhubert.files import atomic_path, output_directory


# --------------------------------------------------------------------------- a model directory → a published file
def to_fairseq(directory: str | Path, path: str | Path) -> list[str]:
    """Write a model directory as a published `.pt`, for the original code; returns what does not fit, a sentence each.

    A model that was converted from a `.pt` gets back that file's names, shapes, configuration and dictionaries. One
    that was trained here gets a configuration with the original's keys; a CTC head has no place there: it is left out.

    Raises CheckpointError: not a model directory, damaged. ConfigError: `path` exists or cannot be written.
    """
    directory = Path(directory)
    model = load_model(directory)
    refuse_existing(path)
    config = read_config(directory)
    encoder, decoder = config.model, config.decoder
    table = module_names(encoder, decoder)
    tensors: dict[str, Tensor] = {}
    left_out = []
    for name, tensor in model.state_dict().items():
        theirs = published_name(name, table)
        if theirs is None:
            left_out.append(name)
        else:
            tensors[theirs] = tensor
    tokenizer = _read_tokenizer(directory) if decoder is not None else None
    if (directory / KEPT).is_file():
        kept, around = _read_kept(directory / KEPT)
    else:
        kept, around = _made_here(config, tokenizer)
    dictionaries = [_Dictionary(item) for item in around["dictionaries"]]
    state: dict[str, Any] = {"dictionaries": dictionaries}
    if tokenizer is not None:
        state["target_dictionary"] = _Dictionary(around["words"])
        state["s2s_tokenizer"] = _SentencepieceBPE(tokenizer.serialized)
    content = {
        "args": None, "cfg": around["cfg"], "model": {**tensors, **kept}, "criterion": None,
        "optimizer_history": [training_history(decoder, config.metadata)], "task_state": state,
        "extra_state": {"train_iterator": {"epoch": 1}}, "last_optimizer_state": None,
    }  # fmt: skip
    output_directory(Path(path).parent)
    with atomic_path(path) as temporary:
        torch.save(content, temporary, pickle_module=_PICKLE)
    return _misfits(encoder, left_out)


def _misfits(encoder: ModelConfig, left_out: list[str]) -> list[str]:
    notes = []
    if left_out:
        notes.append(f"left out, for the published layout has no CTC head: {quoted_names(left_out)}")
    fixed = {"visual_width": 64, "visual_blocks": [2, 2, 2, 2]}
    odd = [f"{key}={getattr(encoder, key)}" for key, value in fixed.items() if getattr(encoder, key) != value]
    if odd:
        notes.append(f"the published code cannot build {', '.join(odd)}; only this package reads the file")
    return notes


def _read_tokenizer(directory: Path) -> Tokenizer:
    try:
        return Tokenizer(directory / TOKENIZER)
    except DataError as error:
        raise CheckpointError(f"{directory} is a recognizer without a usable tokenizer: {error}") from error


def _read_kept(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            around = json.loads(file.metadata()["published"])
            return {name: file.get_tensor(name) for name in file.keys()}, around  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); convert the published file again") from error


def _made_here(config: ModelFile, tokenizer: Tokenizer | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, configuration and dictionaries that a published file has around a model that was trained here."""
    encoder, decoder = config.model, config.decoder
    classes = encoder.num_classes or [len(SPECIAL_SYMBOLS)]
    dictionaries = []
    for count in classes:
        symbols = [*SPECIAL_SYMBOLS, *map(str, range(count - len(SPECIAL_SYMBOLS)))]
        dictionaries.append({"symbols": symbols, "count": [1] * count})
    cfg = pretraining_cfg(encoder, config.metadata)
    if decoder is None:
        return {}, {"cfg": cfg, "dictionaries": dictionaries, "words": None}
    assert tokenizer is not None
    masked = encoder.audio_feat_dim if encoder.masking_type == "input" else encoder.encoder_embed_dim
    kept = {  # the original makes them and never reads them
        ENCODER + "mask_emb": torch.zeros(masked),
        ENCODER + "label_embs_concat": torch.zeros(sum(classes), encoder.final_dim),
    }
    words = {"symbols": tokenizer.symbols, "count": [1] * tokenizer.vocab_size}
    around = {
        "cfg": finetuning_cfg(encoder, decoder, config.metadata, cfg),
        "dictionaries": dictionaries,
        "words": words,
    }
    return kept, around


# --------------------------------------------------------------------------- objects of the original, without its code
class _Dictionary:
    """Pickles as the original's dictionary."""

    published = ("fairseq.data.dictionary", "Dictionary")

    def __init__(self, item: dict[str, Any]) -> None:
        self.bos_word, self.pad_word, self.eos_word, self.unk_word = SPECIAL_SYMBOLS
        self.symbols = list(item["symbols"])
        self.count = list(item["count"])
        self.indices = {symbol: index for index, symbol in enumerate(self.symbols)}
        self.bos_index, self.pad_index, self.eos_index, self.unk_index = range(len(SPECIAL_SYMBOLS))
        self.nspecial = len(SPECIAL_SYMBOLS)


class _SentencePieceProcessor:
    """Pickles as sentencepiece's processor does: its state is the serialized model."""

    published = ("sentencepiece", "SentencePieceProcessor")

    def __init__(self, serialized: bytes) -> None:
        self._serialized = serialized

    def __getstate__(self) -> bytes:
        return self._serialized


class _SentencepieceBPE:
    """Pickles as the original's tokenizer."""

    published = ("fairseq.data.encoders.sentencepiece_bpe", "SentencepieceBPE")

    def __init__(self, serialized: bytes) -> None:
        self.sp = _SentencePieceProcessor(serialized)


class _Pickler(pickle._Pickler):
    """Writes the stand-ins under the names of what they stand for; Python's own pickler would import those first."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if obj not in (_Dictionary, _SentencePieceProcessor, _SentencepieceBPE):
            super().save_global(obj, name)  # type: ignore[misc]
            return
        module, qualified = obj.published
        self.write(pickle.GLOBAL + f"{module}\n{qualified}\n".encode())  # type: ignore[attr-defined]
        self.memoize(obj)  # type: ignore[attr-defined]


_PICKLE = types.SimpleNamespace(__name__="avhubert", Pickler=_Pickler)  # as much of a module as torch.save asks for
