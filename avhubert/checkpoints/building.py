"""Builds the model of a foreign checkpoint: on the meta device first, then with tensors that have been checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from avhubert.checkpoints.fairseq.names import printable_names
from avhubert.config.schema import DecoderConfig, ModelConfig
from avhubert.errors import CheckpointError, ConfigError
from avhubert.model.empty import empty_weights
from avhubert.model.encoder import AVHubert
from avhubert.model.recognizer import Recognizer


def empty_model(path: Path, config: ModelConfig, decoder: DecoderConfig | None, tensors: int) -> AVHubert | Recognizer:
    """The model on the meta device, so that a configuration of huge sizes takes no memory.

    Args:
        path: the checkpoint, for messages.
        config: of the encoder.
        decoder: of the decoder; None for a pre-trained model.
        tensors: number of tensors of the checkpoint.

    Raises:
        CheckpointError: the sizes do not match, or are impossible.
    """
    layers = config.encoder_layers + sum(config.visual_blocks) + (decoder.layers if decoder else 0)
    if layers > tensors:
        raise CheckpointError(f"{path}: its configuration asks for {layers} layers and blocks; its tensors are fewer")
    try:
        with empty_weights():
            return AVHubert(config) if decoder is None else Recognizer.from_config(config, decoder)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (RuntimeError, TypeError, OverflowError) as error:  # torch's, for sizes beyond 64 bits
        raise CheckpointError(f"{path}: its configuration asks for impossible sizes") from error


def check_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    names: Mapping[str, str],
    expected: Mapping[str, Tensor],
    unused: Collection[str] = (),
) -> None:
    """Check the names and shapes of a checkpoint's tensors.

    Args:
        path: the checkpoint, for messages.
        tensors: by the checkpoint's names.
        names: the checkpoint's name of each of our tensors.
        expected: our tensors, of the right shapes.
        unused: names of the checkpoint that our model does not need.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape.
    """
    missing = [theirs for theirs in names.values() if theirs not in tensors]
    known = {*names.values(), *unused}
    unknown = [name for name in tensors if name not in known]
    for problem, wrong in (("lacks", missing), ("has the unknown", unknown)):
        if wrong:
            raise CheckpointError(
                f"{path} {problem} tensor{'s' * (len(wrong) > 1)} {printable_names(wrong)}: "
                "it is not a model that this package knows"
            )
    for ours, theirs in names.items():
        if tensors[theirs].shape != expected[ours].shape:
            raise CheckpointError(
                f"{path}: {theirs} is {list(tensors[theirs].shape)}, "
                f"its configuration asks for {list(expected[ours].shape)}"
            )
