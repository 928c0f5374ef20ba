"""Features of one layer of a model, 25 per second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avhubert.checkpoints.load import load
from avhubert.constants import MODALITIES
from avhubert.data.filterbank import audio_features
from avhubert.data.manifest import Clip
from avhubert.data.shards import clip_frames, clip_samples
from avhubert.data.video import transform
from avhubert.errors import ConfigError, DataError, one_of
from avhubert.features.prefetch import ahead
from avhubert.files import sha256
from avhubert.model.encoder import AVHubert, check_layer

BATCH_FRAMES = 1_000  # video frames of a batch of equally long clips


@dataclass(frozen=True)
class Streams:
    """A clip as the model sees it: audio float32 [104, T], video float32 [1, T, 88, 88], at least one of them."""

    audio: Tensor | None
    video: Tensor | None

    @property
    def shape(self) -> tuple[bool, bool, int]:
        """Equal for clips that can share a batch without padding."""
        present = self.audio if self.video is None else self.video
        assert present is not None
        return self.audio is None, self.video is None, present.shape[1]


def streams(frames: np.ndarray | None, samples: np.ndarray | None) -> Streams:
    """The model's view of mouth frames uint8 [T, 96, 96] and sound int16 [N]; either may be missing."""
    video = None if frames is None else transform(frames)[None]
    audio = None if samples is None else audio_features(samples, None if frames is None else len(frames)).T
    return Streams(audio, video)


def read_streams(clip: Clip, modality: str) -> Streams:
    """The streams of `modality` (av | a | v) that a clip has: one with length 0 in its manifest is not there."""
    wanted = MODALITIES[modality]
    frames = clip_frames(clip.video) if "video" in wanted and clip.video_frames else None
    samples = clip_samples(clip.audio) if "audio" in wanted and clip.audio_samples else None
    if frames is None and samples is None:
        raise DataError(f"clip '{clip.id}' has no stream for modality '{modality}'; choose another one")
    return streams(frames, samples)


class LayerExtractor:
    """One layer of a model: evaluation mode, no padding, at 25 Hz.

    `model` is what `loading.load` takes, or a loaded AVHubert or Recognizer; `layer` as in `AVHubert.forward`.
    Stored as half precision: training in half precision keeps activations in its range, and clusters do not feel it.

    Raises:
        ConfigError: a layer that the model does not have, an unknown modality.
    """

    dtype = np.float16

    def __init__(self, model: Any, layer: int | None, modality: str = "av") -> None:
        if modality not in MODALITIES:
            raise ConfigError(one_of("modality", modality, MODALITIES))
        self.modality, self.layer = modality, layer
        self.identity: dict[str, Any] = {"layer": layer, "modality": modality}
        if isinstance(model, (str, Path)):
            self.identity["model_sha256"] = model_hash(model)
            model = load(model)
        encoder = model if isinstance(model, AVHubert) else model.encoder
        check_layer(layer, encoder.config)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.to(self._device).eval()

    @torch.inference_mode()
    def compute(self, batch: Sequence[Streams]) -> np.ndarray:
        """float32 [B, T, D] of clips of equal `shape`."""

        def together(parts: list[Tensor | None]) -> Tensor | None:
            present = [part for part in parts if part is not None]
            return torch.stack(present).to(self._device) if present else None

        audio, video = together([item.audio for item in batch]), together([item.video for item in batch])
        return self._model.extract_features(audio=audio, video=video, layer=self.layer).float().cpu().numpy()

    def over(self, clips: Sequence[Clip]) -> Iterator[tuple[int, np.ndarray]]:
        """Clips of equal length share a batch; they come shortest first."""
        order = sorted(range(len(clips)), key=lambda index: clips[index].frames)
        waiting: list[tuple[int, Streams]] = []
        for index, item in zip(order, ahead(lambda i: read_streams(clips[i], self.modality), order), strict=True):
            if waiting and (waiting[0][1].shape != item.shape or (len(waiting) + 1) * item.shape[-1] > BATCH_FRAMES):
                yield from self._finish(waiting)
                waiting = []
            waiting.append((index, item))
        if waiting:
            yield from self._finish(waiting)

    def _finish(self, waiting: list[tuple[int, Streams]]) -> Iterator[tuple[int, np.ndarray]]:
        indices = [index for index, _ in waiting]
        yield from zip(indices, self.compute([item for _, item in waiting]), strict=True)


def model_hash(source: str | Path) -> str | None:
    """SHA-256 of a checkpoint file or of a model directory's weights; None where neither is on this disk."""
    for file in (Path(source) / "model.safetensors", Path(source)):
        if file.is_file():
            return sha256(file)
    return None
