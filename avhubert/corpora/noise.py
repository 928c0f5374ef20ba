"""Noise clips and their train, valid and test lists: babble of many voices, single voices, MUSAN.

A noise folder contains CATEGORY/{train,valid,test}/*.wav, where CATEGORY is one of babble, speech, music, noise, and
{train,valid,test}.tsv, which list one absolute path per line and join all categories of the folder (Interspeech 2022,
§ 4). The same source and seed give the same bytes. If the source says who speaks, speakers.json names the speakers in
each file, and every mixture leaves out some of them, so that for each speaker there is noise without his own voice.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from avhubert.constants import SAMPLE_RATE, SPLITS
from avhubert.data.audio import write_wav
from avhubert.data.discovery import AUDIO_EXTENSIONS, describe_skipped, find_recordings
from avhubert.data.manifest import read_manifest
from avhubert.data.noise import NOISE_SPEAKERS
from avhubert.data.shards import clip_samples
from avhubert.errors import ConfigError, DataError, one_of
from avhubert.files import atomic_directory, output_directory, read_json_object, write_json, write_text
from avhubert.report import progress

KINDS = ("babble", "speech", "musan")
CATEGORIES = ("babble", "speech", "music", "noise")
VOICES = 30  # recordings in a babble mixture
LEAST_VOICES = 2
GROUPS = 8  # of speakers; each mixture leaves one group out
BABBLE_SECONDS = 10  # longest mixture
SPEECH_SECONDS = 20  # single voices are cut to this length
PIECE_SECONDS = 10  # music and noise are cut into pieces of this length
LEAST_SECONDS = 3  # shorter pieces are not used
LEAST_COUNT, MOST_COUNT = 20, 10_000  # clips of all splits together
BALANCED = 20_000  # entries of each category in a training list of several categories

Item = TypeVar("Item")


@dataclass
class NoiseSummary:
    """The result of `make_noise`.

    Attributes:
        folder: The noise folder.
        clips: Number of clips by category and split.
        notes: Messages for the user.
    """

    folder: Path
    clips: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{category}: " + ", ".join(f"{count} {split}" for split, count in counts.items()) + " clips"
            for category, counts in self.clips.items()
        ]
        return "\n".join([*lines, *self.notes, f"noise lists in {self.folder}"])


@dataclass(frozen=True)
class _Recording:
    """A recording of speech, music or noise; `speaker`: who speaks, '' if unknown."""

    path: Path
    speaker: str = ""


@dataclass(frozen=True)
class _NoiseClip:
    """Samples of a noise clip, and the known speakers in it."""

    samples: np.ndarray
    speakers: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Clips:
    """The noise clips of one split, and their number."""

    clips: Iterator[_NoiseClip]
    number: int


def make_noise(kind: str, src: str | Path, dst: str | Path, seed: int = 0, count: int | None = None) -> NoiseSummary:
    """Make noise clips of one kind in the folder `dst` and write its lists.

    A category that `dst` already has is replaced as a whole; the other categories stay in the lists.

    Args:
        kind: `babble`: means of 30 recordings; the recordings are split 8:1:1 first, so that the splits share no
            recording. `speech`: single recordings of at least 3 s, the longest ones, cut to 20 s, split 6:2:2.
            `musan`: `music` and `noise` in pieces of 3 to 10 s, split 8:1:1, and babble of `speech`.
        src: A data directory, of which only the *training* split is used, or a folder of audio files; for `musan`
            the root of the corpus.
        dst: The noise folder.
        seed: Seed of all random choices.
        count: Number of clips of babble or speech over all splits; by default half the number of recordings, at
            least 20 and at most 10 000.

    Raises:
        ConfigError: Unknown kind, `count` below 3, or `dst` cannot be written.
        DataError: No or too few recordings in `src`.
        MediaError: A recording cannot be read.
    """
    if kind not in KINDS:
        raise ConfigError(one_of("kind of noise", kind, KINDS))
    if count is not None and count < len(SPLITS):
        raise ConfigError(f"count={count} is too small: train, valid and test need a clip each")
    src, dst = Path(src), Path(dst).absolute()
    summary = NoiseSummary(dst)
    if kind == "musan":
        recordings = {name: _list_recordings(src / name, dst, summary) for name in ("music", "noise", "speech")}
    else:
        recordings = {"speech": _list_recordings(src, dst, summary)}
    output_directory(dst)
    if kind in ("babble", "musan"):
        _make_babble(recordings["speech"], dst, seed, count, summary)
    if kind == "speech":
        _make_speech(recordings["speech"], dst, seed, count, summary)
    if kind == "musan":
        _make_pieces("music", recordings["music"], dst, seed, summary)
        _make_pieces("noise", recordings["noise"], dst, seed, summary)
    _write_lists(dst, seed)
    return summary


def _list_recordings(src: Path, dst: Path, summary: NoiseSummary) -> list[_Recording]:
    """Audio files of a data directory's training split, or below a folder except below `dst`."""
    if not src.is_dir():
        raise DataError(f"{src} is not a folder; name a data directory or a folder of audio files", path=src)
    if any((src / f"{split}.tsv").exists() for split in SPLITS):
        clips = read_manifest(src / "train.tsv")
        recordings = [_Recording(clip.audio, clip.speaker) for clip in clips if clip.audio_samples]
        skipped = []
    else:
        found = find_recordings(src, AUDIO_EXTENSIONS, without=[dst])
        recordings, skipped = [_Recording(path) for path in found.files], describe_skipped(found.skipped, src)
        summary.notes += skipped
    if not recordings:
        known = "files are recognised by extensions such as .wav and .flac"
        raise DataError("; ".join([f"{src} has no audio files", *skipped, known]), path=src)
    return recordings


