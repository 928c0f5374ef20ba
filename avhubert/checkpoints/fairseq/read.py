"""Reads published AV-HuBERT checkpoints (`.pt`, fairseq's layout) without fairseq and omegaconf.

The table of `names` is strict: a tensor that it does not know, or that the file lacks, is an error that names it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from avhubert.checkpoints.building import check_tensors, empty_model
from avhubert.checkpoints.directory import save_model
from avhubert.checkpoints.fairseq.config import PublishedSettings
from avhubert.checkpoints.fairseq.extras import EXTRAS, Dictionary, Extras
from avhubert.checkpoints.fairseq.names import (
    ENCODER,
    NOT_LEARNED,
    PRETRAINING_ONLY,
    module_names,
    printable_names,
    published_name,
    without_wrappers,
)
from avhubert.checkpoints.fairseq.objects import read_dictionary, read_tokenizer, to_plain
from avhubert.checkpoints.pickles import TensorRecord
from avhubert.checkpoints.torchfile import TorchFile
from avhubert.config.schema import DecoderConfig, ModelConfig
from avhubert.data.tokenizer import Tokenizer
from avhubert.errors import CheckpointError, DataError
from avhubert.files import atomic_directory, output_directory, refuse_existing
from avhubert.model.empty import fill_weights
from avhubert.model.encoder import AVHubert
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer

# tied weights share their numbers in a file, those of our models do not: the tensors may have at most this many times
# the bytes of the file
MAX_SHARING = 4


@dataclass
class Published:
    """The content of a published checkpoint.

    Attributes:
        path: The file.
        model: Our configuration of the encoder.
        decoder: Our configuration of the decoder; None for a pre-trained model.
        tensors: By published name.
        cfg: The published configuration as dicts, lists and scalars.
        dictionaries: Of the cluster labels.
        words: Of the tokens; None if there is none.
        tokenizer: The serialized SentencePiece model; None if there is none.
        notes: Settings that were assumed, a sentence each.
    """

    path: Path
    model: ModelConfig
    decoder: DecoderConfig | None
    tensors: dict[str, Tensor]
    cfg: dict[str, Any]
    dictionaries: list[Dictionary]
    words: Dictionary | None
    tokenizer: bytes | None
    notes: list[str] = field(default_factory=list)

    def unused(self) -> set[str]:
        """Published names of tensors that our model does not have."""
        if self.decoder is None:
            return set()
        return {*NOT_LEARNED, *(ENCODER + name for name in PRETRAINING_ONLY)}

    def metadata(self) -> ModelMetadata:
        """The metadata of the converted model."""
        task = self.cfg.get("task")
        streams = task.get("modalities") if isinstance(task, dict) else None
        fine_tuned_on = None
        if self.decoder is not None and isinstance(streams, list):
            fine_tuned_on = ", ".join(map(str, streams))
        return ModelMetadata(
            converted_from=self.path.name,
            fine_tuned_on=fine_tuned_on,
            assumed="; ".join(self.notes) or None,
        )


# --------------------------------------------------------------------------- a checkpoint → its content
def read(path: str | Path) -> Published:
    """Read a published checkpoint; nothing in it is executed.

    Raises:
        CheckpointError: Not a published checkpoint, damaged, or naming a Python object that none of them needs.
    """
    path = Path(path)
    file = TorchFile(path)
    content = file.content
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CheckpointError(f"{path} is not a published AV-HuBERT checkpoint: it has no state dict under 'model'")
    _check_records(content["model"], file)
    records = {without_wrappers(name): record for name, record in content["model"].items()}
    if len(records) < len(content["model"]):
        raise CheckpointError(f"{path}: two tensors have the same name apart from 'module.' and '_orig_mod.'")
    cfg = to_plain(content.get("cfg") or content.get("args") or {}, path)
    if not isinstance(cfg, dict):
        raise CheckpointError(f"{path}: its configuration is not made of keys and values")
    shapes = {name: record.size for name, record in records.items()}
    state = content.get("task_state")
    state = state if isinstance(state, dict) else {}
    items = state.get("dictionaries")
    dictionaries = [read_dictionary(item, path) for item in (items if isinstance(items, list) else [])]
    words = read_dictionary(state["target_dictionary"], path) if state.get("target_dictionary") else None
    notes: list[str] = []
    recognizer = any(name.startswith(ENCODER) for name in shapes)
    settings = PublishedSettings(cfg, shapes, recognizer, notes, path)
    model = settings.encoder([len(dictionary["symbols"]) for dictionary in dictionaries])
    decoder = settings.decoder()
    tensors = {name: file.tensor(record) for name, record in records.items()}
    return Published(path, model, decoder, tensors, cfg, dictionaries, words, read_tokenizer(state), notes)


def _check_records(records: dict[Any, Any], file: TorchFile) -> None:
    """CheckpointError unless all are tensors with names, and not larger than the file can hold."""
    wrong = [
        name if isinstance(name, str) else f"a key of type {type(name).__name__}"
        for name, record in records.items()
        if not isinstance(record, TensorRecord) or not isinstance(name, str)
    ]
    if wrong:
        raise CheckpointError(
            f"{file.path}: under 'model' there is something that is not a tensor: {printable_names(wrong)}"
        )
    lengths = (math.prod(record.size) * record.storage.dtype.itemsize for record in records.values())
    if sum(min(length, file.length) for length in lengths) > MAX_SHARING * file.length:
        raise CheckpointError(
            f"{file.path} is refused: its tensors share their numbers, and are too large without that"
        )


# --------------------------------------------------------------------------- a checkpoint → a model
def load(path: str | Path) -> AVHubert | Recognizer:
    """The model of a published checkpoint in evaluation mode; a recognizer has its tokenizer if the file has one.

    Raises:
        CheckpointError: See `read` and `build`.
    """
    return build(read(path))


def build(published: Published) -> AVHubert | Recognizer:
    """The model of a checkpoint's content, in evaluation mode.

    Raises:
        CheckpointError: A tensor is missing, unknown or of another shape; the tokenizer does not fit the decoder.
    """
    model = empty_model(published.path, published.model, published.decoder, len(published.tensors))
    table = module_names(published.model, published.decoder)
    names = {ours: str(published_name(ours, table)) for ours in model.state_dict()}
    check_tensors(published.path, published.tensors, names, model.state_dict(), published.unused())
    fill_weights(model, {ours: published.tensors[theirs] for ours, theirs in names.items()})
    model.metadata = published.metadata()
    if isinstance(model, Recognizer) and published.tokenizer is not None:
        model.tokenizer = _checked_tokenizer(published)
    return model.eval()


def _checked_tokenizer(published: Published) -> Tokenizer:
    assert published.tokenizer is not None
    assert published.decoder is not None
    try:
        tokenizer = Tokenizer(published.tokenizer)
    except DataError as error:
        raise CheckpointError(f"{published.path}: {error}") from error
    symbols = published.words["symbols"] if published.words else tokenizer.symbols
    if symbols != tokenizer.symbols or len(symbols) != published.decoder.vocab_size:
        raise CheckpointError(
            f"{published.path}: its tokenizer has {tokenizer.vocab_size} symbols, its dictionary {len(symbols)} and "
            f"its decoder {published.decoder.vocab_size}, or in another order: they do not belong together"
        )
    return tokenizer


# --------------------------------------------------------------------------- a checkpoint → a model directory
def convert(path: str | Path, directory: str | Path) -> list[str]:
    """Write the model directory of a published checkpoint.

    What only the way back needs is written beside the model: see `extras`.

    Returns:
        Settings that were assumed, a sentence each.

    Raises:
        CheckpointError: See `load`; or a recognizer without a tokenizer, which cannot write text.
        ConfigError: `directory` exists or cannot be written.
    """
    if Path(path).is_dir():
        raise CheckpointError(
            f"{path} is a folder, not a published checkpoint (.pt); --to-fairseq makes one of a model directory"
        )
    published = read(path)
    model = build(published)
    if published.decoder is not None and published.tokenizer is None:
        raise CheckpointError(f"{path} is a recognizer without its tokenizer, so its output cannot become text")
    refuse_existing(directory)
    output_directory(Path(directory).parent)
    unused = sorted(published.unused() & published.tensors.keys())
    tensors = {name: published.tensors[name].contiguous() for name in unused}
    extras = Extras(tensors, published.cfg, published.dictionaries, published.words)
    with atomic_directory(directory) as temporary:
        save_model(temporary, model, published.tokenizer, model.metadata)
        extras.save(temporary / EXTRAS)
    return published.notes
