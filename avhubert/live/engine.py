"""The recognizer of live streams: features of each frame once, then any number of windows in one batch.

Several streams may share one engine; their windows are encoded and searched together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avhubert.constants import SAMPLES_PER_FRAME
from avhubert.data.filterbank import audio_features
from avhubert.data.video import transform
from avhubert.decode.alignment import AlignedWord
from avhubert.devices import AUTO, to_device, to_host
from avhubert.model.recognizer import Recognizer
from avhubert.transcription.decoding import WindowDecoder
from avhubert.transcription.segmenter import longest_window

LOOK_AHEAD_SAMPLES = 240  # after a frame's own 640: the last of its four windows of 25 ms ends there


@dataclass(frozen=True)
class WindowFeatures:
    """Front-end features of one window.

    Attributes:
        audio: float32 [T, D]; None: the audio is not read.
        video: float32 [T, D]; None: the video is not read.
    """

    audio: np.ndarray | None
    video: np.ndarray | None

    @property
    def frames(self) -> int:
        """T."""
        present = self.audio if self.video is None else self.video
        assert present is not None
        return len(present)


class LiveEngine:
    """A recognizer on its device, in the parts that live streams need.

    Attributes:
        decoder: The recognizer with its device and decoding settings.
        width: D, of the features.
        longest: Longest window in frames.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        device: str = AUTO,
        precision: str = AUTO,
        decode: Mapping[str, Any] | None = None,
    ) -> None:
        """Move the recognizer to the device.

        Args:
            recognizer: The recognizer.
            device: Device, see `avhubert.transcribe`.
            precision: Number format, see `avhubert.transcribe`.
            decode: Settings of the beam search that replace those of the model.

        Raises:
            ConfigError: The device, the precision or a setting is unknown or cannot be used here.
        """
        self.decoder = WindowDecoder(recognizer.eval(), device, precision, decode)
        self.width = recognizer.encoder.config.encoder_embed_dim
        self.longest = longest_window(recognizer.metadata.longest_frames)
        self.preparation = recognizer.metadata.preparation()

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the recognizer was trained for."""
        return tuple(self.decoder.recognizer.metadata.supported_modalities())

    @torch.inference_mode()
    def audio_features(self, samples: np.ndarray, frames: int) -> np.ndarray:
        """Features float32 [frames, D] of the last `frames` frames that samples int16 [N] cover with look-ahead."""
        total = max(1, (len(samples) - LOOK_AHEAD_SAMPLES) // SAMPLES_PER_FRAME)
        values = audio_features(samples, total, scale=self.preparation.audio_scale)[-frames:]
        encoder = self.decoder.recognizer.encoder
        with self.decoder.compute.autocast():
            return _numpy(encoder.audio(to_device(values, self.decoder.compute.device)))

    @torch.inference_mode()
    def video_features(self, mouths: np.ndarray, before: int, after: int) -> np.ndarray:
        """Features float32 [T − before − after, D] of mouth frames uint8 [T, H, W], without those at both ends.

        Args:
            mouths: The frames.
            before: Frames at the start that are only context, at most `frontends.STEM_RADIUS`.
            after: The same at the end.
        """
        video = to_device(transform(mouths)[None, None], self.decoder.compute.device)
        with self.decoder.compute.autocast():
            features = _numpy(self.decoder.recognizer.encoder.visual(video)[0])
        return features[before : len(features) - after]

    @torch.inference_mode()
    def words(self, windows: Sequence[WindowFeatures]) -> list[list[AlignedWord]]:
        """The words of each window with their times in seconds from its start."""
        size = max(window.frames for window in windows)
        mask = torch.arange(size) >= torch.tensor([window.frames for window in windows])[:, None]
        padded = None if all(window.frames == size for window in windows) else mask
        streams = [self._padded([getattr(window, name) for window in windows], size) for name in ("audio", "video")]
        encoder, compute = self.decoder.recognizer.encoder, self.decoder.compute
        on_device = None if padded is None else to_device(padded, compute.device)
        with compute.autocast():
            fused = encoder.fuse(encoder.join_streams(*streams))
            encoded = encoder.encoder(fused, on_device)
        results = self.decoder.search(encoded, on_device)
        return [
            self.decoder.aligned_words(self.decoder.text(hypotheses[0]), hypotheses[0], frames[: window.frames])
            for hypotheses, frames, window in zip(results, encoded, windows, strict=True)
        ]

    def _padded(self, rows: Sequence[np.ndarray | None], size: int) -> Tensor | None:
        """[B, size, D], zeros where a row ends or lacks the stream; None if all do."""
        if all(row is None for row in rows):
            return None
        batch = np.zeros((len(rows), size, self.width), np.float32)
        for target, row in zip(batch, rows, strict=True):
            if row is not None:
                target[: len(row)] = row
        return to_device(torch.from_numpy(batch), self.decoder.compute.device)


def _numpy(features: Tensor) -> np.ndarray:
    values: np.ndarray = to_host(features).float().numpy()
    return values
