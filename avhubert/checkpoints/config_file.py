"""`config.json` of a model directory: what it holds, and how it is read and written."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from avhubert import files
from avhubert.config.schema import DecodeConfig, DecoderConfig, ModelConfig
from avhubert.config.validate import from_dict, to_dict
from avhubert.errors import CheckpointError, ConfigError, DataError, list_names
from avhubert.model.encoder import AVHubert
from avhubert.model.metadata import ModelMetadata
from avhubert.model.recognizer import Recognizer

S = TypeVar("S", ModelConfig, DecoderConfig, DecodeConfig)

CONFIG = "config.json"
FORMAT = 1
# keys of later versions: a file without one means its default, and one with its default is not written, so that models
# that do not use it stay readable by earlier versions
LATER_KEYS: dict[type, tuple[str, ...]] = {
    DecoderConfig: ("activation", "positions", "start", "shared_embedding", "longest_text"),
    DecodeConfig: ("stop",),
}


@dataclass(frozen=True)
class ModelFile:
    """The content of `config.json`; `decoder` and `decode` are None for a pre-trained model."""

    model: ModelConfig
    decoder: DecoderConfig | None
    decode: DecodeConfig | None
    metadata: ModelMetadata

    @classmethod
    def of(cls, model: AVHubert | Recognizer, metadata: ModelMetadata) -> ModelFile:
        """The description of `model`, with `metadata` in place of its own."""
        if isinstance(model, Recognizer):
            return cls(_model_config(model.encoder.config), model.decoder_config, model.decode_settings, metadata)
        return cls(_model_config(model.config), None, None, metadata)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        sections = {"model": self.model, "decoder": self.decoder, "decode": self.decode}
        plain = {name: section_values(section) for name, section in sections.items() if section is not None}
        return {"format": FORMAT, **plain, "metadata": self.metadata.to_dict()}


def section_values(section: Any) -> dict[str, Any]:
    """The values of a section of the file."""
    default = type(section)()
    later = LATER_KEYS.get(type(section), ())
    return {key: value for key, value in to_dict(section).items() if key not in later or value != getattr(default, key)}


def read_config(directory: str | Path) -> ModelFile:
    """Read `config.json` of a model directory.

    Raises:
        CheckpointError: It is missing, has another format, unknown or missing keys, or values of wrong types.
    """
    path = Path(directory) / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{directory} is not a model directory: it has no {CONFIG}")
    try:
        content = files.read_json(path)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(content, dict) or "format" not in content:
        raise CheckpointError(f"{path} is not of a model directory: it has no 'format'")
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {content['format']}, this version reads format {FORMAT}: use the version that wrote it"
        )
    recognizer = "decoder" in content
    known = {"format", "model", "metadata", *(("decoder", "decode") if recognizer else ())}
    unknown = sorted(set(content) - known)
    if unknown:
        raise CheckpointError(f"{path}: unknown key {list_names(unknown, quoted=True)}")
    return ModelFile(
        model=_section(content, "model", ModelConfig, path),
        decoder=_section(content, "decoder", DecoderConfig, path) if recognizer else None,
        decode=_section(content, "decode", DecodeConfig, path) if recognizer else None,
        metadata=_metadata(content, path),
    )


def _section(content: dict[str, Any], name: str, schema: type[S], path: Path) -> S:
    given = content.get(name)
    if not isinstance(given, dict):
        raise CheckpointError(f"{path}: the key '{name}' is missing")
    required = (field.name for field in dataclasses.fields(schema) if field.name not in LATER_KEYS.get(schema, ()))
    missing = [name for name in required if name not in given]
    if missing and schema is not DecodeConfig:  # newer decoding settings have defaults
        raise CheckpointError(f"{path}: under '{name}' the key {list_names(missing, quoted=True)} is missing")
    try:
        section: S = from_dict(schema, given, source=str(path), prefix=f"{name}.")
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    return section


def _metadata(content: dict[str, Any], path: Path) -> ModelMetadata:
    values = content.get("metadata", {})
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: the key 'metadata' does not hold names and values")
    try:
        return ModelMetadata.from_dict(values)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _model_config(config: ModelConfig) -> ModelConfig:
    """`config` without what a subclass adds (pre-training's `pretrained`)."""
    return ModelConfig(**{field.name: getattr(config, field.name) for field in dataclasses.fields(ModelConfig)})
