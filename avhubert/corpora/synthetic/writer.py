"""Write a corpus of talking faces in LRS3's folder shape: one process per core, restartable, same seed same bytes."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from avhubert import files, report
from avhubert.config.defaults import SPEAKERS
from avhubert.constants import FRAME_RATE, LRS3_SPLITS, SAMPLE_RATE, SAMPLES_PER_FRAME
from avhubert.corpora.synthetic import extras, text, visemes, voice
from avhubert.corpora.synthetic.face import Face
from avhubert.corpora.synthetic.look import speaker_look
from avhubert.errors import ConfigError

# the splits of the clips, over and over: 60 % pretrain, 25 % trainval, 15 % test; the first four fill every split
_ORDER = tuple({"p": "pretrain", "t": "trainval", "s": "test"}[letter] for letter in "pttspppptppspptppstp")
SMALLEST = 4
_SETTINGS = "corpus.json"


@dataclass(frozen=True)
class Place:
    """Where a clip belongs."""

    split: str
    speaker: int
    index: int

    @property
    def stem(self) -> Path:
        """The clip's files without their endings, under the corpus folder."""
        return Path(self.split, f"speaker{self.speaker:03d}", f"{self.index:05d}")


@dataclass(frozen=True)
class Summary:
    """What `make_corpus` did: clips per split, how many were made now and how many were there already."""

    directory: Path
    clips: dict[str, int]
    speakers: dict[str, int]
    made: int
    kept: int

    def __str__(self) -> str:
        splits = ", ".join(f"{self.clips[split]} {split} ({self.speakers[split]} speakers)" for split in LRS3_SPLITS)
        kept = f", {self.kept} were there already" if self.kept else ""
        return f"{self.directory}: {splits}; {self.made} clips made{kept}"


