"""From the files of a clip of 45 frames to the tensors of an item, in evaluation and in training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from fixtures import scratch, write_clip
from measure import Case, Claim, Form

from avhubert.config.schema import DataConfig
from avhubert.data.dataset import ClipDataset

FRAMES = 45
NO_OPENCV = None if find_spec("cv2") else "OpenCV is not installed (requirements/bench.txt)"
REPEATS = 20  # of a repetition


def published(smoke: bool, training: bool) -> Callable[[], np.ndarray | None]:
    from baseline.data import item

    clip = write_clip(scratch(), "clip", 10 if smoke else FRAMES)
    rng = np.random.default_rng(0) if training else None

    def repeat() -> np.ndarray | None:
        for _ in range(REPEATS):
            audio, video = item(clip.video, clip.audio, rng)
        return None if training else np.concatenate([audio.flatten().numpy(), 0.165 * 255 * video.flatten().numpy()])

    return repeat


def ours(smoke: bool, training: bool) -> Callable[[], np.ndarray | None]:
    folder = scratch()
    clip = write_clip(folder, "clip", 10 if smoke else FRAMES)
    dataset = ClipDataset([clip], DataConfig(dir=str(folder)), training, 1)
    epoch = 0

    def repeat() -> np.ndarray | None:
        nonlocal epoch
        for _ in range(REPEATS):
            epoch += 1
            example = dataset.load(0, epoch)
        assert example.audio is not None
        assert example.video is not None
        flat = [example.audio.flatten().numpy(), 0.165 * 255 * example.video.flatten().numpy()]
        return None if training else np.concatenate(flat)

    return repeat


def case(name: str, goal: str, before: float) -> Case:
    training = name == "training"
    forms = [
        Form("baseline", functools.partial(published, training=training), missing=NO_OPENCV),
        Form("ours", functools.partial(ours, training=training), 1.01),  # one gray level
    ]
    title = f"clip of 45 frames → tensors, {name}"
    return Case(name, title, forms, goal, parts=REPEATS, unit="ms", seconds=12, before=before)


CLAIM = Claim(
    "clip",
    "Reading a clip",
    [case("evaluation", "≥ 6 ×", 0.0200), case("training", "≥ 4 ×", 0.0095)],
    "Difference: of the audio's features, and of the video in gray levels.",
)
