"""What is clustered: MFCC of the sound at 100 Hz, or one layer of a model at 25 Hz, written to disk in shards.

A specification is `mfcc` or `MODEL:LAYER`. F frames of a clip, D values each; T video frames at 25 Hz.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import kaldi_native_fbank as knf
import numpy as np
import torch
from torch import Tensor

from avhubert.checkpoints.load import load
from avhubert.constants import MODALITIES, SAMPLE_RATE
from avhubert.data.filterbank import audio_features
from avhubert.data.manifest import Clip
from avhubert.data.shards import clip_frames, clip_samples
from avhubert.data.video import transform
from avhubert.errors import ConfigError, DataError, one_of
from avhubert.files import sha256
from avhubert.model.encoder import AVHubert, check_layer


def ahead(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`work` of every item, in order, done by threads a few items ahead (decoders release the interpreter's lock)."""
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        pending: deque = deque()
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


MFCC_RATE, LAYER_RATE = 100, 25  # feature frames per second


WINDOW = 400  # samples of an MFCC window


BATCH_FRAMES = 1_000  # video frames of a batch of equally long clips


# --------------------------------------------------------------------------- specification
@dataclass(frozen=True)
class FeatureSpec:
    """`mfcc` (model and layer None) or a layer of a model."""

    model: str | None
    layer: int | None

    @property
    def rate(self) -> int:
        """Frames per second."""
        return MFCC_RATE if self.model is None else LAYER_RATE

    def __str__(self) -> str:
        return "mfcc" if self.model is None else f"{self.model}:{self.layer}"


def parse(text: str) -> FeatureSpec:
    """`mfcc` or `MODEL:LAYER` (split at the last colon); ConfigError for anything else."""
    if text == "mfcc":
        return FeatureSpec(None, None)
    model, _, layer = text.rpartition(":")
    if not model or not (layer.isascii() and layer.isdigit()):
        raise ConfigError(f"features '{text}' are neither 'mfcc' nor MODEL:LAYER, such as runs/iter1:9")
    return FeatureSpec(model, int(layer))


# --------------------------------------------------------------------------- MFCC
def mfcc(samples: np.ndarray) -> np.ndarray:
    """13 MFCC with Δ and ΔΔ, float32 [F, 39] at 100 Hz, of int16 [N] at 16 kHz; F = 1 + floor((N - 400) / 160).

    Kaldi's defaults without energy and dither. Sound shorter than a window is padded with zeros to one frame.
    """
    if len(samples) < WINDOW:
        samples = np.pad(samples, (0, WINDOW - len(samples)))
    options = knf.MfccOptions()
    options.frame_opts.dither = 0
    options.use_energy = False
    computer = knf.OnlineMfcc(options)
    computer.accept_waveform(SAMPLE_RATE, samples.astype(np.float32) / 32768)
    computer.input_finished()
    static = np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])
    delta = _delta(static)
    return np.concatenate([static, delta, _delta(delta)], axis=1)


def _delta(x: np.ndarray) -> np.ndarray:
    """Slope over five frames by linear regression, the edges replicated."""
    n = len(x)
    padded = np.pad(x, ((2, 2), (0, 0)), mode="edge")
    return (2 * (padded[4:] - padded[:n]) + (padded[3 : 3 + n] - padded[1 : 1 + n])) / 10


# --------------------------------------------------------------------------- what computes features
class Extractor(Protocol):
    """Computes the features of clips, in any order: (position in `clips`, float [F, D])."""

    dtype: type[np.floating]
    identity: dict[str, Any]

    def over(self, clips: Sequence[Clip]) -> Iterator[tuple[int, np.ndarray]]: ...


class MfccExtractor:
    """`mfcc` of every clip's sound."""

    dtype = np.float32
    identity: dict[str, Any] = {"features": "mfcc"}  # noqa: RUF012

    def over(self, clips: Sequence[Clip]) -> Iterator[tuple[int, np.ndarray]]:
        yield from enumerate(ahead(self._of, clips))

    def _of(self, clip: Clip) -> np.ndarray:
        if not clip.audio_samples:
            raise DataError(
                f"clip '{clip.id}' has no sound, so no MFCC; take it out of the manifest, or cluster a model's layer"
            )
        return mfcc(clip_samples(clip.audio))


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


def extractor(spec: FeatureSpec) -> Extractor:
    """What computes the features of a specification, both modalities for a layer."""
    return MfccExtractor() if spec.model is None else LayerExtractor(spec.model, spec.layer)


def model_hash(source: str | Path) -> str | None:
    """SHA-256 of a checkpoint file or of a model directory's weights; None where neither is on this disk."""
    for file in (Path(source) / "model.safetensors", Path(source)):
        if file.is_file():
            return sha256(file)
    return None
