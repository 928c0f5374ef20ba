"""Features of one layer of a model, 25 per second.

T video frames at 25 Hz, D values of a feature frame.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avhubert.checkpoints.load import load, weights_hash
from avhubert.config.input_preparation import PUBLISHED, InputPreparation
from avhubert.constants import MODALITIES
from avhubert.data.collate import Example, pad_streams
from avhubert.data.manifest import Clip
from avhubert.data.preparation import prepare_streams
from avhubert.data.shards import clip_frames, clip_samples
from avhubert.devices import AUTO, resolve, to_host
from avhubert.errors import ConfigError, DataError, one_of
from avhubert.features.prefetch import prefetch
from avhubert.model.encoder import AVHubert, check_layer
from avhubert.model.kernels import reuse_memory
from avhubert.model.recognizer import Recognizer

FRAMES_PER_BATCH = 1_000  # video frames of a batch of equally long clips


def make_example(
    name: str,
    frames: np.ndarray | None,
    samples: np.ndarray | None,
    index: int = 0,
    preparation: InputPreparation = PUBLISHED,
) -> Example:
    """An example for the model of mouth frames uint8 [T, H, W] and audio int16 [N]; one of them may be missing."""
    audio, video = prepare_streams(samples, frames, preparation)
    stream = audio if video is None else video
    assert stream is not None, "audio or video is needed"
    return Example(index, 0, name, len(stream), audio, video, [], None)


def read_example(clip: Clip, modality: str, index: int = 0, preparation: InputPreparation = PUBLISHED) -> Example:
    """The streams of `modality` (av | a | v) that a clip has; a stream of length 0 in its manifest is missing.

    Raises:
        DataError: the clip has none of them.
    """
    wanted = MODALITIES[modality]
    frames = clip_frames(clip.video) if "video" in wanted and clip.video_frames else None
    samples = clip_samples(clip.audio) if "audio" in wanted and clip.audio_samples else None
    if frames is None and samples is None:
        raise DataError(f"clip '{clip.id}' has no stream for modality '{modality}'; choose another one")
    return make_example(clip.id, frames, samples, index, preparation)


class LayerExtractor:
    """One layer of a model in evaluation mode, without padding, at 25 Hz; see `extractors.Extractor`.

    Features are stored in half precision: training in half precision keeps activations in its range, and rounding
    hardly changes clusters.
    """

    def __init__(
        self,
        model: str | Path | AVHubert | Recognizer,
        layer: int | None,
        modality: str = "av",
        device: str = AUTO,
        precision: str = AUTO,
    ) -> None:
        """Load the model and move it to the device.

        Args:
            model: what `avhubert.load` takes, or a loaded model.
            layer: as in `AVHubert.forward`.
            modality: streams to use: av, a or v.
            device: see `devices.resolve`.
            precision: see `devices.resolve`.

        Raises:
            ConfigError: the model has no such layer, or the modality, device or precision is unknown.
            CheckpointError: the model cannot be loaded.
        """
        if modality not in MODALITIES:
            raise ConfigError(one_of("modality", modality, MODALITIES))
        self.modality, self.layer = modality, layer
        self.compute = resolve(device, precision)
        self.dtype: type[np.floating[Any]] = np.float16
        self.identity: dict[str, Any] = {"layer": layer, "modality": modality}
        if self.compute.dtype != torch.float32:
            self.identity["precision"] = self.compute.precision
        if isinstance(model, (str, Path)):
            self.identity["model_sha256"] = weights_hash(model)
            model = load(model)
        encoder = model if isinstance(model, AVHubert) else model.encoder
        check_layer(layer, encoder.config)
        self.preparation = model.metadata.preparation()
        self._encoder = encoder.to(self.compute.device).eval()
        if self.compute.device.type == "cpu":
            reuse_memory()

    @torch.inference_mode()
    def features(self, examples: Sequence[Example]) -> np.ndarray:
        """Features float32 [B, T, D] of examples with the same streams and T."""
        inputs = pad_streams([example.audio for example in examples], [example.video for example in examples])
        with self.compute.autocast():
            features = self._encoder(inputs.to(self.compute.device), layer=self.layer)
        return to_host(features.float()).numpy()

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[int, np.ndarray]]:
        """Position in `clips` and features [T, D] of every clip, shortest first; equally long clips share a batch."""
        order = sorted(range(len(clips)), key=lambda index: clips[index].frames)
        batch: list[Example] = []
        read = functools.partial(read_example, modality=self.modality, preparation=self.preparation)
        for example in prefetch(lambda index: read(clips[index], index=index), order):
            if batch and not _fits(batch, example):
                yield from self._features_by_index(batch)
                batch = []
            batch.append(example)
        if batch:
            yield from self._features_by_index(batch)

    def _features_by_index(self, batch: list[Example]) -> Iterator[tuple[int, np.ndarray]]:
        yield from zip([example.index for example in batch], self.features(batch), strict=True)


def _fits(batch: list[Example], example: Example) -> bool:
    """Whether an example can be added to a batch without padding and within the budget."""
    first = batch[0]
    same_streams = (first.audio is None, first.video is None) == (example.audio is None, example.video is None)
    return same_streams and first.frames == example.frames and (len(batch) + 1) * example.frames <= FRAMES_PER_BATCH
