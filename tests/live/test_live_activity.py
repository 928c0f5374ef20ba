"""Where live utterances begin and end, and who speaks in them."""

from __future__ import annotations

import numpy as np
import pytest

from avhubert.live.activity import AudioActivity, Segmenter, Window, speaking
from avhubert.live.mouths import Person
from avhubert.live.speaker import VoiceLevels, speaking_person
from avhubert.transcription.segmenter import EDGE, loudness
from avhubert.transcription.speech_activity import speech_probability


def windows(speech: np.ndarray, activity: np.ndarray | None = None, longest: int = 100) -> list[Window]:
    """The windows of a stream in which it is known at once which frames have speech."""
    segmenter = Segmenter(longest)
    activity = np.zeros(len(speech)) if activity is None else activity
    found = [segmenter.update(speech[:end], activity[:end], end) for end in range(1, len(speech) + 1)]
    return [window for window in [*found, segmenter.flush(len(speech))] if window is not None]


def mask(*lengths: int) -> np.ndarray:
    """Frames without and with speech in turn, bool."""
    return np.concatenate([np.full(length, bool(k % 2)) for k, length in enumerate(lengths)])


def test_an_utterance_ends_in_a_pause() -> None:
    found = windows(mask(20, 30, 20, 25, 20))
    assert [(one.utterance.start, one.end) for one in found] == [(20 - EDGE, 50 + EDGE), (70 - EDGE, 95 + EDGE)]
    assert [one.utterance.number for one in found] == [0, 1]


def test_a_short_pause_ends_nothing_and_a_click_begins_nothing() -> None:
    (only,) = windows(mask(10, 20, 5, 20, 20))
    assert (only.utterance.start, only.end) == (10 - EDGE, 55 + EDGE)
    assert windows(mask(10, 2, 40)) == []


def test_a_long_utterance_is_cut_in_its_longest_pause() -> None:
    found = windows(mask(10, 40, 6, 80, 20))
    assert found[0].end == found[0].core_end == 53
    assert found[1].utterance.start == 53


def test_speech_without_a_pause_is_cut_at_its_quietest_frame_with_an_overlap() -> None:
    activity = np.zeros(260)
    activity[70:75] = -9
    found = windows(mask(5, 235, 20), activity)
    first, second = found[:2]
    assert first.core_end in range(70, 75)
    assert first.end > first.core_end == second.utterance.core_start > second.utterance.start
    assert all(one.end - one.utterance.start <= 100 for one in found)
    cores = [(one.utterance.core_start, one.core_end) for one in found]
    assert [end for _, end in cores[:-1]] == [start for start, _ in cores[1:]]


@pytest.mark.parametrize("longest", [50, 71, 375])
def test_models_of_longer_windows_wait_for_longer_pauses(longest: int) -> None:
    assert Segmenter(longest).pause == {50: 7, 71: 7, 375: 15}[longest]


def test_levels_and_probabilities_are_those_of_offline_reading(samples: np.ndarray) -> None:
    activity = AudioActivity()
    rng, first = np.random.default_rng(0), 0
    while first < len(samples):
        count = int(rng.integers(1, 1500))
        activity.push(samples[first : first + count], True)
        first += count
    frames = activity.end
    assert frames >= len(samples) // 640 - 1
    assert activity.level[0:frames] == pytest.approx(loudness(samples, len(samples) // 640)[:frames])
    expected = speech_probability(samples, len(samples) // 640)[:frames]
    assert activity.probability[0:frames] == pytest.approx(expected, abs=1e-5)
    assert activity.present[0:frames].all()


def test_speech_ends_where_the_voice_does_although_the_noise_goes_on(samples: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 200, 4 * len(samples))
    noise[: len(samples)] += samples
    activity = AudioActivity()
    activity.push(noise.clip(-32768, 32767).astype(np.int16), True)
    speech = speaking(activity, None, activity.end, activity.end)
    assert speech[15:40].mean() > 0.8
    assert not speech[len(samples) // 640 + 15 :].any()


def person(number: int, gap: np.ndarray, detected: bool = True) -> Person:
    found = Person.begin(number, 0, 96)
    for value in gap:
        found.append(np.zeros((96, 96), np.uint8), detected, float(value), 100.0)
    return found


def test_the_speaker_is_who_opens_the_mouth_with_the_voice() -> None:
    rng = np.random.default_rng(3)
    loud = np.repeat(rng.random(20), 5)
    samples = (np.repeat(loud, 640) * rng.normal(0, 6000, 64_000)).astype(np.int16)
    levels = VoiceLevels()
    levels.push(samples, 100)
    mouth, other = 8 * loud, 8 * np.repeat(rng.random(20), 5)
    for people in ([person(1, mouth), person(2, other)], [person(2, other), person(1, mouth)]):
        assert speaking_person(people, levels.levels, 0, 100).number == 1
    assert speaking_person([person(1, mouth * 0), person(2, other)], None, 0, 100).number == 2  # whose mouth moves
    assert speaking_person([person(1, mouth, False), person(2, other)], levels.levels, 0, 100).number == 2
    assert speaking_person([person(1, mouth, False)], levels.levels, 0, 100) is None
