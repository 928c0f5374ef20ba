"""Where a recording is cut, and how the words of overlapping windows are joined."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avhubert.transcription.segmenter import (
    EMPTY,
    LONGEST,
    PAUSE,
    Window,
    cut_windows,
    find_windows,
    join_words,
    loudness,
    movement,
    visible_stretches,
)
from avhubert.transcription.transcript import Word

pytestmark = pytest.mark.quick

LOUD, QUIET = -20.0, -70.0


def level(*parts: tuple[float, int]) -> np.ndarray:
    """Loudness in dB: (level, frames) one after the other, with a ripple."""
    flat = np.concatenate([np.full(frames, value) for value, frames in parts])
    return flat + np.random.default_rng(0).normal(0, 0.5, len(flat))


@given(
    st.integers(1, 1500), st.sampled_from(["sound", "lips", "both"]), st.integers(50, LONGEST), st.integers(0, 2**31)
)
def test_windows_cover_everything_once_and_none_is_too_long(frames: int, there: str, longest: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    loud = np.repeat(rng.choice([LOUD, QUIET], frames), rng.integers(1, 60, frames))[:frames]
    heard = None if there == "lips" else loud + rng.normal(0, 3, frames)
    moved = None if there == "sound" else rng.random(frames) * np.repeat(rng.choice([0, 0.01], frames), 20)[:frames]
    found = find_windows(heard, moved, longest)
    assert found[0].core_start == 0
    assert found[-1].core_end == frames
    assert all(a.core_end == b.core_start for a, b in itertools.pairwise(found))
    for window in found:
        assert 0 <= window.start <= window.core_start < window.core_end <= window.end <= frames
        assert not window.speech or window.end - window.start <= longest


def test_a_long_pause_parts_two_windows_in_its_middle() -> None:
    found = find_windows(level((LOUD, 100), (QUIET, PAUSE + 10), (LOUD, 100)), None)
    assert [window.core_end for window in found] == [100 + (PAUSE + 10) // 2, 200 + PAUSE + 10]
    assert all(window.start == window.core_start for window in found)  # nothing overlaps in a pause


def test_a_short_pause_is_where_long_speech_is_cut() -> None:
    heard = level((LOUD, 200), (QUIET, 8), (LOUD, 100), (QUIET, 12), (LOUD, 100))
    assert [(w.start, w.end) for w in find_windows(heard, None)] == [(0, 314), (314, 420)]


def test_speech_without_a_pause_is_cut_with_an_overlap() -> None:
    heard = level((QUIET, 40), (LOUD, 1000), (QUIET, 10))
    heard[300:305] -= 10  # a breath
    first, second, *_ = find_windows(heard, None)
    assert 298 <= first.core_end <= 306
    assert first.end - first.core_end == 25 == second.core_start - second.start


def test_long_silence_is_a_window_without_speech() -> None:
    found = find_windows(level((LOUD, 50), (QUIET, 3 * EMPTY), (LOUD, 50)), None)
    assert [window.speech for window in found] == [True, False, True]
    assert find_windows(np.full(80, -90.0), None)[0].speech is False


def test_a_moving_mouth_in_silence_is_speech_and_a_still_one_is_not() -> None:
    silence, moving = np.full(100, -90.0), np.full(100, 0.02)
    assert find_windows(silence, moving)[0].speech
    assert not find_windows(silence, np.full(100, 1e-4))[0].speech
    assert not find_windows(None, np.full(100, 1e-4))[0].speech


def test_steady_noise_hides_pauses_so_that_nothing_is_left_out() -> None:
    assert all(window.speech for window in find_windows(level((-30.0, 400)), None))


def test_short_gaps_and_short_appearances_of_a_face() -> None:
    seen = np.repeat([True, False, True, False, True], [60, EMPTY - 1, 30, 70, 20])
    expected = np.repeat([True, False], [60 + EMPTY - 1 + 30, 90])
    assert visible_stretches(seen).tolist() == expected.tolist()
    assert visible_stretches(np.ones(10, bool)).all()
    assert visible_stretches(np.arange(30) < 10).all()


def test_windows_are_cut_with_an_overlap_where_a_face_appears() -> None:
    silent, spoken = Window(0, 100, 0, 100, False), Window(100, 400, 100, 400)
    found = cut_windows([silent, spoken], [50, 120, 250, 390])
    assert found == [silent, Window(100, 275, 100, 250), Window(225, 400, 250, 400)]
    assert cut_windows([spoken], []) == [spoken]


def test_loudness_is_relative_to_full_scale_and_silent_beyond_the_sound() -> None:
    found = loudness(np.full(2 * 640 + 1, -32768, np.int16), 4)
    assert found[:2] == pytest.approx([0, 0], abs=1e-6)
    assert -40 < found[2] < -20  # one sample of 640
    assert found[3] < -100


def test_movement_counts_faces_not_pixels() -> None:
    gap = 5 + 5 * np.sin(np.arange(100) / 3)
    assert movement(gap, 100.0) == pytest.approx(movement(2 * gap, 200.0))
    assert movement(np.ones(1), 50.0) == pytest.approx([0])
    assert movement(np.ones(30), 50.0).max() == 0


# --------------------------------------------------------------------------- joining
def said(text: str, start: float, seconds: float = 0.5) -> list[Word]:
    """One word every `seconds`."""
    return [Word(w, start + i * seconds, start + (i + 1) * seconds, 1.0, 0) for i, w in enumerate(text.split())]


def texts(both: tuple[list[Word], list[Word]]) -> tuple[str, str]:
    return " ".join(word.text for word in both[0]), " ".join(word.text for word in both[1])


def test_a_word_that_both_heard_joins_them() -> None:
    before, after = said("one two three four fife", 0.0), said("ee four five six", 1.2)
    assert texts(join_words(before, after, 1.6)) == ("one two three four", "five six")


def test_without_a_common_word_the_cut_decides() -> None:
    before, after = said("one two three", 0.0), said("tree for five", 1.0)
    assert texts(join_words(before, after, 1.2)) == ("one two", "tree for five")
    assert texts(join_words(before, after, 1.3)) == ("one two three", "for five")
    assert texts(join_words([], after, 0.0)) == ("", "tree for five")


def test_the_same_word_at_another_time_joins_nothing() -> None:
    before, after = said("no yes", 0.0), said("no maybe", 1.0)
    assert texts(join_words(before, after, 1.0)) == ("no yes", "no maybe")
