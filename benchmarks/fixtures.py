"""Files that the measurements read: clips, models and data directories, made anew in every process."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from avhubert.data.manifest import Clip


def scratch() -> Path:
    """A folder that is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def write_clip(folder: Path, name: str, frames: int, seed: int = 0) -> Clip:
    """A mouth clip of noise that moves, and noise as its audio."""
    from avhubert.data.audio import write_wav
    from avhubert.data.manifest import Clip
    from avhubert.data.video import write_video

    rng = np.random.default_rng(seed)
    image = rng.integers(90, 170, (12, 12)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    images = []
    for number in range(frames):
        shifted = np.roll(image, number % 7, 1)
        shifted[44 : 50 + round(6 * abs(np.sin(number / 3))), 30:66] = 30
        images.append(shifted)
    write_video(folder / f"{name}.mp4", images)
    samples = (3000 * rng.standard_normal(640 * frames)).astype(np.int16)
    write_wav(folder / f"{name}.wav", samples)
    return Clip(name, folder / f"{name}.mp4", folder / f"{name}.wav", frames, len(samples))


def write_data(folder: Path, lengths: list[int]) -> list[Clip]:
    """A data directory with the split `test`."""
    from avhubert.data.manifest import write_manifest
    from avhubert.data.transcripts import write_transcripts

    clips = [write_clip(folder, f"clip{number}", length, number) for number, length in enumerate(lengths)]
    write_manifest(folder / "test.tsv", clips, folder)
    write_transcripts(folder / "test.wrd", ["bin blue at a one now"] * len(clips))
    return clips


def save_models(folder: Path, size: str) -> tuple[Path, Path]:
    """A model directory of ours, and a checkpoint of the baseline with the same weights.

    Args:
        folder: where both are written.
        size: `tiny`: the built-in model; `base`: a pre-trained model of Base size with random weights.
    """
    import torch
    from baseline.weights import published_state, sizes_of

    import avhubert
    from avhubert.config.schema import ModelConfig
    from avhubert.model.recognizer import Recognizer

    torch.manual_seed(0)
    model = avhubert.load("builtin") if size == "tiny" else avhubert.AVHubert(ModelConfig()).eval()
    avhubert.save(model, folder / "model")
    checkpoint = folder / "checkpoint.pt"
    recognizer = isinstance(model, Recognizer)
    config, decoder = (model.encoder.config, model.decoder_config) if recognizer else (model.config, None)
    state = published_state(model, config, decoder)
    torch.save({"model": state, "sizes": json.dumps(asdict(sizes_of(config, decoder)))}, checkpoint)
    if recognizer:
        (folder / "tokenizer.model").write_bytes(model.require_tokenizer("used").serialized)
    return folder / "model", checkpoint
