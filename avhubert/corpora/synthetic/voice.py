"""Speech by espeak-ng with the times of its words and phones.

espeak-ng is GPL-3 and an optional extra: it is loaded only here, and only when speech is synthesised.
"""

from __future__ import annotations

import _ctypes
import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avhubert.corpora.synthetic.text import spoken
from avhubert.data.audio import resample
from avhubert.errors import ConfigError

ACCENTS = (
    "en-us",
    "en-gb-x-rp",
    "en-gb-scotland",
    "en-us-nyc",
    "en-029",
    "en-gb-x-gbclan",
    "en",
)
LOW_VARIANTS = ("", "m1", "m2", "m3", "m4", "m5", "m7", "m8")
HIGH_VARIANTS = ("f1", "f2", "f3", "f4", "f5")

# espeak-ng's speak_lib.h
_RETRIEVAL = 2  # AUDIO_OUTPUT_SYNCHRONOUS: the audio is passed to the callback
_PHONEME_EVENTS, _PHONEME_IPA, _DONT_EXIT = 0x1, 0x2, 0x8000
_RATE, _PITCH, _RANGE = 1, 3, 4
_UTF8 = 1
_LIST_TERMINATED, _WORD, _END, _PHONEME = 0, 1, 5, 7
_SEED = 1
_SYLLABLE_MARKS = "ˈˌ"
_STOPS = "pbtdkɡʔ"
_CLOSURE_SECONDS = 0.12  # longest closure of a stop before its burst
_CLOSURE_LEVEL = 10 ** (-50 / 20)  # of full scale


@dataclass(frozen=True)
class Voice:
    """A speaker's voice: espeak-ng voice name, pitch and its range (0-100), rate in words per minute."""

    name: str
    pitch: int
    range: int
    rate: int


@dataclass(frozen=True)
class Segment:
    """A word or a phone (IPA, without stress marks) and its time in seconds."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """Audio int16 [N] at 16 kHz, with its words and phones."""

    samples: np.ndarray
    words: tuple[Segment, ...]
    phones: tuple[Segment, ...]


class _Identity(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identity),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def speaker_voice(seed: int, speaker: int, language: str = "en") -> Voice:
    """The voice of a speaker, a function of (seed, speaker); odd speakers have higher voices.

    Args:
        seed: Seed of the corpus.
        speaker: Number of the speaker.
        language: Its name in espeak-ng; English has several accents.
    """
    rng = np.random.default_rng([seed, speaker, 1])
    order = np.random.default_rng([seed, 2]).permutation(len(ACCENTS))  # consecutive speakers never share an accent
    accent = ACCENTS[order[speaker % len(ACCENTS)]] if language == "en" else language
    variants = HIGH_VARIANTS if speaker % 2 else LOW_VARIANTS
    variant = variants[rng.integers(len(variants))]
    return Voice(
        name=f"{accent}+{variant}" if variant else accent,
        pitch=int(rng.integers(45, 70) if speaker % 2 else rng.integers(25, 50)),
        range=int(rng.integers(35, 65)),
        rate=int(rng.integers(140, 164)),
    )


def say(words: Sequence[str], voice: Voice) -> Speech:
    """Synthesise `words` (lower case; single letters by their names).

    A phone starts where it becomes audible, a stop where its closure begins; the phones of a word are inside it.

    Raises:
        ConfigError: espeak-ng is not installed or does not know the voice.
    """
    rate, audio, events = _synthesise(" ".join(spoken(word) for word in words), voice)
    word_starts: list[int] = []
    marks: list[tuple[int, str, bool]] = []  # sample, phone, first of its word
    pending = -1
    for kind, sample, label in events:
        if kind == _WORD:
            pending = sample
            word_starts.append(len(marks))
        elif kind == _PHONEME and label.strip(_SYLLABLE_MARKS):
            label = label.strip(_SYLLABLE_MARKS)
            earliest = pending if pending >= 0 else (marks[-1][0] if marks else 0)
            start = _closure_start(audio, sample, rate, earliest) if label[0] in _STOPS else sample
            marks.append((start, label, pending >= 0))
            pending = -1
    assert len(word_starts) == len(words), "espeak-ng reported another number of words"
    bounds = [mark[0] for mark in marks] + [events[-1][1]]
    phones = tuple(
        Segment(label, bounds[index] / rate, bounds[index + 1] / rate) for index, (_, label, _) in enumerate(marks)
    )
    edges = [*word_starts, len(phones)]
    spans = tuple(
        Segment(word, phones[first].start, phones[last - 1].end)
        for word, first, last in zip(words, edges, edges[1:], strict=False)
    )
    return Speech(resample(audio, rate), spans, phones)


def _closure_start(audio: np.ndarray, burst: int, rate: int, earliest: int) -> int:
    """The first sample of the silence before a stop's burst, not before `earliest` (0: start of the utterance)."""
    step = rate // 200
    start = burst
    floor = max(earliest, burst - int(_CLOSURE_SECONDS * rate))
    while start - step >= floor and np.abs(audio[start - step : start]).max() < _CLOSURE_LEVEL * 32768:
        start -= step
    return start


def _synthesise(text: str, voice: Voice) -> tuple[int, np.ndarray, list[tuple[int, int, str]]]:
    """Sample rate, audio int16 [N] and events (type, sample, label) in order; the last event is the end.

    espeak-ng keeps state between utterances that nothing resets (the phase of its pitch flutter, among others), so the
    library is loaded anew for every utterance (1 ms): the same words and voice always give the same audio.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise ConfigError(
            "the synthetic corpus needs espeak-ng, which is not installed: pip install 'avhubert[synth]'"
        ) from error
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        data = espeakng_loader.get_data_path().encode()
        rate = library.espeak_Initialize(_RETRIEVAL, 0, data, _PHONEME_EVENTS | _PHONEME_IPA | _DONT_EXIT)
        if rate <= 0:
            raise ConfigError("espeak-ng does not start: install it again with pip install 'avhubert[synth]'")
        if library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ConfigError(f"espeak-ng does not know the voice '{voice.name}'")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.range)):
            library.espeak_SetParameter(parameter, value, 0)
        library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))  # for the noise of breathy voices; else the time of day
        chunks: list[np.ndarray] = []
        events: list[tuple[int, int, str]] = []

        @_CALLBACK  # type: ignore[untyped-decorator, unused-ignore]
        def receive(wave: Any, count: int, event: Any) -> int:
            if wave and count:
                chunks.append(np.ctypeslib.as_array(wave, (count,)).copy())
            index = 0
            while event[index].type != _LIST_TERMINATED:
                entry = event[index]
                label = entry.id.string.decode() if entry.type == _PHONEME else ""
                if entry.type in (_WORD, _PHONEME, _END):
                    events.append((entry.type, entry.sample, label))
                index += 1
            return 0

        library.espeak_SetSynthCallback(receive)
        encoded = text.encode()
        library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 1, 0, _UTF8, None, None)
        library.espeak_Synchronize()
        library.espeak_Terminate()
    finally:
        _ctypes.dlclose(library._handle)
    audio = np.concatenate(chunks)
    return rate, audio, [*events, (_END, len(audio), "")]
