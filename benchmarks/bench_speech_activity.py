"""Speech activity: how much speech `transcribe` leaves out, and how much music and noise it reads.

    python benchmarks/bench_speech_activity.py [--speech DIR] [--noise DIR] [--model MODEL]

Speech: synthetic voices, and the recordings of DIR, with pauses of 4 s between them. A frame is speech if a word of
NAME.align (GRID) covers it; without such a file, if it is at most 25 dB quieter than the loudest frame. Without speech:
generated music, tones, noise, applause and silence, and the recordings of DIR. Each is cut into windows as `transcribe`
does, with and without the detector. With a MODEL, the words that it writes for the parts without speech are counted.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from record import record

from avhubert.constants import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from avhubert.corpora.synthetic import text, voice
from avhubert.data.audio import read_audio, write_wav
from avhubert.data.discovery import find_recordings
from avhubert.errors import MediaError
from avhubert.transcription.pipeline import transcribe
from avhubert.transcription.segmenter import find_windows, loudness
from avhubert.transcription.speech_activity import voiced_frames

SNRS = (20, 10, 5, 0, -5)  # dB
SPEECH_RANGE = 25.0  # dB below the loudest frame
CHUNK = 60 * FRAME_RATE  # frames that `transcribe` reads at once
RNG = np.random.default_rng(0)


# --------------------------------------------------------------------------- sounds
def whole_frames(samples: np.ndarray) -> np.ndarray:
    return samples[: len(samples) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]


def synthetic_speech(speakers: int = 12) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for speaker in range(speakers):
        samples = whole_frames(voice.say(text.sentence(RNG, "sentences"), voice.speaker_voice(0, speaker)).samples)
        yield samples, loud_frames(samples)


def recorded_speech(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for path in find_recordings(folder).files:
        try:
            samples = whole_frames(read_audio(path))
        except MediaError as error:
            print(f"left out: {error}")
            continue
        labels = path.with_suffix(".align")
        yield samples, aligned_frames(labels, samples) if labels.exists() else loud_frames(samples)


def loud_frames(samples: np.ndarray) -> np.ndarray:
    level = loudness(samples, len(samples) // SAMPLES_PER_FRAME)
    return np.asarray(level > level.max() - SPEECH_RANGE)


def aligned_frames(labels: Path, samples: np.ndarray) -> np.ndarray:
    speech = np.zeros(len(samples) // SAMPLES_PER_FRAME, bool)
    for line in labels.read_text(encoding="utf-8").splitlines():
        start, end, word = line.split()
        if word not in ("sil", "sp"):
            speech[int(start) // 1000 : int(end) // 1000] = True  # 25 000 units a second
    return speech


def generated(seconds: int = 60) -> dict[str, np.ndarray]:
    """Sounds without speech, int16 at 16 kHz."""
    time = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    white = RNG.standard_normal(len(time))
    red = np.cumsum(white) - np.linspace(0, white.sum(), len(time))
    claps = np.zeros(len(time))
    for start in RNG.integers(0, len(time) - 400, 80 * seconds):
        claps[start : start + 400] += RNG.standard_normal(400) * np.exp(-np.arange(400) / 60)
    notes = 220 * 2 ** (RNG.integers(0, 25, (4 * seconds, 3)) / 12)
    music = np.concatenate(
        [
            sum(np.sin(2 * np.pi * note * overtone * beat) / overtone for note in chord for overtone in range(1, 6))
            * np.exp(-6 * beat)
            for chord in notes
            for beat in [np.arange(SAMPLE_RATE // 4) / SAMPLE_RATE]
        ]
    )
    sounds = {
        "music": music,
        "tone, 440 Hz": np.sin(2 * np.pi * 440 * time),
        "mains hum": sum(np.sin(2 * np.pi * 50 * n * time) / n for n in range(1, 9)),
        "siren": np.sin(2 * np.pi * np.cumsum(700 + 300 * np.sin(2 * np.pi * 0.4 * time)) / SAMPLE_RATE),
        "white noise": white,
        "brown noise": red,
        "noise in bursts": white * (np.sin(2 * np.pi * 0.7 * time) > 0),
        "applause": claps,
        "silence": np.zeros(len(time)),
    }
    return {name: (6000 * sound / max(np.abs(sound).max(), 1e-9)).astype(np.int16) for name, sound in sounds.items()}


# --------------------------------------------------------------------------- measures
def read_frames(samples: np.ndarray, detector: bool) -> np.ndarray:
    """Frames that `transcribe` decodes, bool [T]."""
    frames = len(samples) // SAMPLES_PER_FRAME
    read = np.zeros(frames, bool)
    for start in range(0, frames, CHUNK):
        count = min(CHUNK, frames - start)
        part = samples[start * SAMPLES_PER_FRAME : (start + count) * SAMPLES_PER_FRAME]
        voiced = voiced_frames(part, count) if detector else None
        for window in find_windows(loudness(part, count), None, voiced=voiced):
            if window.speech:
                read[start + window.start : start + window.end] = True
    return read


def missed_speech(items: list[tuple[np.ndarray, np.ndarray]], noises: list[np.ndarray], snr: int | None) -> list[float]:
    """Share of speech that is not read, in %: with the detector, without it."""
    pause = np.zeros(4 * SAMPLE_RATE, np.int16)
    speech = np.concatenate([part for samples, _ in items for part in (samples, pause)])
    labels = np.concatenate([part for _, label in items for part in (label, np.zeros(4 * FRAME_RATE, bool))])
    if snr is not None:
        power = np.square(speech.astype(float)).reshape(-1, SAMPLES_PER_FRAME).mean(1)[labels].mean()
        noise = np.resize(np.concatenate(noises), len(speech)) * np.sqrt(power) * 10 ** (-snr / 20)
        loudest = np.abs(speech + noise).max()
        speech = ((speech + noise) * min(1.0, 32767 / loudest)).astype(np.int16)
    return [
        round(100 * float((labels & ~read_frames(speech, detector)).sum() / labels.sum()), 2)
        for detector in (True, False)
    ]


def words(samples: np.ndarray, model: str, vad: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.wav"
        write_wav(path, samples)
        return len(transcribe(path, model, "a", vad=vad).words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, nargs="*", default=[], metavar="DIR")
    parser.add_argument("--noise", type=Path, nargs="*", default=[], metavar="DIR")
    parser.add_argument("--model", help="count the words that it invents")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/results.json")
    given = parser.parse_args()
    items = [*synthetic_speech(), *itertools.chain.from_iterable(map(recorded_speech, given.speech))]
    sounds = generated()
    for folder in given.noise:
        parts = [read_audio(path) for path in find_recordings(folder).files]
        sounds[f"{folder.name}, recorded"] = whole_frames(np.concatenate(parts))
    noises = [piece / np.sqrt(np.square(piece).mean()) for name, sound in sounds.items() if name != "silence"
              for piece in [sound[: 10 * SAMPLE_RATE].astype(float)]]  # fmt: skip
    rows: list[list[str | float]] = []
    for snr in (None, *SNRS):
        label = "speech missed" + ("" if snr is None else f", {snr} dB")
        rows.append([label, *missed_speech(items, noises, snr)])
    for name, sound in sounds.items():
        rows.append(
            [
                f"read: {name}",
                *(round(100 * float(read_frames(sound, detector).mean()), 2) for detector in (True, False)),
            ]
        )
    if given.model:
        minutes = sum(map(len, sounds.values())) / SAMPLE_RATE / 60
        counts = [sum(words(sound, given.model, vad) for sound in sounds.values()) for vad in ("auto", "off")]
        rows.append(["words a minute without speech", *(round(count / minutes, 1) for count in counts)])
    print(f"{sum(label.sum() for _, label in items) / FRAME_RATE:.0f} s of speech")
    for label, *values in rows:
        print(f"{label:40} {values[0]:8} {values[1]:8}")
    if given.record:
        record("speech-activity", rows)


if __name__ == "__main__":
    main()
