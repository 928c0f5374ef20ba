"""Published AV-HuBERT checkpoints (`.pt`, fairseq's layout), both ways, with neither fairseq nor omegaconf installed.

`module_names` is the one table between our tensor names and the published ones, read in both directions. It is strict:
a tensor that it does not know, or that the file lacks, is an error that names it. Tensors that a recognizer has no use
for (JUNK, UNUSED_IN_RECOGNIZERS) are listed here by name; the ones that a published file needs are kept beside the
converted model in KEPT, with the original's configuration, for the way back.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from avhubert.checkpoints.directory import save_model
from avhubert.checkpoints.fairseq.config import (
    PublishedSettings,
    read_dictionary_object,
    read_tokenizer_bytes,
    to_plain,
)
from avhubert.checkpoints.fairseq.names import (
    ENCODER,
    JUNK,
    UNUSED_IN_RECOGNIZERS,
    module_names,
    published_name,
    quoted_names,
)
from avhubert.checkpoints.torchfile import TensorRecord, TorchFile
from avhubert.config.schema import DecoderConfig, ModelConfig
from avhubert.data.tokenizer import Tokenizer
from avhubert.errors import CheckpointError, ConfigError, DataError
from avhubert.files import atomic_directory, output_directory
from avhubert.model.encoder import AVHubert
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer

KEPT = "published.safetensors"  # beside a converted model: what the way back needs and our model does not


SHARING = 4  # tensors may share numbers in a file (tied weights); ours do not: at most this many times the file's size


# --------------------------------------------------------------------------- reading
@dataclass
class Published:
    """A published checkpoint: our configurations, tensors by published name, and what stands around them."""

    path: Path
    model: ModelConfig
    decoder: DecoderConfig | None  # None: a pre-trained model
    tensors: dict[str, Tensor]
    cfg: dict[str, Any]  # plain dicts, lists and scalars
    dictionaries: list[dict[str, Any]]  # of the clusters: symbols and counts
    words: dict[str, Any] | None  # dictionary of the tokens
    tokenizer: bytes | None
    notes: list[str] = field(default_factory=list)  # what was assumed

    @property
    def prefix(self) -> str:
        """Where the encoder's names begin."""
        return "" if self.decoder is None else ENCODER


def read(path: str | Path) -> Published:
    """Read a published `.pt`; nothing in it is executed.

    Raises CheckpointError in one sentence: not such a file, damaged, or naming something that no published checkpoint
    needs.
    """
    file = TorchFile(path)
    content = file.content
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CheckpointError(f"{path} is not a published AV-HuBERT checkpoint: it has no state dict under 'model'")
    records = content["model"]
    wrong = [
        name if isinstance(name, str) else f"a key of type {type(name).__name__}"
        for name, record in records.items()
        if not isinstance(record, TensorRecord) or not isinstance(name, str)
    ]
    if wrong:
        raise CheckpointError(f"{path}: under 'model' there is something that is not a tensor: {quoted_names(wrong)}")
    lengths = (math.prod(record.size) * record.storage.dtype.itemsize for record in records.values())
    if sum(min(length, file.length) for length in lengths) > SHARING * file.length:
        raise CheckpointError(f"{path} is refused: its tensors share their numbers, and are too large without that")
    cfg = to_plain(content.get("cfg") or content.get("args") or {}, path)
    if not isinstance(cfg, dict):
        raise CheckpointError(f"{path}: its configuration is not made of keys and values")
    sizes = {name: record.size for name, record in records.items()}
    state = content.get("task_state")
    state = state if isinstance(state, dict) else {}
    listed = state.get("dictionaries")
    dictionaries = [read_dictionary_object(item, path) for item in (listed if isinstance(listed, list) else [])]
    words = read_dictionary_object(state["target_dictionary"], path) if state.get("target_dictionary") else None
    notes: list[str] = []
    recognizer = any(name.startswith(ENCODER) for name in sizes)
    settings = PublishedSettings(cfg, sizes, recognizer, notes, Path(path))
    model, decoder = settings.encoder([len(item["symbols"]) for item in dictionaries]), settings.decoder()
    tensors = {name: file.tensor(record) for name, record in records.items()}
    return Published(Path(path), model, decoder, tensors, cfg, dictionaries, words, read_tokenizer_bytes(state), notes)