def place(index: int, speakers: int) -> Place:
    """The split and speaker of clip `index`, whatever the number of clips.

    The last fifth of the speakers (at least one) is heard in test only; each group takes turns.
    """
    unseen = max(1, speakers // 5)
    split = _ORDER[index % len(_ORDER)]
    tested = split == "test"
    group = unseen if tested else speakers - unseen
    rounds, rest = divmod(index, len(_ORDER))
    turn = rounds * sum((each == "test") == tested for each in _ORDER)
    turn += sum((each == "test") == tested for each in _ORDER[:rest])
    # one further in each round, so that no speaker is tied to one split
    speaker = (turn + turn // group) % group
    return Place(split, speaker + (speakers - unseen if tested else 0), index)


def make_corpus(
    dst: str | Path,
    clips: int,
    speakers: int = SPEAKERS,
    seed: int = 0,
    text: str = "grid",
    workers: int | None = None,
    language: str = "en",
    extra: Sequence[str] = (),
) -> Summary:
    """Write `clips` talking-face videos (never fewer than 4, so that every split has what it needs) under `dst`.

    `dst/{pretrain,trainval,test}/SPEAKER/NNNNN.mp4` (224×224, 25 fps, 16 kHz), `.txt` (LRS3's form, words with times)
    and `.phones.json` (`[{"phone", "start", "end"}]`, seconds). A clip is a function of (seed, index), the kind of
    `text`, the `language` (`text.LANGUAGES`), what `extra` names (`extras.KINDS`) and the number of speakers; clips
    already there are kept. `workers` processes, by default one per core: their number changes nothing.

    ConfigError: wrong argument, `dst` not writable or holding a corpus made with other settings, espeak-ng missing.
    """
    _check(clips, speakers, seed, text, language, workers)
    kinds = tuple(sorted(set(extra)))
    extras.check(kinds)
    dst = files.output_directory(dst)
    with files.lock_directory(dst):
        _settings(
            dst,
            {
                "format": 1,
                "speakers": speakers,
                "seed": seed,
                "text": text,
                "language": language,
                "extra": list(kinds),
            },
        )
        places = [place(index, speakers) for index in range(max(clips, SMALLEST))]
        todo = [item for item in places if not _present(dst / item.stem)]
        for folder in {(dst / item.stem).parent for item in todo}:
            folder.mkdir(parents=True, exist_ok=True)
        workers = min(workers or _cores(), max(len(todo), 1))
        with report.progress() as bar:
            task = bar.add_task("making talking faces", total=len(todo), unit="clips")
            for _ in _run([(dst, item, seed, text, language, kinds, speakers) for item in todo], workers):
                bar.advance(task)
    return Summary(
        directory=dst,
        clips={split: sum(item.split == split for item in places) for split in LRS3_SPLITS},
        speakers={split: len({item.speaker for item in places if item.split == split}) for split in LRS3_SPLITS},
        made=len(todo),
        kept=len(places) - len(todo),
    )


def _check(clips: int, speakers: int, seed: int, kind: str, language: str, workers: int | None) -> None:
    text.check(kind, language)
    if clips < 1:
        raise ConfigError(f"clips must be at least 1, not {clips}")
    if speakers < 2:
        raise ConfigError(f"speakers must be at least 2 (one of them for test only), not {speakers}")
    if seed < 0:
        raise ConfigError(f"seed must not be negative, but is {seed}")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")


def _settings(dst: Path, settings: dict[str, object]) -> None:
    """Note the corpus's settings in `dst`; refuse a folder whose clips were made with others."""
    path = dst / _SETTINGS
    if not path.exists():
        files.write_json(path, settings)
        return
    there = {"language": "en", "extra": [], **files.read_json(path)}  # a corpus of an earlier version does not say
    for key, value in settings.items():
        if there.get(key) != value:
            raise ConfigError(
                f"{dst} holds a corpus made with {key} {there.get(key)}, not {value}; choose another folder"
            )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _present(stem: Path) -> bool:
    return all(stem.with_suffix(ending).exists() for ending in (".mp4", ".txt", ".phones.json"))


def _run(jobs: list[tuple[Any, ...]], workers: int) -> Iterator[None]:
    if workers == 1:
        for job in jobs:
            _make_clip(*job)
            yield
        return
    # spawned: a forked child would inherit the threads and locks of whoever calls this
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_make_clip, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
                yield
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@dataclass(frozen=True)
class Performance:
    """One clip before it is drawn: sound int16 [frames × 640], words and phones in it, mouth shapes [frames]."""

    samples: np.ndarray
    words: tuple[voice.Segment, ...]
    phones: tuple[voice.Segment, ...]
    shapes: visemes.MouthShapes
    face: Face
    listener: Face | None = None

    def pictures(self) -> Iterator[np.ndarray]:
        """uint8 [224, 224, 3] RGB, or twice as wide with a silent listener beside the speaker."""
        if self.listener is None:
            yield from self.face.frames(self.shapes)
            return
        silent = visemes.mouth_shapes((), len(self.shapes.gap))
        speaker_first = bool(self.samples[:97].sum() % 2)  # the room's noise decides who sits where
        for pair in zip(self.face.frames(self.shapes), self.listener.frames(silent), strict=True):
            yield np.concatenate(pair if speaker_first else pair[::-1], 1)


def perform(
    item: Place, seed: int, kind: str = "grid", language: str = "en", kinds: tuple[str, ...] = (), speakers: int = 2
) -> Performance:
    """What is said in a clip, by whom and how, from (seed, index), the speaker and the `extras.KINDS` alone.

    Who listens is another of the `speakers`.
    """
    rng = np.random.default_rng([seed, item.index, 0])
    words = text.sentence(rng, kind, language)
    own = voice.speaker_voice(seed, item.speaker, language)
    own = replace(own, rate=own.rate + int(rng.integers(-7, 8)), pitch=own.pitch + int(rng.integers(-4, 5)))
    speech = voice.say(words, own)
    before, after = rng.uniform(0.1, 0.25, 2)
    lead = round(before * SAMPLE_RATE)
    heard = lead + len(speech.samples) + round(after * SAMPLE_RATE)
    frames = -(-heard // SAMPLES_PER_FRAME)
    sound = rng.normal(0, 12, frames * SAMPLES_PER_FRAME)  # a quiet room: about -69 dB of full scale
    loudest = max(1, int(np.abs(speech.samples.astype(np.int32)).max()))
    sound[lead : lead + len(speech.samples)] += speech.samples * (rng.uniform(9000, 20000) / loudest)
    spoken, phones = (
        tuple(
            voice.Segment(each.label, each.start + lead / SAMPLE_RATE, each.end + lead / SAMPLE_RATE) for each in part
        )
        for part in (speech.words, speech.phones)
    )

    def drawn(speaker: int, stream: int) -> Face:
        appearance = speaker_look(seed, speaker)
        extra = extras.draw(kinds, seed, speaker, item.index, frames, appearance) if kinds else None
        return Face(appearance, np.random.default_rng([seed, item.index, stream]), extra)

    return Performance(
        samples=np.clip(np.rint(sound), -32768, 32767).astype(np.int16),
        words=spoken,
        phones=phones,
        shapes=visemes.mouth_shapes(phones, frames),
        face=drawn(item.speaker, 1),
        listener=drawn((item.speaker + 1) % speakers, 7) if "faces" in kinds else None,
    )


def _make_clip(
    dst: Path, item: Place, seed: int, kind: str, language: str, kinds: tuple[str, ...], speakers: int
) -> None:
    """Make one clip's files; the text comes last, so a clip that has it is whole."""
    performance = perform(item, seed, kind, language, kinds, speakers)
    stem = dst / item.stem
    with files.atomic_path(stem.with_suffix(".mp4")) as path:
        _write_mp4(path, performance.pictures(), performance.samples)
    phones = [
        {"phone": phone.label, "start": round(phone.start, 4), "end": round(phone.end, 4)}
        for phone in performance.phones
    ]
    files.write_text(stem.with_suffix(".phones.json"), json.dumps(phones, ensure_ascii=False) + "\n")
    files.write_text(stem.with_suffix(".txt"), _lrs3_text(performance.words))


def _lrs3_text(words: tuple[voice.Segment, ...]) -> str:
    """LRS3's transcript; Conf and ASDSCORE are constants, since nothing here was guessed."""
    lines = [f"Text:  {' '.join(word.label for word in words).upper()}", "Conf:  9", "", "WORD START END ASDSCORE"]
    lines += [f"{word.label.upper()} {word.start:.2f} {word.end:.2f} 10.0" for word in words]
    return "\n".join(lines) + "\n"


def _write_mp4(path: Path, frames: Iterator[np.ndarray], samples: np.ndarray) -> None:
    """H.264 and AAC in one mp4, with nothing in it that depends on when or where it was made."""
    with av.open(str(path), "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=FRAME_RATE)
        video.pix_fmt = "yuv420p"
        video.thread_count = 1
        video.options = {"crf": "18", "preset": "veryfast", "bf": "0", "flags": "+bitexact"}
        video.time_base = Fraction(1, FRAME_RATE)
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = 64000
        audio.options = {"flags": "+bitexact"}
        for index, picture in enumerate(frames):
            if index == 0:
                video.height, video.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index
            frame.time_base = Fraction(1, FRAME_RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        sound.sample_rate = SAMPLE_RATE
        sound.pts = 0
        sound.time_base = Fraction(1, SAMPLE_RATE)
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE, frame_size=1024)
        for piece in (sound, None):
            for block in resampler.resample(piece):
                container.mux(audio.encode(block))
        container.mux(audio.encode(None))
