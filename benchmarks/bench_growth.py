"""How time and memory grow: reading 10² … 10⁴ clips, 10³ … 10⁵ manifest lines, a recording of 1 … 60 minutes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
from fixtures import scratch, write_clip
from measure import Case, Claim, Form

CLIPS = (100, 1_000, 10_000)
LINES = (1_000, 10_000, 100_000)
MINUTES = (1, 4, 15, 60)
BATCH = 50  # clips


def clips(smoke: bool, count: int) -> Callable[[], None]:
    """Items and batches of short clips; all entries of the data set are the same files."""
    from avhubert.config.schema import DataConfig
    from avhubert.data.dataset import ClipDataset

    folder = scratch()
    clip = write_clip(folder, "clip", 10)
    total = count // 100 if smoke else count
    entries = [dataclasses.replace(clip, id=f"clip{number}") for number in range(total)]

    def repeat() -> None:
        dataset = ClipDataset(entries, DataConfig(dir=str(folder)), True, 1)
        for first in range(0, total, BATCH):
            dataset.batch(range(first, min(first + BATCH, total)))

    return repeat


def manifest(smoke: bool, count: int) -> Callable[[], None]:
    """A manifest is read, checked and filtered."""
    from avhubert.data.manifest import Clip, read_manifest, select, write_manifest

    folder = scratch()
    total = count // 100 if smoke else count
    frames = np.random.default_rng(0).integers(5, 700, total).tolist()
    names = [f"pretrain/{number // 100:05d}/{number % 100:05d}" for number in range(total)]
    entries = [
        Clip(name, folder / "video" / f"{name}.mp4", folder / "audio" / f"{name}.wav", length, 640 * length)
        for name, length in zip(names, frames, strict=True)
    ]
    write_manifest(folder / "train.tsv", entries, folder)
    del entries, names

    def repeat() -> None:
        select(read_manifest(folder / "train.tsv"), 10, 500)

    return repeat


def recording(smoke: bool, minutes: int) -> Callable[[], None]:
    """The sound of the sample clip again and again, transcribed by the built-in model."""
    import avhubert
    from avhubert.checkpoints.builtin import SAMPLE
    from avhubert.data.audio import read_audio, write_wav

    path = scratch() / "recording.wav"
    sentence = np.concatenate([read_audio(SAMPLE), np.zeros(8_000, np.int16)])
    write_wav(path, np.resize(sentence, 16_000 * (minutes if smoke else 60 * minutes)))
    model = avhubert.load("builtin")

    def repeat() -> None:
        avhubert.transcribe(path, model)

    return repeat


def curve(
    name: str, title: str, sizes: Sequence[int], unit: str, build: Callable[[bool, int], Callable[[], None]]
) -> Case:
    forms = [Form(f"{size} {unit}", functools.partial(_build, build=build, size=size), size=size) for size in sizes]
    return Case(name, title, forms, once=True)


def _build(smoke: bool, build: Callable[[bool, int], Callable[[], None]], size: int) -> Callable[[], None]:
    return build(smoke, size)


CLAIM = Claim(
    "growth",
    "Growth of time and memory",
    [
        curve("clips", "reading clips of 10 frames", CLIPS, "clips", clips),
        curve("manifest", "reading a manifest", LINES, "lines", manifest),
        curve("recording", "transcribing a recording", MINUTES, "minutes", recording),
    ],
    "One run of each size in a new process. ![Time and memory over size](pictures/growth.png)",
    curve=True,
)
