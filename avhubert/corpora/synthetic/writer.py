"""Writes a corpus of talking faces in LRS3's layout: one process per core, restartable, same seed, same bytes."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avhubert import files, platforms, report
from avhubert.config.command_defaults import SPEAKERS
from avhubert.constants import FRAME_RATE, LRS3_SPLITS, SAMPLE_RATE
from avhubert.corpora.synthetic import extras, voice
from avhubert.corpora.synthetic import text as texts
from avhubert.corpora.synthetic.performance import CorpusSettings, perform
from avhubert.corpora.synthetic.schedule import SMALLEST, ClipSpec, clip_spec
from avhubert.data.video import REPRODUCIBLE
from avhubert.errors import ConfigError

SETTINGS_FILE = "corpus.json"


@dataclass(frozen=True)
class Summary:
    """The result of `make_corpus`.

    Attributes:
        directory: The corpus.
        clips: Number of clips by split.
        speakers: Number of speakers by split.
        made: Number of clips that were made now.
        existing: Number of clips that existed already.
    """

    directory: Path
    clips: dict[str, int]
    speakers: dict[str, int]
    made: int
    existing: int

    def __str__(self) -> str:
        splits = ", ".join(f"{self.clips[split]} {split} ({self.speakers[split]} speakers)" for split in LRS3_SPLITS)
        existing = f", {self.existing} existed already" if self.existing else ""
        return f"{self.directory}: {splits}; {self.made} clips made{existing}"


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
    """Write talking-face videos in LRS3's layout; existing clips are kept.

    `dst/{pretrain,trainval,test}/SPEAKER/NNNNN.mp4` (224×224, 25 fps, 16 kHz), `.txt` (LRS3's format, words with
    times) and `.phones.json` (`[{"phone", "start", "end"}]`, seconds). A clip is a function of the seed, its index,
    the kind of text, the language, the extras and the number of speakers.

    Args:
        dst: The folder of the corpus.
        clips: Number of clips; at least 4 are made, so that every split has the clips that it needs.
        speakers: Number of speakers.
        seed: Seed of all random choices.
        text: Kind of text, `grid` or `sentences`.
        workers: Number of processes, by default one per core; does not change the clips.
        language: `en` or `ru`.
        extra: Any of `glasses`, `beard`, `light`, `hands`, `faces`.

    Raises:
        ConfigError: An argument is wrong, `dst` cannot be written or contains a corpus with other settings, or
            espeak-ng is missing.
    """
    _check(clips, speakers, seed, text, language, workers)
    settings = CorpusSettings(seed, text, language, tuple(sorted(set(extra))), speakers)
    extras.check(settings.extras)
    dst = files.output_directory(dst)
    with files.lock_directory(dst):
        _write_settings(dst, settings)
        specs = [clip_spec(index, speakers) for index in range(max(clips, SMALLEST))]
        todo = [spec for spec in specs if not _exists(dst / spec.stem)]
        for folder in {(dst / spec.stem).parent for spec in todo}:
            folder.mkdir(parents=True, exist_ok=True)
        workers = min(workers or platforms.usable_cores(), max(len(todo), 1))
        with report.progress() as bar:
            task = bar.add_task("making talking faces", total=len(todo), unit="clips")
            for _ in _run(todo, dst, settings, workers):
                bar.advance(task)
    return Summary(
        directory=dst,
        clips={split: sum(spec.split == split for spec in specs) for split in LRS3_SPLITS},
        speakers={split: len({spec.speaker for spec in specs if spec.split == split}) for split in LRS3_SPLITS},
        made=len(todo),
        existing=len(specs) - len(todo),
    )


def _check(clips: int, speakers: int, seed: int, kind: str, language: str, workers: int | None) -> None:
    texts.check(kind, language)
    if clips < 1:
        raise ConfigError(f"clips must be at least 1, not {clips}")
    if speakers < 2:
        raise ConfigError(f"speakers must be at least 2 (one of them for test only), not {speakers}")
    if seed < 0:
        raise ConfigError(f"seed must not be negative, but is {seed}")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")


def _write_settings(dst: Path, settings: CorpusSettings) -> None:
    """Write the settings of the corpus; ConfigError if its clips were made with other settings."""
    path = dst / SETTINGS_FILE
    values = {
        "format": 1,
        "speakers": settings.speakers,
        "seed": settings.seed,
        "text": settings.text,
        "language": settings.language,
        "extra": list(settings.extras),
    }
    if not path.exists():
        files.write_json(path, values)
        return
    existing = {"language": "en", "extra": [], **files.read_json(path)}  # earlier versions did not write these two
    for key, value in values.items():
        if existing.get(key) != value:
            raise ConfigError(
                f"{dst} holds a corpus made with {key} {existing.get(key)}, not {value}; choose another folder"
            )


def _exists(stem: Path) -> bool:
    return all(stem.with_suffix(suffix).exists() for suffix in (".mp4", ".txt", ".phones.json"))


def _run(specs: list[ClipSpec], dst: Path, settings: CorpusSettings, workers: int) -> Iterator[None]:
    """Make the clips; yields after each."""
    if workers == 1:
        for spec in specs:
            _make_clip(dst, spec, settings)
            yield
        return
    # spawned: a forked child would inherit the threads and locks of the calling process
    with ProcessPoolExecutor(
        platforms.usable_processes(workers), mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        futures = [pool.submit(_make_clip, dst, spec, settings) for spec in specs]
        try:
            for future in as_completed(futures):
                future.result()
                yield
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _make_clip(dst: Path, spec: ClipSpec, settings: CorpusSettings) -> None:
    """Write the files of a clip; the text is last, so that a clip with a text is complete."""
    performance = perform(spec, settings)
    stem = dst / spec.stem
    with files.atomic_path(stem.with_suffix(".mp4")) as path:
        _write_mp4(path, performance.frames(), performance.samples)
    phones = [
        {"phone": phone.label, "start": round(phone.start, 4), "end": round(phone.end, 4)}
        for phone in performance.phones
    ]
    files.write_text(stem.with_suffix(".phones.json"), json.dumps(phones, ensure_ascii=False) + "\n")
    files.write_text(stem.with_suffix(".txt"), _lrs3_text(performance.words))


def _lrs3_text(words: tuple[voice.Segment, ...]) -> str:
    """LRS3's transcript; Conf and ASDSCORE are constants, since nothing is estimated here."""
    lines = [f"Text:  {' '.join(word.label for word in words).upper()}", "Conf:  9", "", "WORD START END ASDSCORE"]
    lines += [f"{word.label.upper()} {word.start:.2f} {word.end:.2f} 10.0" for word in words]
    return "\n".join(lines) + "\n"


def _write_mp4(path: Path, frames: Iterator[np.ndarray], samples: np.ndarray) -> None:
    """H.264 and AAC in one mp4 whose bytes do not depend on when or where it was made."""
    with av.open(str(path), "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=FRAME_RATE)
        video.pix_fmt = "yuv420p"
        video.thread_count = 1
        video.options = {"crf": "18", "preset": "veryfast", "bf": "0", "flags": "+bitexact", **REPRODUCIBLE}
        video.time_base = Fraction(1, FRAME_RATE)
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = 64000
        audio.options = {"flags": "+bitexact"}
        for index, pixels in enumerate(frames):
            if index == 0:
                video.height, video.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index
            frame.time_base = Fraction(1, FRAME_RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        audio_frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        audio_frame.sample_rate = SAMPLE_RATE
        audio_frame.pts = 0
        audio_frame.time_base = Fraction(1, SAMPLE_RATE)
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE, frame_size=1024)
        for part in (audio_frame, None):
            for block in resampler.resample(part):
                container.mux(audio.encode(block))
        container.mux(audio.encode(None))