def load(path: str | Path) -> AVHubert | Recognizer:
    """The model of a published `.pt` in evaluation mode; a recognizer with `.tokenizer` where the file has one.

    Raises CheckpointError: see `read`; a tensor that is missing or left over, or has another shape, is named.
    """
    return build(read(path))


def build(published: Published) -> AVHubert | Recognizer:
    """The model of what `read` gave, in evaluation mode."""
    path = published.path
    model = _without_numbers(published)
    table = module_names(published.model, published.decoder)
    ours = {name: published_name(name, table) for name in model.state_dict()}
    missing = [theirs for name, theirs in ours.items() if theirs not in published.tensors]
    left_over = [name for name in published.tensors if name not in ours.values() and name not in _unused(published)]
    for what, names in (("lacks", missing), ("has the unknown", left_over)):
        if names:
            raise CheckpointError(
                f"{path} {what} tensor{'s' * (len(names) > 1)} {quoted_names(names)}: "
                "it is not a model that this package knows"
            )
    expected = model.state_dict()
    for name, theirs in ours.items():
        if published.tensors[str(theirs)].shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {theirs} is {list(published.tensors[str(theirs)].shape)}, "
                f"its configuration asks for {list(expected[name].shape)}"
            )
    model.to_empty(device="cpu")  # in our dtypes and memory formats, which assigned tensors would not have
    model.load_state_dict({name: published.tensors[str(theirs)] for name, theirs in ours.items()})
    model.metadata = metadata(published)
    if isinstance(model, Recognizer) and published.tokenizer is not None:
        model.tokenizer = _checked_tokenizer(published)
    return model.eval()


def _without_numbers(published: Published) -> AVHubert | Recognizer:
    """The model on the meta device: a configuration may ask for any size, only the file's tensors take memory."""
    path, config, decoder = published.path, published.model, published.decoder
    parts = config.encoder_layers + sum(config.visual_blocks) + (decoder.layers if decoder else 0)
    if parts > len(published.tensors):
        raise CheckpointError(f"{path}: its configuration asks for {parts} layers and blocks; its tensors are fewer")
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return AVHubert(config) if decoder is None else Recognizer.from_config(config, decoder)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (RuntimeError, TypeError, OverflowError) as error:  # of torch, for sizes beyond 64 bits
        raise CheckpointError(f"{path}: its configuration asks for impossible sizes") from error


def metadata(published: Published) -> ModelMetadata:
    """The metadata of a converted model."""
    task = published.cfg.get("task")
    streams = task.get("modalities") if isinstance(task, dict) else None
    fine_tuned_on = None
    if published.decoder is not None and isinstance(streams, list):
        fine_tuned_on = ", ".join(map(str, streams))
    return ModelMetadata(
        converted_from=published.path.name,
        fine_tuned_on=fine_tuned_on,
        assumed="; ".join(published.notes) or None,
    )


def _unused(published: Published) -> set[str]:
    """Published names that our model has no place for: known, and therefore no left-overs."""
    if published.decoder is None:
        return set()
    return {*JUNK, *(ENCODER + name for name in UNUSED_IN_RECOGNIZERS)}


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


# --------------------------------------------------------------------------- a published file → a model directory
def convert(path: str | Path, directory: str | Path) -> list[str]:
    """Write the model directory of a published `.pt`; returns what was assumed, a sentence each.

    What only the way back needs (see KEPT) lies beside the model. Raises CheckpointError: see `load`; a recognizer
    without a tokenizer, which could write no text. ConfigError: `directory` exists or cannot be written.
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
    kept = {
        name: published.tensors[name].contiguous() for name in sorted(_unused(published)) if name in published.tensors
    }
    around = {"cfg": published.cfg, "dictionaries": published.dictionaries, "words": published.words}
    with atomic_directory(directory) as temporary:
        save_model(temporary, model, published.tokenizer, metadata(published))
        save_file(kept, temporary / KEPT, metadata={"published": json.dumps(around)})
    return published.notes


def refuse_existing(path: str | Path) -> None:
    if Path(path).exists():
        raise ConfigError(f"{path} exists already; choose another place or delete it")
