"""Live captions: lag, words that are taken back, and word error rate against offline reading.

    python benchmarks/bench_live.py DATA [--model MODEL] [--modality M …] [--clips N] [--clock real|cpu]

DATA has videos NAME.mp4 with NAME.txt beside them, in LRS3's format with the times of the words, as `avhubert synth`
writes them. The clips are joined to one recording, which is delivered frame by frame. With the real clock, each frame
arrives when a camera would deliver it. With the CPU clock nothing waits: a frame that is read takes as long as its CPU
time, so that the measurement is the same on a machine that does other work; it is what an idle core would show.

The lag of a word is the time from its end until it is shown and not changed any more, over the words that are right.
"""

from __future__ import annotations

import argparse
import difflib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import torch
from record import record

from avhubert import LiveRecognizer
from avhubert.constants import FRAME_RATE, SAMPLES_PER_FRAME
from avhubert.data.audio import read_audio
from avhubert.data.video import read_frames, write_video
from avhubert.live.records import FINAL, NOTICE, AudioBlock, LiveEvent, VideoFrame
from avhubert.transcription.pipeline import transcribe


@dataclass
class Recording:
    """Joined clips: frames and samples, and each word with the time of its end in seconds."""

    images: np.ndarray
    samples: np.ndarray
    words: list[tuple[str, float]]

    @property
    def text(self) -> str:
        return " ".join(word for word, _ in self.words)


def joined_clips(folder: Path, count: int | None = None) -> list[Recording]:
    """Each clip of a folder."""
    return [_clip(path) for path in sorted(folder.rglob("*.mp4"))[:count]]


def _clip(path: Path) -> Recording:
    images = np.stack(list(read_frames(path)))
    samples = read_audio(path)[: len(images) * SAMPLES_PER_FRAME]
    samples = np.pad(samples, (0, len(images) * SAMPLES_PER_FRAME - len(samples)))
    lines = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    words = [line.split() for line in lines[lines.index("WORD START END ASDSCORE") + 1 :]]
    return Recording(images, samples, [(word.lower(), float(end)) for word, _, end, *_ in words])


def joined(folder: Path, count: int | None) -> Recording:
    clips = joined_clips(folder, count)
    words, frames = [], 0
    for clip in clips:
        words += [(word, frames / FRAME_RATE + end) for word, end in clip.words]
        frames += len(clip.images)
    return Recording(
        np.concatenate([clip.images for clip in clips]), np.concatenate([clip.samples for clip in clips]), words
    )


class Display:
    """What a viewer sees: when each word of an utterance was shown for the last time."""

    def __init__(self) -> None:
        self.shown: dict[int, list[tuple[str, float]]] = {}

    def show(self, event: LiveEvent, now: float) -> None:
        before = self.shown.get(event.utterance, [])
        self.shown[event.utterance] = [
            before[i] if i < len(before) and before[i][0] == word.text else (word.text, now)
            for i, word in enumerate(event.words)
        ]

    def lags(self, words: list[tuple[str, float]]) -> list[float]:
        shown = [word for number in sorted(self.shown) for word in self.shown[number]]
        matcher = difflib.SequenceMatcher(a=[w for w, _ in words], b=[w for w, _ in shown], autojunk=False)
        return [
            shown[block.b + i][1] - words[block.a + i][1]
            for block in matcher.get_matching_blocks()
            for i in range(block.size)
        ]


def measure(recording: Recording, model: str, modality: str, real: bool) -> tuple[Display, str, dict[str, float]]:
    recognizer = LiveRecognizer(model, modality, clock=time.perf_counter if real else time.process_time)
    display, finals, notices = Display(), [], 0
    count = len(recording.images)
    begun, done, cpu = time.perf_counter(), 0.0, time.process_time()
    for k in range(count + 1):
        arrival = (k + 1) / FRAME_RATE  # a frame is there when its samples are
        if real:
            time.sleep(max(0.0, begun + arrival - time.perf_counter()))
        used = time.process_time()
        if k < count:
            block = recording.samples[SAMPLES_PER_FRAME * k : SAMPLES_PER_FRAME * (k + 1)]
            frames = [VideoFrame(recording.images[k], k / FRAME_RATE)] if "v" in modality else []
            events = recognizer.push(frames, AudioBlock(block, k / FRAME_RATE) if "a" in modality else None)
        else:
            events = recognizer.finish()
        done = max(done, arrival) + time.process_time() - used
        now = time.perf_counter() - begun if real else done
        for event in events:
            notices += event.kind == NOTICE
            if event.kind == FINAL:
                finals.append(event.text)
            if event.kind != NOTICE:
                display.show(event, now)
    load = (time.process_time() - cpu) * FRAME_RATE / count
    return display, " ".join(finals), {"load": load, "retracted": recognizer.retracted_words, "notices": notices}


def offline(recording: Recording, model: str, modality: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "joined.mp4"
        audio = recording.samples if "a" in modality else None
        write_video(path, recording.images, crf=10, audio=audio)
        return transcribe(path, model, modality).text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--modality", action="append", choices=("av", "a", "v"))
    parser.add_argument("--clips", type=int)
    parser.add_argument("--clock", choices=("real", "cpu"), default="real")
    parser.add_argument("--record", action="store_true", help="write the table into docs/results.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recording = joined(options.data, options.clips)
    rows = []
    for modality in options.modality or ["av", "a", "v"]:
        display, text, numbers = measure(recording, options.model, modality, options.clock == "real")
        lags = np.array(display.lags(recording.words))
        count = len(recording.words)
        errors = [100 * jiwer.wer(recording.text, hypothesis) for hypothesis in
                  (text, offline(recording, options.model, modality))]  # fmt: skip
        row = [
            modality,
            *(round(float(np.percentile(lags, share)), 2) for share in (50, 95)),
            round(100 * numbers["retracted"] / count, 1),
            *(round(error, 1) for error in errors),
            round(100 * numbers["load"]),
            int(numbers["notices"]),
        ]
        rows.append(row)
        print(*row, sep="\t", flush=True)
    seconds = len(recording.images) / FRAME_RATE
    if options.record:
        record(
            "live",
            rows,
            columns=["streams", "lag p50, s", "lag p95, s", "retracted per 100 words", "WER live, %", "WER offline, %",
                     "share of one core, %", "messages"],
            group="Live",
            title="Live captions: lag, retractions and word error rate",
            note=f"{len(recording.words)} words in {seconds:.0f} s, {options.clock} clock, "
            f"model `{Path(options.model).name}`.",
        )  # fmt: skip


if __name__ == "__main__":
    main()
