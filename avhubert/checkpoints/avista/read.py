"""Reads AVista models, AV-HuBERT in the layout of the library transformers, without that library.

Every tensor is accounted for: one that our model does not have, or that the folder lacks, is an error that names it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from torch import Tensor

from avhubert.checkpoints.avista.config import DECODING, Settings, read_preparation
from avhubert.checkpoints.avista.layout import DTYPES, LAYOUT, Layout
from avhubert.checkpoints.avista.names import EMBEDDING, OUTPUT, POSITIONS, module_names, newer_name
from avhubert.checkpoints.avista.tokenizer import TOKENIZER_JSON, ConvertedTokenizer, read_tokenizer
from avhubert.checkpoints.avista.weights import read_weights, weights_file
from avhubert.checkpoints.building import check_tensors, empty_model
from avhubert.checkpoints.config_file import CONFIG
from avhubert.checkpoints.directory import CARD, save_model
from avhubert.checkpoints.fairseq.names import printable_names, published_name
from avhubert.config.schema import DecoderConfig, ModelConfig
from avhubert.encoding import read_text
from avhubert.errors import CheckpointError, DataError
from avhubert.files import atomic_directory, output_directory, refuse_existing
from avhubert.model.decoder import interleaved_sinusoid
from avhubert.model.empty import fill_weights
from avhubert.model.encoder import AVHubert
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer

POSITIONS_TOLERANCE = 1e-3  # between the folder's position table and ours
FRONT_MATTER = "---"  # the line before and after the YAML of a card
LONGEST_FRONT_MATTER = 1 << 16  # characters
# the text files of a folder that the way back needs
TEXT_FILES = (
    *(CONFIG, "generation_config.json", "preprocessor_config.json", "processor_config.json", TOKENIZER_JSON),
    *("tokenizer_config.json", "special_tokens_map.json", CARD),
)


@dataclass(frozen=True)
class Origin:
    """Where a folder came from.

    Attributes:
        source: name on the Hub, or of the folder.
        commit: of the repository on the Hub; None for a folder.
    """

    source: str
    commit: str | None = None


@dataclass
class AvistaModel:
    """The content of a folder.

    Attributes:
        path: the file with the weights.
        model: our configuration of the encoder.
        decoder: our configuration of the decoder; None for a pre-trained model.
        tensors: by name, without those that our model does not have; rows of symbols in our order.
        tokenizer: None for a pre-trained model.
        metadata: of our model.
        dtypes: of each tensor, by its name in the file.
        constants: tensors that our model does not have.
    """

    path: Path
    model: ModelConfig
    decoder: DecoderConfig | None
    tensors: dict[str, Tensor]
    tokenizer: ConvertedTokenizer | None
    metadata: ModelMetadata
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)

    def layout(self) -> Layout:
        """What the way back needs."""
        folder = self.path.parent
        texts = {name: folder / name for name in TEXT_FILES if (folder / name).is_file()}
        files = {name: read_text(path, str(path), guess=False).text for name, path in texts.items()}
        return Layout(self.path.name, self.dtypes, self.constants, files)


# --------------------------------------------------------------------------- a folder → its content
def read(folder: str | Path, origin: Origin | None = None) -> AvistaModel:
    """Read a folder; nothing in it is executed.

    Args:
        folder: the folder.
        origin: where it came from; None: the folder's name.

    Raises:
        CheckpointError: A file is missing, damaged, or asks for what our model does not have.
    """
    folder = Path(folder)
    path = weights_file(folder)
    tensors = read_weights(path)
    _check_dtypes(path, tensors)
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    renamed = {newer_name(name): tensor for name, tensor in tensors.items()}
    if len(renamed) < len(tensors):
        raise CheckpointError(f"{path} has the weights of the position convolution under two names", path=path)
    settings = Settings(folder / CONFIG, renamed)
    model, decoder = settings.encoder(), settings.decoder()
    tokenizer, constants = None, {}
    if decoder is not None:
        tokenizer = read_tokenizer(folder / TOKENIZER_JSON, settings.special_tokens(), decoder.vocab_size)
        if POSITIONS in renamed:
            constants[POSITIONS] = _checked_positions(path, renamed.pop(POSITIONS), model, decoder)
        _arrange_embeddings(path, renamed, decoder, tokenizer.order)
    origin = origin or Origin(folder.resolve().name)
    metadata = ModelMetadata(
        source=origin.source,
        commit=origin.commit,
        license=read_licence(folder / CARD),
        inputs=read_preparation(folder).values(),
    )
    return AvistaModel(path, model, decoder, renamed, tokenizer, metadata, dtypes, constants)


def _check_dtypes(path: Path, tensors: dict[str, Tensor]) -> None:
    wrong = [f"{name} ({tensor.dtype})" for name, tensor in tensors.items() if tensor.dtype not in DTYPES.values()]
    if wrong:
        raise CheckpointError(f"{path}: this version does not read the numbers of {printable_names(wrong)}", path=path)


def _checked_positions(path: Path, table: Tensor, model: ModelConfig, decoder: DecoderConfig) -> Tensor:
    expected = interleaved_sinusoid(torch.arange(len(table) if table.dim() else 0), model.encoder_embed_dim)
    if table.shape != expected.shape or len(table) != decoder.longest_text:
        raise CheckpointError(
            f"{path}: {POSITIONS} is {list(table.shape)}, its configuration asks for "
            f"{[decoder.longest_text, model.encoder_embed_dim]}",
            path=path,
        )
    if not torch.allclose(table.float(), expected, atol=POSITIONS_TOLERANCE):
        raise CheckpointError(f"{path}: {POSITIONS} does not hold sinusoids, and others are not supported", path=path)
    return table


def _arrange_embeddings(path: Path, tensors: dict[str, Tensor], decoder: DecoderConfig, order: tuple[int, ...]) -> None:
    """One tensor for a shared embedding, which a file may have twice or under either name; rows in our order."""
    if decoder.shared_embedding and OUTPUT in tensors:
        output = tensors.pop(OUTPUT)
        if not torch.equal(tensors.setdefault(EMBEDDING, output), output):
            raise CheckpointError(
                f"{path}: {OUTPUT} and {EMBEDDING} differ, but share_decoder_input_output_embed is true in {CONFIG}",
                path=path,
            )
    for name in (EMBEDDING, OUTPUT):
        if name in tensors and tensors[name].dim() and len(tensors[name]) == len(order):
            tensors[name] = tensors[name][torch.tensor(order)]


def read_licence(card: Path) -> str | None:
    """The licence in the first lines (YAML) of a model's card; None if the card does not say."""
    try:
        text = read_text(card, str(card), guess=False).text
    except DataError:
        return None
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != FRONT_MATTER:
        return None
    end = next((number for number, line in enumerate(lines[1:], 1) if line.strip() == FRONT_MATTER), 0)
    block = "\n".join(lines[1:end])
    if not end or len(block) > LONGEST_FRONT_MATTER:
        return None
    try:
        values = yaml.safe_load(block)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    licence = values.get("license") if isinstance(values, dict) else None
    return licence if isinstance(licence, str) else None


