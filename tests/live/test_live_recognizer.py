"""The built-in model reads a clip live: as offline, whatever arrives late, unevenly or not at all."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from avhubert.errors import ConfigError
from avhubert.live.engine import LiveEngine
from avhubert.live.recognizer import LiveRecognizer
from avhubert.live.records import FINAL, NOTICE, PARTIAL, AudioBlock, LiveEvent, VideoFrame
from avhubert.prepare.mouth import mouth_clip
from avhubert.transcription.pipeline import transcribe


def live(
    engine: LiveEngine,
    images: np.ndarray | None,
    samples: np.ndarray | None,
    modality: str = "auto",
    every: int = 1,
    start: float = 0.0,
) -> list[LiveEvent]:
    """All events of a stream that delivers `every` frames at a time."""
    recogniser = LiveRecognizer(engine, modality)
    events: list[LiveEvent] = []
    count = len(images) if images is not None else len(samples) // 640
    for first in range(0, count, every):
        last = min(first + every, count)
        frames = [] if images is None else [VideoFrame(images[k], start + k / 25) for k in range(first, last)]
        audio = None if samples is None else AudioBlock(samples[640 * first : 640 * last], start + first / 25)
        events += recogniser.push(frames, audio)
    return events + recogniser.finish()


def final_text(events: Iterable[LiveEvent]) -> str:
    return " ".join(event.text for event in events if event.kind == FINAL)


@pytest.fixture(scope="module")
def both(engine: LiveEngine, images: np.ndarray, samples: np.ndarray) -> list[LiveEvent]:
    return live(engine, images, samples, start=100.0)


def test_the_final_text_is_that_of_offline_reading(both: list[LiveEvent], sample: Path) -> None:
    offline = transcribe(sample, "builtin", device="cpu")
    assert final_text(both) == offline.text
    words = [word for event in both if event.kind == FINAL for word in event.words]
    assert [word.start - 100 for word in words] == pytest.approx([word.start for word in offline.words], abs=0.2)
    assert {event.modality for event in both if event.kind != NOTICE} == {"av"}
    assert {event.person for event in both if event.kind != NOTICE} == {1}


def test_words_are_shown_before_the_utterance_ends(both: list[LiveEvent]) -> None:
    partial = [event for event in both if event.kind == PARTIAL]
    assert len(partial) >= 3
    assert [len(event.words) for event in partial] == sorted(len(event.words) for event in partial)
    assert all(event.words[-1].end <= event.end for event in partial)


@pytest.mark.slow
def test_audio_alone_and_video_alone(engine: LiveEngine, images: np.ndarray, samples: np.ndarray, sample: Path) -> None:
    audio = live(engine, None, samples)
    assert final_text(audio) == transcribe(sample, "builtin", "a", device="cpu").text
    assert {(event.modality, event.person) for event in audio if event.kind == FINAL} == {("a", None)}
    video = live(engine, images, None)
    assert {event.modality for event in video if event.kind == FINAL} == {"v"}
    assert final_text(video)


@pytest.mark.slow
def test_final_texts_do_not_depend_on_how_much_arrives_at_once(
    engine: LiveEngine, images: np.ndarray, samples: np.ndarray, both: list[LiveEvent]
) -> None:
    for every in (3, 17):
        assert final_text(live(engine, images, samples, every=every)) == final_text(both)


@pytest.mark.slow
def test_streams_that_begin_and_end_in_the_middle(engine: LiveEngine, images: np.ndarray, samples: np.ndarray) -> None:
    """First both, then audio alone, then both again: each utterance is read from what is there."""
    recogniser = LiveRecognizer(engine)
    quiet = np.zeros(640, np.int16)
    events: list[LiveEvent] = []
    second = len(images) / 25 + 2
    for turn, with_video in enumerate((True, False, True)):
        for k in range(round(second * 25)):
            time = turn * second + k / 25
            block = samples[640 * k : 640 * k + 640] if k < len(images) else quiet
            frames = [VideoFrame(images[min(k, len(images) - 1)], time)] if with_video else []
            events += recogniser.push(frames, AudioBlock(block, time))
    events += recogniser.finish()
    finals = [event for event in events if event.kind == FINAL and event.words]
    assert [event.modality for event in finals] == ["av", "a", "av"]
    assert len({event.text for event in finals}) <= 2


def test_uneven_late_and_missing_frames(
    engine: LiveEngine, images: np.ndarray, samples: np.ndarray, both: list
) -> None:
    recogniser = LiveRecognizer(engine)
    rng = np.random.default_rng(1)
    events: list[LiveEvent] = []
    for k in range(len(images)):
        frames = [VideoFrame(images[k], k / 25 + float(rng.uniform(0, 0.01)))] if k % 9 != 4 else []
        if k % 20 == 10:
            frames.append(VideoFrame(images[k - 5], (k - 5) / 25))  # too late
        events += recogniser.push(frames, AudioBlock(samples[640 * k : 640 * k + 640], k / 25))
    events += recogniser.finish()
    assert final_text(events).split()[:3] == final_text(both).split()[:3]
    notices = [event.message for event in events if event.kind == NOTICE]
    assert "1 frames came too late and were not read" in notices


def test_blocks_may_be_shorter_than_a_frame(engine: LiveEngine, samples: np.ndarray) -> None:
    recogniser = LiveRecognizer(engine, "a")
    events: list[LiveEvent] = []
    for first in range(0, len(samples), 128):  # as an AudioWorklet delivers them
        events += recogniser.push(audio=AudioBlock(samples[first : first + 128], first / 16_000))
    assert final_text(events + recogniser.finish()) == final_text(live(engine, None, samples, "a"))


def test_a_stream_without_speech_has_no_words(engine: LiveEngine) -> None:
    noise = np.random.default_rng(0).normal(0, 300, 8 * 16_000).astype(np.int16)
    events = live(engine, None, noise, "a", every=5)
    assert [event for event in events if event.kind != NOTICE] == []


@pytest.mark.slow
def test_mouth_crops_need_no_face_detector(engine: LiveEngine, samples: np.ndarray, sample: Path, both: list) -> None:
    crops = mouth_clip(sample).frames
    recogniser = LiveRecognizer(engine, mouth_crops=True)
    events = []
    for k, crop in enumerate(crops):
        events += recogniser.push([VideoFrame(crop, k / 25)], AudioBlock(samples[640 * k : 640 * k + 640], k / 25))
    assert final_text(events + recogniser.finish()) == final_text(both)


@pytest.mark.slow
def test_memory_is_bounded(engine: LiveEngine, samples: np.ndarray) -> None:
    """What a stream remembers after two minutes is as large as after four."""
    recogniser = LiveRecognizer(engine, "a")
    sizes = []
    stream = recogniser._stream
    minute = np.tile(samples, 1 + 60 * 16_000 // len(samples))[: 60 * 16_000]
    recogniser._read = lambda last: list(stream.requests(last)) and []  # no search: only what is remembered counts
    for turn in range(4):
        for first in range(0, len(minute), 8000):
            recogniser.push(audio=AudioBlock(minute[first : first + 8000], turn * 60 + first / 16_000))
        state = {name: value for name, value in vars(stream).items() if name not in ("_engine", "load")}
        stream._audio_features._engine = None
        sizes.append(len(pickle.dumps(state)))
        stream._audio_features._engine = engine
    assert sizes[3] <= 1.01 * sizes[1]


def test_a_wrong_modality_is_one_sentence(engine: LiveEngine) -> None:
    with pytest.raises(ConfigError, match="unknown modality 'x'; known: auto, av, a, v"):
        LiveRecognizer(engine, "x")


def test_wrong_frames_are_one_sentence(engine: LiveEngine) -> None:
    with pytest.raises(ConfigError, match=r"a frame is \[4, 4\]; it must be RGB"):
        LiveRecognizer(engine).push([VideoFrame(np.zeros((4, 4), np.uint8), 0)])
    with pytest.raises(ConfigError, match="a frame is of float64; it must be uint8"):
        LiveRecognizer(engine).push([VideoFrame(np.zeros((4, 4, 3)), 0)])
    with pytest.raises(ConfigError, match=r"a mouth crop is \[4, 4\]; it must be gray, uint8 \[96, 96\]"):
        LiveRecognizer(engine, mouth_crops=True).push([VideoFrame(np.zeros((4, 4), np.uint8), 0)])
