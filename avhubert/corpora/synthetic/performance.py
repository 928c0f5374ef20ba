"""One clip of a synthetic corpus before it is written: speech, its times, mouth shapes and faces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from avhubert.constants import SAMPLE_RATE, SAMPLES_PER_FRAME
from avhubert.corpora.synthetic import text, voice
from avhubert.corpora.synthetic.extras import draw_extras
from avhubert.corpora.synthetic.face import Face
from avhubert.corpora.synthetic.look import speaker_look
from avhubert.corpora.synthetic.schedule import ClipSpec
from avhubert.corpora.synthetic.visemes import MouthShapes, mouth_shapes

ROOM_NOISE = 12  # standard deviation of the samples: about -69 dB of full scale


@dataclass(frozen=True)
class CorpusSettings:
    """What all clips of a corpus share.

    Attributes:
        seed: Seed of all random choices.
        text: Kind of text, see `text.KINDS`.
        language: See `text.LANGUAGES`.
        extras: Sorted names from `extras.KINDS`.
        speakers: Number of speakers.
    """

    seed: int
    text: str = "grid"
    language: str = "en"
    extras: tuple[str, ...] = ()
    speakers: int = 2


@dataclass(frozen=True)
class Performance:
    """One clip.

    Attributes:
        samples: Audio, int16 [frames × 640].
        words: Words with their times.
        phones: Phones with their times.
        shapes: Mouth shapes [frames].
        face: The speaker.
        listener: A silent second person.
    """

    samples: np.ndarray
    words: tuple[voice.Segment, ...]
    phones: tuple[voice.Segment, ...]
    shapes: MouthShapes
    face: Face
    listener: Face | None = None

    def frames(self) -> Iterator[np.ndarray]:
        """uint8 [224, 224, 3] RGB, or twice as wide with a silent listener beside the speaker."""
        if self.listener is None:
            yield from self.face.frames(self.shapes)
            return
        silent = mouth_shapes((), len(self.shapes.gap))
        speaker_first = bool(self.samples[:97].sum() % 2)  # the noise of the room decides the order
        for pair in zip(self.face.frames(self.shapes), self.listener.frames(silent), strict=True):
            yield np.concatenate(pair if speaker_first else pair[::-1], 1)


def perform(clip: ClipSpec, settings: CorpusSettings) -> Performance:
    """The content of a clip, a function of the seed, the clip's index and speaker, and the other settings."""
    seed, index = settings.seed, clip.index
    rng = np.random.default_rng([seed, index, 0])
    words = text.sentence(rng, settings.text, settings.language)
    speaker_voice = voice.speaker_voice(seed, clip.speaker, settings.language)
    speaker_voice = replace(
        speaker_voice,
        rate=speaker_voice.rate + int(rng.integers(-7, 8)),
        pitch=speaker_voice.pitch + int(rng.integers(-4, 5)),
    )
    speech = voice.say(words, speaker_voice)
    before, after = rng.uniform(0.1, 0.25, 2)
    lead = round(before * SAMPLE_RATE)
    length = lead + len(speech.samples) + round(after * SAMPLE_RATE)
    frames = -(-length // SAMPLES_PER_FRAME)
    audio = rng.normal(0, ROOM_NOISE, frames * SAMPLES_PER_FRAME)
    peak = max(1, int(np.abs(speech.samples.astype(np.int32)).max()))
    audio[lead : lead + len(speech.samples)] += speech.samples * (rng.uniform(9000, 20000) / peak)
    phones = _shifted(speech.phones, lead / SAMPLE_RATE)

    def draw_face(speaker: int, stream: int) -> Face:
        look = speaker_look(seed, speaker)
        extras = draw_extras(settings.extras, seed, speaker, index, frames, look) if settings.extras else None
        return Face(look, np.random.default_rng([seed, index, stream]), extras)

    listener = (clip.speaker + 1) % settings.speakers
    return Performance(
        samples=np.clip(np.rint(audio), -32768, 32767).astype(np.int16),
        words=_shifted(speech.words, lead / SAMPLE_RATE),
        phones=phones,
        shapes=mouth_shapes(phones, frames),
        face=draw_face(clip.speaker, 1),
        listener=draw_face(listener, 7) if "faces" in settings.extras else None,
    )


def _shifted(segments: tuple[voice.Segment, ...], seconds: float) -> tuple[voice.Segment, ...]:
    return tuple(voice.Segment(segment.label, segment.start + seconds, segment.end + seconds) for segment in segments)