def _default_count(recordings: int) -> int:
    return min(MOST_COUNT, max(LEAST_COUNT, recordings // 2))


def _split_sizes(count: int, share: float, least: int) -> tuple[int, int, int]:
    """How many of `count` go to train, valid and test; `share` is that of valid and of test."""
    held_out = max(least, round(count * share))
    return count - 2 * held_out, held_out, held_out


def _split(items: Sequence[Item], sizes: Sequence[int], rng: np.random.Generator) -> dict[str, list[Item]]:
    """Randomly distribute items over the splits; each split keeps the order of the items."""
    order = iter(rng.permutation(len(items)).tolist())
    return {
        split: [items[index] for index in sorted(itertools.islice(order, size))]
        for split, size in zip(SPLITS, sizes, strict=True)
    }


# --------------------------------------------------------------------------- categories
def _make_babble(recordings: list[_Recording], dst: Path, seed: int, count: int | None, summary: NoiseSummary) -> None:
    if len(recordings) < len(SPLITS) * LEAST_VOICES:
        raise DataError(
            f"babble needs at least {len(SPLITS) * LEAST_VOICES} recordings ({LEAST_VOICES} each for train, valid "
            f"and test), and there are {len(recordings)}; give more speech"
        )
    voices = _split(recordings, _split_sizes(len(recordings), 0.1, LEAST_VOICES), np.random.default_rng((seed, 0)))
    _mix_speakers(voices)
    counts = _split_sizes(_default_count(len(recordings)) if count is None else count, 0.1, 1)

    def mixtures(split: str, number: int) -> Iterator[_NoiseClip]:
        for index in range(number):
            chosen = _leave_speakers_out(voices[split], index, number)
            yield _mixture(chosen, np.random.default_rng((seed, 1, SPLITS.index(split), index)))

    clips = {split: _Clips(mixtures(split, number), number) for split, number in zip(SPLITS, counts, strict=True)}
    _write_category("babble", dst, clips, summary)
    for split, number in zip(SPLITS, counts, strict=True):
        fewest = min(len(_leave_speakers_out(voices[split], index, number)) for index in range(min(number, GROUPS)))
        if fewest < VOICES:
            summary.notes.append(
                f"babble, {split}: {fewest} voices in a mixture instead of {VOICES}, "
                "because there are no more recordings"
            )
    speakers = {recording.speaker for recording in recordings}
    if len(speakers) == 1 and "" not in speakers:
        summary.notes.append(
            f"babble: all recordings are of the speaker {speakers.pop()}, whose own clips cannot be mixed with it"
        )


def _mix_speakers(voices: dict[str, list[_Recording]]) -> None:
    """Exchange a recording where all of a validation or test split are of one speaker, so that there is another."""
    for split in SPLITS[1:]:
        speakers = {recording.speaker for recording in voices[split]}
        others = [index for index, recording in enumerate(voices["train"]) if recording.speaker not in speakers]
        if len(speakers) == 1 and "" not in speakers and others:
            train, held_out = voices["train"], voices[split]
            train[others[0]], held_out[0] = held_out[0], train[others[0]]


def _leave_speakers_out(recordings: list[_Recording], index: int, number: int) -> list[_Recording]:
    """The recordings for mixture `index` of `number`: the known speakers are in groups, and each mixture lacks one."""
    speakers = sorted({recording.speaker for recording in recordings} - {""})
    groups = min(GROUPS, number, len(speakers))
    if groups < 2:
        return recordings
    left_out = set(speakers[index % groups :: groups])
    return [recording for recording in recordings if recording.speaker not in left_out]


def _mixture(recordings: list[_Recording], rng: np.random.Generator) -> _NoiseClip:
    """Mean of up to 30 recordings, each rotated randomly and repeated to the length of the longest (at most 10 s)."""
    chosen = [
        recordings[index] for index in rng.choice(len(recordings), size=min(VOICES, len(recordings)), replace=False)
    ]
    voices = [clip_samples(recording.path) for recording in chosen]
    length = min(max(map(len, voices)), BABBLE_SECONDS * SAMPLE_RATE)
    total = np.zeros(length, np.float64)
    for voice in voices:
        total += np.resize(np.roll(voice, -int(rng.integers(len(voice)))), length)
    return _NoiseClip(np.floor(total / len(voices)).astype(np.int16), _speakers_in(chosen))


def _speakers_in(recordings: Iterable[_Recording]) -> tuple[str, ...]:
    return tuple(sorted({recording.speaker for recording in recordings} - {""}))


def _make_speech(recordings: list[_Recording], dst: Path, seed: int, count: int | None, summary: NoiseSummary) -> None:
    lengths = [len(clip_samples(recording.path)) for recording in _with_progress(recordings, "reading speech")]
    long_enough = [index for index, length in enumerate(lengths) if length >= LEAST_SECONDS * SAMPLE_RATE]
    summary.notes.append(
        f"speech: {len(recordings) - len(long_enough)} of {len(recordings)} recordings are shorter than "
        f"{LEAST_SECONDS} s and not used"
    )
    wanted = _default_count(len(recordings)) if count is None else count
    chosen = sorted(sorted(long_enough, key=lambda index: -lengths[index])[:wanted])
    if len(chosen) < len(SPLITS):
        raise DataError(
            f"speech noise needs {len(SPLITS)} recordings of at least {LEAST_SECONDS} s, and there are {len(chosen)}; "
            "give longer ones"
        )
    parts = _split(
        [recordings[index] for index in chosen], _split_sizes(len(chosen), 0.2, 1), np.random.default_rng((seed, 2))
    )
    limit = SPEECH_SECONDS * SAMPLE_RATE

    def voices(chosen: list[_Recording]) -> Iterator[_NoiseClip]:
        for recording in chosen:
            yield _NoiseClip(clip_samples(recording.path)[:limit], _speakers_in([recording]))

    clips = {split: _Clips(voices(chosen), len(chosen)) for split, chosen in parts.items()}
    _write_category("speech", dst, clips, summary)


def _make_pieces(category: str, recordings: list[_Recording], dst: Path, seed: int, summary: NoiseSummary) -> None:
    size, least = PIECE_SECONDS * SAMPLE_RATE, LEAST_SECONDS * SAMPLE_RATE
    pieces: list[tuple[Path, int]] = []  # file and first sample
    too_short = 0
    for recording in _with_progress(recordings, f"reading {category}"):
        path = recording.path
        length = len(clip_samples(path))
        for start in range(0, length, size):
            if min(size, length - start) >= least:
                pieces.append((path, start))
            else:
                too_short += 1
    summary.notes.append(f"{category}: {too_short} pieces shorter than {LEAST_SECONDS} s not used")
    if len(pieces) < len(SPLITS):
        raise DataError(
            f"{category} needs {len(SPLITS)} pieces of at least {LEAST_SECONDS} s, and there are {len(pieces)}; "
            "give more"
        )
    rng = np.random.default_rng((seed, 3, CATEGORIES.index(category)))
    parts = _split(pieces, _split_sizes(len(pieces), 0.1, 1), rng)

    def samples_of(chosen: list[tuple[Path, int]]) -> Iterator[_NoiseClip]:
        for path, group in itertools.groupby(chosen, key=lambda piece: piece[0]):
            samples = clip_samples(path)
            for _, start in group:
                yield _NoiseClip(samples[start : start + size])

    clips = {split: _Clips(samples_of(chosen), len(chosen)) for split, chosen in parts.items()}
    _write_category(category, dst, clips, summary)


# --------------------------------------------------------------------------- writing
def _with_progress(recordings: list[_Recording], task_name: str) -> Iterator[_Recording]:
    with progress() as bar:
        task = bar.add_task(task_name, total=len(recordings), unit="files")
        for recording in recordings:
            yield recording
            bar.advance(task)


def _write_category(category: str, dst: Path, clips: Mapping[str, _Clips], summary: NoiseSummary) -> None:
    speakers: dict[str, list[str]] = {}  # by path below dst
    with atomic_directory(dst / category) as folder, progress() as bar:
        task = bar.add_task(category, total=sum(part.number for part in clips.values()), unit="clips")
        for split, part in clips.items():
            (folder / split).mkdir()
            for index, clip in enumerate(part.clips):
                name = f"{category}_{index:05}.wav"
                write_wav(folder / split / name, clip.samples)
                if clip.speakers:
                    speakers[f"{category}/{split}/{name}"] = list(clip.speakers)
                bar.advance(task)
    _update_speakers(category, dst, speakers)
    summary.clips[category] = {split: part.number for split, part in clips.items()}


def _update_speakers(category: str, dst: Path, speakers: dict[str, list[str]]) -> None:
    """Replace the entries of a category in speakers.json; no file if no speaker is known."""
    path = dst / NOISE_SPEAKERS
    before = read_json_object(path) if path.is_file() else {}
    content = {name: names for name, names in before.items() if not name.startswith(f"{category}/")} | speakers
    if content:
        write_json(path, content)
    else:
        path.unlink(missing_ok=True)


def _write_lists(dst: Path, seed: int) -> None:
    """Join the categories; in a training list of several, each is repeated or cut to the same number of entries."""
    present = [category for category in CATEGORIES if (dst / category).is_dir()]
    for split in SPLITS:
        lists = [sorted((dst / category / split).glob("*.wav")) for category in present]
        if split == "train" and len(lists) > 1:
            rng = np.random.default_rng((seed, 4))
            lists = [_balanced(paths, rng) for paths in lists]
        write_text(dst / f"{split}.tsv", "".join(f"{path}\n" for paths in lists for path in paths))


def _balanced(paths: list[Path], rng: np.random.Generator) -> list[Path]:
    repeats, rest = divmod(BALANCED, len(paths))
    return paths * repeats + [paths[index] for index in sorted(rng.permutation(len(paths))[:rest])]