# --------------------------------------------------------------------------- a folder → a model
def load(folder: str | Path, origin: Origin | None = None) -> AVHubert | Recognizer:
    """The model of a folder in evaluation mode; a recognizer has its tokenizer.

    Raises:
        CheckpointError: See `read` and `build`.
    """
    return build(read(folder, origin))


def build(content: AvistaModel) -> AVHubert | Recognizer:
    """The model of a folder's content, in evaluation mode.

    Raises:
        CheckpointError: A tensor is missing, unknown, or of another shape.
    """
    model = empty_model(content.path, content.model, content.decoder, len(content.tensors))
    table = module_names(content.model, content.decoder)
    expected = model.state_dict()
    names = {ours: str(published_name(ours, table)) for ours in expected}
    check_tensors(content.path, content.tensors, names, expected)
    integers = [
        theirs
        for ours, theirs in names.items()
        if content.tensors[theirs].is_floating_point() != expected[ours].is_floating_point()
    ]
    if integers:
        raise CheckpointError(
            f"{content.path}: integers and floating-point numbers are mixed up in {printable_names(integers)}",
            path=content.path,
        )
    fill_weights(model, {ours: content.tensors[theirs] for ours, theirs in names.items()})
    model.metadata = content.metadata
    if isinstance(model, Recognizer):
        assert content.tokenizer is not None
        model.tokenizer, model.decode_settings = content.tokenizer.tokenizer, DECODING
    return model.eval()


# --------------------------------------------------------------------------- a folder → a model directory
def convert(folder: str | Path, directory: str | Path, origin: Origin | None = None) -> list[str]:
    """Write the model directory of a folder.

    What only the way back needs is written beside the model: see `layout`.

    Returns:
        What the user should know, a sentence each.

    Raises:
        CheckpointError: See `load`.
        ConfigError: `directory` exists or cannot be written.
    """
    content = read(folder, origin)
    model = build(content)
    refuse_existing(directory)
    output_directory(Path(directory).parent)
    with atomic_directory(directory) as temporary:
        tokenizer = None if content.tokenizer is None else content.tokenizer.tokenizer.serialized
        save_model(temporary, model, tokenizer, model.metadata)
        content.layout().save(temporary / LAYOUT)
    if content.metadata.license is None:
        return [f"the card of {content.metadata.source} names no licence: read its terms before you use the model"]
    return []
