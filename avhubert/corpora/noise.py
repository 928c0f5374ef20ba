"""Noise clips and their train, valid and test lists: babble of many voices, single voices, MUSAN.

A noise folder holds CATEGORY/{train,valid,test}/*.wav, where CATEGORY is one of babble, speech, music, noise, and
{train,valid,test}.tsv, which list one absolute path a line and join all categories that are there (Interspeech 2022,
§ 4). The same source and seed give the same bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avhubert.constants import SAMPLE_RATE, SPLITS
from avhubert.data.audio import write_wav
from avhubert.data.manifest import read_manifest
from avhubert.data.shards import clip_samples
from avhubert.errors import ConfigError, DataError, one_of
from avhubert.files import atomic_directory, output_directory, write_text
from avhubert.report import progress

CATEGORIES = ("babble", "speech", "music", "noise")
SUFFIXES = {".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus"}
VOICES = 30  # recordings in a babble mixture
LEAST_VOICES = 2
BABBLE_SECONDS = 10  # longest mixture
SPEECH_SECONDS = 20  # a single voice is cut to this
PIECE_SECONDS = 10  # music and noise are cut in pieces of this
LEAST_SECONDS = 3  # shorter pieces are left out
LEAST_COUNT, MOST_COUNT = 20, 10_000  # clips of all splits together
BALANCED = 20_000  # entries of each category in a training list of several


@dataclass
class NoiseSummary:
    """What `make_noise` wrote: clips per category and split, and what is worth knowing about them."""

    folder: Path
    clips: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{category}: " + ", ".join(f"{count} {split}" for split, count in counts.items()) + " clips"
            for category, counts in self.clips.items()
        ]
        return "\n".join([*lines, *self.notes, f"noise lists in {self.folder}"])


def make_noise(kind: str, src: str | Path, dst: str | Path, seed: int = 0, count: int | None = None) -> NoiseSummary:
    """Make noise clips of a kind in `dst` and (re)write the lists there.

    `babble`: means of 30 recordings; the recordings are split 8:1:1 first, so no split hears another's. `speech`:
    single recordings of at least 3 s, the longest ones, cut to 20 s, split 6:2:2. Both take the *training* split of a
    data directory, or every sound file below `src`. `musan`: `music` and `noise` in pieces of 3 to 10 s, split 8:1:1,
    and babble of `speech`. A category that was in `dst` is replaced as a whole, the others stay in the lists.

    `count` is the number of clips of babble or speech over all splits; by default half as many as there are
    recordings, at least 20 and at most 10 000.

    Raises:
        ConfigError: unknown kind, `count` below 3, `dst` cannot be written.
        DataError: no or too few recordings in `src`.
        MediaError: a recording cannot be read.
    """
    if kind not in ("babble", "speech", "musan"):
        raise ConfigError(one_of("kind of noise", kind, ("babble", "speech", "musan")))
    if count is not None and count < len(SPLITS):
        raise ConfigError(f"count={count} is too small: train, valid and test need a clip each")
    src, dst = Path(src), Path(dst).absolute()
    if kind == "musan":
        sources = {name: _recordings(src / name, dst) for name in ("music", "noise", "speech")}
    else:
        sources = {"speech": _recordings(src, dst)}
    output_directory(dst)
    summary = NoiseSummary(dst)
    if kind in ("babble", "musan"):
        _babble(sources["speech"], dst, seed, count, summary)
    if kind == "speech":
        _speech(sources["speech"], dst, seed, count, summary)
    if kind == "musan":
        _pieces("music", sources["music"], dst, seed, summary)
        _pieces("noise", sources["noise"], dst, seed, summary)
    _write_lists(dst, seed)
    return summary


def _recordings(src: Path, dst: Path) -> list[Path]:
    """Sound files of a data directory's training split, or below a folder (what we wrote ourselves left aside)."""
    if not src.is_dir():
        raise DataError(f"{src} is not a folder; name a data directory or a folder of sound files")
    manifests = [split for split in SPLITS if (src / f"{split}.tsv").exists()]
    if manifests:
        found = [clip.audio for clip in read_manifest(src / "train.tsv")]
    else:
        found = sorted(path for path in src.rglob("*") if path.suffix.lower() in SUFFIXES)
        found = [path for path in found if dst not in path.absolute().parents]
    if not found:
        raise DataError(f"{src} has no sound files ({', '.join(sorted(SUFFIXES))})")
    return found


