"""Part `media`: generated recordings that are cut, damaged, mislabelled or strange, read by every reader.

No crash, no hang, memory limited; a file that cannot be read is named in one sentence, and a folder's other file is
prepared all the same.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from avhubert.cli.app import main
from avhubert.corpora.synthetic.writer import make_corpus
from avhubert.data.audio import read_audio
from avhubert.data.video import read_frames
from avhubert.errors import MediaError
from tests.faults import media_files as mf
from tests.faults.isolate import Fault, Limits, isolated
from tests.faults.outcome import Outcome
from tests.faults.part import Case, Part, random_of
from tests.faults.world import make_world

SECONDS, MEMORY_MB = 10.0, 2000.0
PREPARE_SECONDS = 60.0  # two files, detection of faces included


@dataclass(frozen=True)
class Source:
    """Pictures of a person who speaks, and healthy files of them in every format that this FFmpeg writes."""

    pictures: list[np.ndarray]
    files: dict[str, bytes]


def make_source(folder: Path) -> Source:
    if not (folder / "corpus").exists():
        make_corpus(folder / "corpus.part", 1, seed=4)
        (folder / "corpus.part").rename(folder / "corpus")
    clip = min((folder / "corpus").rglob("*.mp4"))
    pictures = [
        np.asarray(frame) for frame, _ in zip(read_frames(clip), range(int(mf.SECONDS * mf.RATE)), strict=False)
    ]
    files, rng = {}, random.Random(1)
    for number, form in enumerate(mf.FORMATS):
        path = folder / f"healthy{number}{form.suffix}"
        mf.write(path, form, pictures, mf.tone(rng))
        files[path.name] = path.read_bytes()
    return Source(pictures, files)


# --------------------------------------------------------------------------- files of a case
def truncated(source: Source, path: Path, number: int, rng: random.Random) -> str:
    names = sorted(source.files)
    name, percent = names[number % len(names)], number // len(names) % 101
    data = source.files[name]
    path.with_suffix(Path(name).suffix).write_bytes(data[: len(data) * percent // 100])
    return f"{name} cut at {percent} %"


def damaged(source: Source, path: Path, number: int, rng: random.Random) -> str:
    name, damage = rng.choice(sorted(source.files)), rng.choice(mf.DAMAGE)
    path.with_suffix(Path(name).suffix).write_bytes(damage(source.files[name], rng))
    return f"{name}: {damage.__name__}"


def mislabelled(source: Source, path: Path, number: int, rng: random.Random) -> str:
    name, suffix = rng.choice(sorted(source.files)), rng.choice(mf.FORMATS).suffix
    path.with_suffix(suffix).write_bytes(source.files[name])
    return f"{name} as {suffix}"


def strange(source: Source, path: Path, number: int, rng: random.Random) -> str:
    """Sizes, rates, times, numbers of faces and samples that no camera writes."""
    form = mf.Format(".mkv", "mpeg4", "flac") if rng.random() < 0.5 else mf.FORMATS[0]
    pictures, samples = source.pictures, mf.tone(rng)
    target = path.with_suffix(form.suffix)
    kind = rng.choice(("size", "rate", "times", "faces", "sound", "float wav", "one frame"))
    if kind == "size":
        height, width = rng.choice(((2, 2), (16, 16), (4320, 7680), (2, 7680), (4320, 2), (1080, 16)))
        mf.write(target, form, [np.full((height, width, 3), 99, np.uint8)] * 3, samples)
        return f"{width}x{height}"
    if kind == "rate":
        rate = rng.choice((Fraction(1, 100), Fraction(1, 3), 1000, 10_000, 65_000))
        mf.write(target, mf.Format(".mkv", "libx264", "flac"), pictures[:20], samples, rate)
        return f"{rate} frames per second"
    if kind == "times":
        first = rng.choice((-10, -1000, 5000, 10**6))
        mf.write(target, form, pictures[:20], samples, first_pts=first)
        return f"first frame at {first}"
    if kind == "faces":
        count = rng.randint(0, 6)
        mf.write(target, form, [mf.faces(picture, count) for picture in pictures], samples)
        return f"{count} faces"
    if kind == "one frame":
        mf.write(target, form, pictures[:1], samples)
        return "one frame"
    what, changed = mf.strange_samples(samples, rng)
    if kind == "float wav":
        path.with_suffix(".wav").write_bytes(mf.float_wav(changed))
    else:
        mf.write(target, form, pictures, np.nan_to_num(changed, posinf=1.0))  # AAC encoders refuse huge samples
    return f"{what} sound, {kind}"


MAKERS: tuple[Callable[[Source, Path, int, random.Random], str], ...] = (
    truncated, damaged, truncated, damaged, truncated, damaged, truncated, mislabelled, strange, damaged,
)  # fmt: skip


# --------------------------------------------------------------------------- readers
def _info(path: Path, world: Path, work: Path) -> int:
    return main(["info", str(path)])


def _streams(path: Path, world: Path, work: Path) -> None:
    """Both streams as arrays; a recording needs one that can be read."""
    problems = []
    for read in (lambda: read_audio(path), lambda: sum(1 for _ in read_frames(path))):
        try:
            read()
        except MediaError as error:
            problems.append(error)
    if len(problems) == 2:
        raise problems[0]


def _transcribe(path: Path, world: Path, work: Path) -> int:
    return main(["transcribe", str(path), "--model", str(world / "recognizer"), "--device", "cpu", "--out", str(work)])


def _prepare(path: Path, world: Path, work: Path) -> int:
    """The damaged file beside a healthy one: the healthy clip must be there."""
    source = work / "source"
    source.mkdir()
    shutil.move(path, source / path.name)
    shutil.copy(min((world.parent / "corpus").rglob("*.mp4")), source / "healthy.mp4")
    code = main(["prepare", "folder", str(source), str(work / "data"), "--workers", "1", "--max-rejected", "1"])
    if code == 0 and not any((work / "data").rglob("video/**/healthy*.mp4")):
        raise Fault("healthy clip lost", "exit code 0")
    return code


Reader = Callable[[Path, Path, Path], "int | None"]
READERS: tuple[tuple[str, Reader, float], ...] = (
    ("streams", _streams, SECONDS),
    ("info", _info, SECONDS),
    ("streams", _streams, SECONDS),
    ("transcribe", _transcribe, 2 * SECONDS),
    ("streams", _streams, SECONDS),
    ("prepare", _prepare, PREPARE_SECONDS),
)


def _slowness() -> float:
    """How much longer than on an idle machine a case may take."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)) * (3 if os.getloadavg()[0] > 2 else 1)


def make(folder: Path, seed: int) -> Case:
    world = make_world(folder / "world")
    source = make_source(folder)
    torch.set_num_threads(1)
    work = folder / "work"

    def case(number: int) -> Outcome:
        rng = random_of(seed, "media", number)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        what = MAKERS[number % len(MAKERS)](source, work / "recording", number, rng)
        (path,) = work.iterdir()
        name, read, seconds = rng.choice(READERS)
        watched = read in (_info, _streams)
        limits = Limits(seconds * _slowness(), MEMORY_MB)
        return isolated(f"{number} {name}: {what}", lambda: read(path, world, work), work, limits, watched)

    return case


PART = Part(
    "media",
    "generated recordings in 14 formats: cut at every percent, flipped bits, lying headers, wrong containers, strange "
    "sizes, rates, times, sound and numbers of faces, read, described, transcribed and prepared: no crash, no hang "
    "over 10 s, under 2 GB, each refusal one sentence, the healthy file beside it prepared",
    2000,
    make,
)
