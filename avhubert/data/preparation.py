"""From samples and frames of an utterance to the streams of a model, and which mouth clips a data directory has.

Models differ in the crop of the mouth, the scale of the audio and the stream that decides the length: see
`config.input_preparation`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from avhubert.config.input_preparation import BY_AUDIO, CROPS, MEAN_FACE, PUBLISHED, InputPreparation
from avhubert.constants import CROP_SIZE
from avhubert.data.filterbank import VoiceChange, audio_features
from avhubert.data.video import transform
from avhubert.errors import DataError, one_of
from avhubert.files import read_json_object, write_json

if TYPE_CHECKING:
    from avhubert.data.augment import CropDraw

RECORD = "preparation.json"  # of a data directory
_CROP = "crop"  # its key


def prepare_streams(
    samples: np.ndarray | None,
    frames: np.ndarray | None,
    preparation: InputPreparation = PUBLISHED,
    length: int | None = None,
    crop: CropDraw | None = None,
    voice: VoiceChange | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """The audio and video of an utterance for a model; one of them may be missing.

    Args:
        samples: int16 [N], 16 kHz mono; None: no audio.
        frames: gray uint8 [V, H, W] at 25 Hz; None: no video.
        preparation: how the model's inputs are made.
        length: frames of the audio of an utterance without video, where the video decides; None: those of the audio.
        crop: a random crop; None: centred.
        voice: a change of the voice; None: none.

    Returns:
        float32 [T, 104] or None, and float32 [T, 88, 88] or None. Where the audio decides the length and there is
        video, frame i is the frame floor(i · V / T) of the video.
    """
    by_audio = preparation.length == BY_AUDIO
    if frames is not None:
        length = len(frames)
    audio = None
    if samples is not None:
        audio = audio_features(samples, None if by_audio else length, voice, preparation.audio_scale)
    if frames is None:
        return audio, None
    if by_audio and audio is not None:
        frames = frames[nearest_earlier(len(frames), len(audio))]
    if crop is None:
        return audio, transform(frames)
    rows, columns = (side - CROP_SIZE for side in frames.shape[1:])  # 0: the clip has the size of the crop
    return audio, transform(frames, min(crop.top, rows), min(crop.left, columns), crop.flip)


def nearest_earlier(count: int, frames: int) -> np.ndarray:
    """The frame of a video of `count` frames for each of `frames` frames: floor(i · count / frames), int [frames]."""
    return np.arange(frames) * count // frames


# --------------------------------------------------------------------------- data directories
def write_crop(directory: Path, crop: str) -> None:
    """Record which mouth clips a data directory has: a value of `InputPreparation.crop`."""
    write_json(directory / RECORD, {_CROP: crop})


def read_crop(directory: str | Path) -> str:
    """Which mouth clips a data directory has; without a record they are those of earlier versions, `mean-face`.

    Raises:
        DataError: The record is damaged.
    """
    path = Path(directory) / RECORD
    if not path.is_file():
        return MEAN_FACE
    crop = read_json_object(path).get(_CROP)
    if crop not in CROPS:
        raise DataError(f"{path}: {one_of('crop', crop, CROPS)}; prepare the data again", path=path)
    return str(crop)


def check_crop(directory: str | Path, preparation: InputPreparation, modality: str = "av") -> None:
    """Check that a model reads the mouth clips of a data directory.

    Args:
        directory: the data directory.
        preparation: how the model's inputs are made.
        modality: the streams that are read; without video every crop fits.

    Raises:
        DataError: The clips have another crop.
    """
    crop = read_crop(directory)
    if "v" in modality and crop != preparation.crop:
        raise DataError(
            f"{directory} has mouth clips of the kind '{crop}', and the model reads '{preparation.crop}': prepare the "
            f"videos again with --crop {preparation.crop}, or choose another model",
            path=directory,
        )