def _default_count(recordings: int) -> int:
    return min(MOST_COUNT, max(LEAST_COUNT, recordings // 2))


def _shares(count: int, share: float, least: int) -> tuple[int, int, int]:
    """How many of `count` go to train, valid and test; `share` is that of valid and of test."""
    held_out = max(least, round(count * share))
    return count - 2 * held_out, held_out, held_out


def _parts(paths: Sequence, sizes: Sequence[int], rng: np.random.Generator) -> dict[str, list]:
    """Deal out shuffled items by split."""
    order = iter(rng.permutation(len(paths)).tolist())
    return {
        split: [paths[place] for place in sorted(itertools.islice(order, size))]
        for split, size in zip(SPLITS, sizes, strict=True)
    }


# --------------------------------------------------------------------------- categories
def _babble(recordings: list[Path], dst: Path, seed: int, count: int | None, summary: NoiseSummary) -> None:
    if len(recordings) < len(SPLITS) * LEAST_VOICES:
        raise DataError(
            f"babble needs at least {len(SPLITS) * LEAST_VOICES} recordings ({LEAST_VOICES} each for train, valid "
            f"and test), and there are {len(recordings)}; give more speech"
        )
    parts = _parts(recordings, _shares(len(recordings), 0.1, LEAST_VOICES), np.random.default_rng((seed, 0)))
    counts = _shares(_default_count(len(recordings)) if count is None else count, 0.1, 1)

    def clips(split: str, number: int) -> Iterator[np.ndarray]:
        for index in range(number):
            yield _mixture(parts[split], np.random.default_rng((seed, 1, SPLITS.index(split), index)))

    streams = {split: (clips(split, number), number) for split, number in zip(SPLITS, counts, strict=True)}
    _write_category("babble", dst, streams, summary)
    for split in SPLITS:
        if len(parts[split]) < VOICES:
            summary.notes.append(
                f"babble, {split}: {len(parts[split])} voices in a mixture, not {VOICES}: no more there"
            )


def _mixture(recordings: list[Path], rng: np.random.Generator) -> np.ndarray:
    """Mean of up to 30 recordings, each from a place of its own and repeated to the length of the longest (≤ 10 s)."""
    chosen = rng.choice(len(recordings), size=min(VOICES, len(recordings)), replace=False)
    voices = [clip_samples(recordings[place]) for place in chosen]
    length = min(max(map(len, voices)), BABBLE_SECONDS * SAMPLE_RATE)
    total = np.zeros(length, np.float64)
    for voice in voices:
        total += np.resize(np.roll(voice, -int(rng.integers(len(voice)))), length)
    return np.floor(total / len(voices)).astype(np.int16)


def _speech(recordings: list[Path], dst: Path, seed: int, count: int | None, summary: NoiseSummary) -> None:
    lengths = [len(clip_samples(path)) for path in _watched(recordings, "reading speech")]
    long_enough = [index for index, length in enumerate(lengths) if length >= LEAST_SECONDS * SAMPLE_RATE]
    summary.notes.append(
        f"speech: {len(recordings) - len(long_enough)} of {len(recordings)} recordings are shorter than "
        f"{LEAST_SECONDS} s and left out"
    )
    wanted = _default_count(len(recordings)) if count is None else count
    chosen = sorted(sorted(long_enough, key=lambda index: -lengths[index])[:wanted])
    if len(chosen) < len(SPLITS):
        raise DataError(
            f"speech noise needs {len(SPLITS)} recordings of at least {LEAST_SECONDS} s, and there are {len(chosen)}; "
            "give longer ones"
        )
    parts = _parts(
        [recordings[index] for index in chosen], _shares(len(chosen), 0.2, 1), np.random.default_rng((seed, 2))
    )
    limit = SPEECH_SECONDS * SAMPLE_RATE
    streams = {split: ((clip_samples(path)[:limit] for path in paths), len(paths)) for split, paths in parts.items()}
    _write_category("speech", dst, streams, summary)


def _pieces(category: str, recordings: list[Path], dst: Path, seed: int, summary: NoiseSummary) -> None:
    size, least = PIECE_SECONDS * SAMPLE_RATE, LEAST_SECONDS * SAMPLE_RATE
    places: list[tuple[Path, int]] = []
    left_out = 0
    for path in _watched(recordings, f"reading {category}"):
        length = len(clip_samples(path))
        for start in range(0, length, size):
            if min(size, length - start) >= least:
                places.append((path, start))
            else:
                left_out += 1
    summary.notes.append(f"{category}: {left_out} pieces shorter than {LEAST_SECONDS} s left out")
    if len(places) < len(SPLITS):
        raise DataError(
            f"{category} needs {len(SPLITS)} pieces of at least {LEAST_SECONDS} s, and there are {len(places)}; "
            "give more"
        )
    parts = _parts(places, _shares(len(places), 0.1, 1), np.random.default_rng((seed, 3, CATEGORIES.index(category))))

    def clips(chosen: list[tuple[Path, int]]) -> Iterator[np.ndarray]:
        for path, pieces in itertools.groupby(chosen, key=lambda place: place[0]):
            samples = clip_samples(path)
            for _, start in pieces:
                yield samples[start : start + size]

    streams = {split: (clips(chosen), len(chosen)) for split, chosen in parts.items()}
    _write_category(category, dst, streams, summary)


# --------------------------------------------------------------------------- writing
def _watched(paths: list[Path], what: str) -> Iterator[Path]:
    with progress() as bar:
        task = bar.add_task(what, total=len(paths), unit="files")
        for path in paths:
            yield path
            bar.advance(task)


def _write_category(
    category: str, dst: Path, streams: Mapping[str, tuple[Iterator[np.ndarray], int]], summary: NoiseSummary
) -> None:
    with atomic_directory(dst / category) as folder, progress() as bar:
        task = bar.add_task(category, total=sum(number for _, number in streams.values()), unit="clips")
        for split, (clips, _) in streams.items():
            (folder / split).mkdir()
            for index, samples in enumerate(clips):
                write_wav(folder / split / f"{category}_{index:05}.wav", samples)
                bar.advance(task)
    summary.clips[category] = {split: number for split, (_, number) in streams.items()}


def _write_lists(dst: Path, seed: int) -> None:
    """Join the categories; in a training list of several, each is repeated or cut to the same number of entries."""
    present = [category for category in CATEGORIES if (dst / category).is_dir()]
    for split in SPLITS:
        lists = [sorted((dst / category / split).glob("*.wav")) for category in present]
        if split == "train" and len(lists) > 1:
            rng = np.random.default_rng((seed, 4))
            lists = [_repeated(paths, rng) for paths in lists]
        write_text(dst / f"{split}.tsv", "".join(f"{path}\n" for paths in lists for path in paths))


def _repeated(paths: list[Path], rng: np.random.Generator) -> list[Path]:
    times, rest = divmod(BALANCED, len(paths))
    return paths * times + [paths[place] for place in sorted(rng.permutation(len(paths))[:rest])]
