"""Files and arrays become the inputs of a model."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, FeatureExtractionMixin

from avhubert.checkpoints.avista.config import PREPARATION, PREPROCESSOR, check_preprocessing
from avhubert.constants import AUDIO_DIM, SAMPLE_RATE
from avhubert.data.audio import read_audio
from avhubert.data.media import DamageLog
from avhubert.data.preparation import prepare_streams
from avhubert.errors import DataError

GRAY_WEIGHTS = np.array([0.299, 0.587, 0.114])  # of red, green and blue: ITU-R BT.601
LARGEST = 32768  # of 16-bit samples, in size
_log = logging.getLogger(__name__)


class AVHubertFeatureExtractor(FeatureExtractionMixin):
    """Makes `input_values`, `pixel_values` and `attention_mask` of recordings, as AVista models were trained on.

    Args:
        values: of `preprocessor_config.json`; they are kept and saved.

    Raises:
        CheckpointError: the values ask for something else than this package can make.
    """

    model_input_names = ["input_values", "pixel_values", "attention_mask"]  # noqa: RUF012

    def __init__(self, **values: Any) -> None:
        values.pop("sampling_rate", None)
        super().__init__(**values)
        check_preprocessing(vars(self), Path(PREPROCESSOR))

    @property
    def sampling_rate(self) -> int:
        """Samples per second of the audio."""
        return SAMPLE_RATE

    @property
    def feature_size(self) -> int:
        """Audio values per video frame."""
        return AUDIO_DIM

    def __call__(
        self,
        raw_speech: Any = None,
        videos: Any = None,
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
        **_: Any,
    ) -> BatchFeature:
        """The inputs of one recording, or of a batch.

        Args:
            raw_speech: a file; or samples [N], floats between -1 and 1 or int16, 16 kHz, mono; or a list of these;
                None: no audio.
            videos: a file, in which the face is found and the mouth cut out (extra `prepare`); or a mouth clip at 25
                frames per second, uint8 [T, H, W] or [T, H, W, 3] (red, green, blue); or a list of these; None: no
                video.
            sampling_rate: of `raw_speech`, for a check.
            return_tensors: "pt" or "np".

        Returns:
            `input_values` float32 [B, T, 104], `pixel_values` float32 [B, T, 1, 88, 88] and `attention_mask` int64
            [B, T], without those of a missing stream. Padding is 0.

        Raises:
            DataError: an array has another shape or type, or the numbers of recordings differ.
            MediaError: a file cannot be read, or shows no face.
        """
        if sampling_rate not in (None, SAMPLE_RATE):
            raise DataError(f"sampling_rate={sampling_rate}: resample the audio to {SAMPLE_RATE} Hz, or give the file")
        audio, video = _batch(raw_speech), _batch(videos)
        if audio is None and video is None:
            raise DataError("neither raw_speech nor videos was given: give at least one")
        if audio is not None and video is not None and len(audio) != len(video):
            raise DataError(f"{len(audio)} audio and {len(video)} video recordings: their numbers must be equal")
        prepared = [
            prepare_streams(
                None if audio is None else _samples(audio[row]),
                None if video is None else _frames(video[row]),
                PREPARATION,
            )
            for row in range(len(audio or video or ()))
        ]
        return BatchFeature(_padded(prepared), tensor_type=return_tensors)

    def to_dict(self) -> dict[str, Any]:
        """The values of `preprocessor_config.json`, without references to code."""
        values: dict[str, Any] = copy.deepcopy(super().to_dict())
        values.pop("auto_map", None)
        return values


def _batch(given: Any) -> list[Any] | None:
    """The recordings of a batch; None if there are none."""
    if given is None:
        return None
    if isinstance(given, (list, tuple)) and not (given and isinstance(given[0], (int, float))):
        if not given:
            raise DataError("the list of recordings is empty: give at least one")
        return list(given)
    return [given]


def _array(given: Any) -> np.ndarray:
    return given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)


def _samples(given: Any) -> np.ndarray:
    """Samples in the range of int16, not rounded."""
    if isinstance(given, (str, Path)):
        damage = DamageLog()
        samples = read_audio(Path(given), damage=damage)
        _report(given, damage)
        return samples
    samples = _array(given)
    if samples.ndim != 1 or not len(samples):
        raise DataError(f"raw_speech must have the shape [samples], not {list(samples.shape)}: mix its channels")
    if samples.dtype == np.int16:
        return samples
    if not np.issubdtype(samples.dtype, np.floating):
        raise DataError(f"raw_speech has the type {samples.dtype}: give floats between -1 and 1, or int16")
    if not np.isfinite(samples).all():
        raise DataError("raw_speech has samples that are infinite or not a number")
    return samples.astype(np.float64) * LARGEST


def _frames(given: Any) -> np.ndarray:
    """Mouth frames, gray uint8 [T, H, W]."""
    if isinstance(given, (str, Path)):
        from avhubert.prepare.mouth import mouth_clip

        damage = DamageLog()
        frames = mouth_clip(Path(given), damage=damage, crop=PREPARATION.crop).frames
        _report(given, damage)
        return frames
    frames = _array(given)
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or (frames.ndim == 4 and frames.shape[3] != 3):
        raise DataError(
            f"videos must be uint8 [frames, height, width] or [frames, height, width, 3], not {frames.dtype} "
            f"{list(frames.shape)}"
        )
    if not len(frames):
        raise DataError("a video has no frames")
    return frames if frames.ndim == 3 else np.rint(frames @ GRAY_WEIGHTS).astype(np.uint8)


def _report(file: str | Path, damage: DamageLog) -> None:
    for sentence in damage.sentences():
        _log.warning("%s: %s", file, sentence)


def _padded(prepared: Sequence[tuple[Tensor | None, Tensor | None]]) -> dict[str, np.ndarray]:
    """The streams of a batch with zeros at the end of shorter ones."""
    audio = [pair[0] for pair in prepared if pair[0] is not None]
    video = [pair[1] for pair in prepared if pair[1] is not None]
    lengths = torch.tensor([len(stream) for stream in audio or video])
    batch: dict[str, np.ndarray] = {}
    if audio:
        batch["input_values"] = pad_sequence(audio, batch_first=True).numpy()
    if video:
        batch["pixel_values"] = pad_sequence(video, batch_first=True)[:, :, None].numpy()
    batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long().numpy()
    return batch
