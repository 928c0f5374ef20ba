"""A drawn person who says sentences, read by the built-in model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avhubert.checkpoints.builtin import SAMPLE
from avhubert.checkpoints.load import load_recognizer
from avhubert.data.audio import read_audio
from avhubert.data.video import read_frames
from avhubert.live.engine import LiveEngine


@pytest.fixture(scope="session")
def engine() -> LiveEngine:
    return LiveEngine(load_recognizer("builtin"), "cpu", "fp32")


@pytest.fixture(scope="session")
def sample() -> Path:
    return Path(SAMPLE)


@pytest.fixture(scope="session")
def images(sample: Path) -> np.ndarray:
    """Frames of the clip inside the package, uint8 [T, H, W, 3]."""
    return np.stack(list(read_frames(sample)))


@pytest.fixture(scope="session")
def samples(sample: Path, images: np.ndarray) -> np.ndarray:
    """Its audio, int16 [640 T]."""
    audio = read_audio(sample)
    return np.pad(audio, (0, len(images) * 640))[: len(images) * 640]
